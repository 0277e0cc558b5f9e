// The run's data, and what shows values.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const NONE = "–", MINUS = "−";
const absent = (value) => value === null || value === undefined;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const count = (value) => value.toLocaleString("en");
const counted = (value, what) => `${count(value)} ${what}${value === 1 ? "" : "s"}`;

/** Makes an element; whatever comes from file names is an attribute's value or a text node, never markup. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (!absent(value)) node.setAttribute(name, value);
  node.append(...children.filter((child) => !absent(child)));
  return node;
}

/** The parts of a name, to be broken between them only. */
const breakable = (name) => name.split(/(?<=[/_])/).flatMap((part, i) => (i ? [el("wbr"), part] : [part]));

/** A number of the data: absent ones are NaN, "Infinity" is a word in JSON. */
const number = (value) => (absent(value) ? NaN : Number(value));

function format(value, digits, signed = false) {
  if (Number.isNaN(value)) return NONE;
  const size = Number.isFinite(value) ? Math.abs(value).toFixed(digits) : "∞";
  const sign = Number(size) === 0 ? "" : value < 0 ? MINUS : signed ? "+" : "";
  return sign + size;
}

const duration = (seconds) => (seconds > 0 ? `${Number(seconds.toPrecision(3))} s` : NONE);
const metrics = data.columns.filter((column) => !column.text);
const texts = data.columns.filter((column) => column.text);
const metricOf = (name) => metrics.find((metric) => metric.name === name);
const ofSets = Object.values(data.sets).map(({ main }) => metricOf(main));
const primary = ofSets.find(Boolean) ?? metricOf("psnr") ?? metrics[0];
/** The metric that a set is judged by: RealBlur's is of aligned images. */
const mainOf = (set) => metricOf(data.sets[set]?.main) ?? primary;
const improves = (metric, gain) => (metric.better === "lower" ? gain < 0 : metric.better === "higher" && gain > 0);
const metricName = (name) => data.labels[name] ?? name;
/** A text with its metrics as people write them. */
const labelled = (text) => text.replace(/\b[a-z]+(_[a-z]+)?\b/g, metricName);
const worsens = (metric, gain) => (metric.better === "lower" ? gain > 0 : metric.better === "higher" && gain < 0);
/** A colour for what is seen of a gain: none where that is 0. */
function gainClass(metric, gain) {
  const seen = Number(gain.toFixed(metric.digits));
  return improves(metric, seen) ? "better" : worsens(metric, seen) ? "worse" : "";
}
const gainOf = (metric, before, after) => number(after) - number(before);
const rowGain = (row, metric) => gainOf(metric, row.values[`input_${metric.name}`], row.values[metric.name]);
const unit = (metric) => (metric.unit ? ` ${metric.unit}` : "");
const gainWord = (metric) => (metric.better === "lower" ? "change" : "gain"); // a lower LPIPS is no gain in it
const hasGain = (metric) => data.rows.some((row) => row.values[`input_${metric.name}`] !== undefined);
const setNames = [...new Set(data.rows.map((row) => row.values.set))];
data.rows.forEach((row, index) => { row.index = index; });
const videoRows = []; // a frame of each video, in the order of their cards
