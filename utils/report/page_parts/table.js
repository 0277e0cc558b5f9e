// The table: what it can be sorted by, its rows, its state.

const keys = new Map();
const textOrders = ["A to Z", "Z to A"], gainKey = (metric) => `gain ${metric.name}`;

function addKey(id, label, of, orders = ["Smallest first", "Largest first"]) {
  keys.set(id, { label, of, orders });
}

function addMetricKeys(metrics, id, label, of) {
  const orders = { higher: ["Worst first", "Best first"], lower: ["Best first", "Worst first"] };
  for (const metric of metrics) addKey(id(metric), label(metric), (row) => of(row, metric), orders[metric.better]);
}

addKey("order", "order of the run", (row) => row.index, ["First to last", "Last to first"]);
addKey("image", "name", (row) => row.values.image, textOrders);
for (const { name } of texts) addKey(name, name, (row) => row.values[name] ?? "", textOrders);
const compared = metrics.filter(hasGain), ofInput = ({ name }) => `input_${name}`, nameOf = ({ name }) => name;
const shownName = ({ name }) => metricName(name);
const gainLabel = (metrics) => `${gainWord(metrics[0])} in ${metrics.map(shownName).join(" or ")}`;
addMetricKeys(compared, gainKey, (metric) => gainLabel([metric]), rowGain);
addMetricKeys(metrics, nameOf, shownName, (row, { name }) => number(row.values[name]));
const inputName = (metric) => `input ${shownName(metric)}`;
addMetricKeys(compared, ofInput, inputName, (row, metric) => number(row.values[ofInput(metric)]));
addKey("size", "size in px", (row) => number(row.values.height) * number(row.values.width));
addKey("seconds", "seconds", (row) => number(row.values.seconds));

// The gain by which rows are sorted first: each row's by the metric that its set is judged by.
const mains = [...new Set(setNames.map(mainOf))].filter((metric) => metric && hasGain(metric));
const mainKey = mains.length > 1 ? "gain" : mains.map(gainKey)[0];
const mainGain = (row) => rowGain(row, mainOf(row.values.set));
if (mains.length > 1) addMetricKeys([mains[0]], () => mainKey, () => gainLabel(mains), mainGain);

const columns = [
  ...(mainKey ? [{ key: mainKey, kind: "gain" }] : []),
  ...metrics.map((metric) => ({ key: metric.name, kind: "value", metric })),
  { key: "size", kind: "extra" }, { key: "seconds", kind: "extra" },
];
const collator = new Intl.Collator("en", { numeric: true });
const sorted = { set: "", query: "", key: "order", descending: false };
let visible = [];

function cell({ key, kind, metric }, row) {
  const { values } = row;
  const attributes = { role: "cell", class: kind, "data-label": keys.get(key).label };
  if (kind === "gain") {
    const main = mainOf(values.set), gain = rowGain(row, main), label = gainLabel([main]);
    const colour = Number.isNaN(gain) ? "without" : gainClass(main, gain);
    return el("td", { ...attributes, "data-label": label, class: `gain ${colour}` }, format(gain, main.digits, true));
  }
  if (key === "size") return el("td", attributes, `${values.width}×${values.height}`);
  if (key === "seconds") return el("td", attributes, duration(number(values.seconds)));
  const before = number(values[`input_${metric.name}`]), after = number(values[metric.name]);
  if (Number.isNaN(before) && Number.isNaN(after)) return el("td", { ...attributes, class: `${kind} without` }, NONE);
  const from = Number.isNaN(before) ? null : el("small", {}, `from ${format(before, metric.digits)}`);
  return el("td", attributes, format(after, metric.digits), from);
}

function rowElement(row) {
  row.pictures = Object.fromEntries(Object.entries(row.pictures).filter(([, url]) => url));
  const { restored } = row.thumbnails;
  const picture = restored
    ? el("img", { loading: "lazy", decoding: "async", width: 120, height: 68, alt: "", src: restored })
    : el("span", { class: "none" }, "no picture");
  const attributes = { type: "button", class: "open", tabindex: -1, "aria-haspopup": "dialog" };
  row.button = el("button", attributes, ...breakable(row.values.image));
  const set = setNames.length > 1 ? row.values.set : "";
  const further = texts.map(({ name }) => row.values[name]).filter((text) => text && !set.includes(text));
  const more = [...(set ? [set] : []), ...further].join(" · ");
  row.element = el("tr", { role: "row" },
    el("td", { role: "cell", class: "picture" }, picture),
    el("td", { role: "cell", class: "image" }, row.button, more ? el("small", {}, ...breakable(more)) : null),
    ...columns.map((column) => cell(column, row)));
  row.element.addEventListener("click", () => { if (!String(getSelection())) openViewer(row); });
  return row.element;
}

function buildTable() {
  const header = (key, name, kind) => {
    const button = el("button", { type: "button" }, ...breakable(name));
    button.addEventListener("click", () => sortBy(key, sorted.key === key && !sorted.descending));
    return el("th", { role: "columnheader", scope: "col", class: kind, "data-key": key }, button);
  };
  const picture = el("th", { role: "columnheader", scope: "col", class: "picture", "aria-label": "Picture" });
  $("head").append(picture, header("image", "image", "image"));
  $("head").append(...columns.map(({ key, kind }) => header(key, kind === "extra" ? key : keys.get(key).label, kind)));
  data.rows.forEach(rowElement);
  $("set").append(el("option", { value: "" }, "all"), ...setNames.map((name) => el("option", { value: name }, name)));
  $("set-label").hidden = setNames.length < 2;
  $("key").append(...[...keys].map(([id, { label }]) => el("option", { value: id }, label)));
  $("set").addEventListener("change", () => { sorted.set = $("set").value; update(); });
  $("query").addEventListener("input", () => { sorted.query = $("query").value.trim().toLowerCase(); update(); });
  $("key").addEventListener("change", () => sortBy($("key").value, sorted.descending));
  $("ascending").addEventListener("click", () => sortBy(sorted.key, false));
  $("descending").addEventListener("click", () => sortBy(sorted.key, true));
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("body").addEventListener("keydown", moveAmongRows);
  new ResizeObserver(fitColumns).observe(document.querySelector("main"));
}

/** Leaves out what is not a score where the window is narrow; where that is not enough or all, each image is a card. */
function fitColumns() {
  const table = $("images"), rem = 15, needs = (number) => 120 + 10 * rem + number * 6.3 * rem + 2 * rem;
  const width = table.clientWidth, extras = columns.filter(({ kind }) => kind === "extra").length;
  const tight = width < needs(columns.length), shown = columns.length - (tight ? extras : 0);
  const cards = !shown || width < needs(shown);
  table.classList.toggle("cards", cards);
  table.classList.toggle("tight", tight && !cards);
  table.style.setProperty("--tracks", `120px minmax(0, 2fr) repeat(${shown}, minmax(0, 1fr))`);
}

function sortBy(key, descending) {
  Object.assign(sorted, { key, descending });
  update();
}

/** Rows in the order of a key; those without a value come last either way, equal ones as in the run. */
function inOrder(rows) {
  const { of } = keys.get(sorted.key), turn = sorted.descending ? -1 : 1;
  const compare = (a, b) => (typeof a === "string" ? collator.compare(a, b) : a < b ? -1 : a > b ? 1 : 0);
  const valued = rows.map((row) => [of(row), row]), absent = ([value]) => Number.isNaN(value);
  const present = valued.filter((pair) => !absent(pair)).sort(([a], [b]) => turn * compare(a, b));
  return [...present, ...valued.filter(absent)].map(([, row]) => row);
}

function update() {
  const { set, query, key, descending } = sorted;
  const fits = ({ values }) => (!set || values.set === set) && values.image.toLowerCase().includes(query);
  visible = inOrder(data.rows.filter(fits));
  $("body").replaceChildren(...visible.map((row) => row.element));
  for (const row of visible) row.button.tabIndex = -1;
  if (visible.length) visible[0].button.tabIndex = 0; // the rows are one stop of the Tab key; arrows move among them
  for (const head of $("head").children) {
    if (head.dataset.key === key) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  const { orders } = keys.get(key);
  $("key").value = key;
  ["ascending", "descending"].forEach((id, i) => {
    $(id).textContent = orders[i];
    $(id).setAttribute("aria-pressed", String((i === 1) === descending));
  });
  // "Worst first" stands before "Best first" whichever of the two is ascending.
  const [first, second] = orders[0] === "Best first" ? ["descending", "ascending"] : ["ascending", "descending"];
  if ($(first).nextElementSibling !== $(second)) $(first).after($(second));
  const all = data.rows.length;
  $("count").textContent = (visible.length === all ? "" : `${count(visible.length)} of `) + counted(all, "image");
}

function focusRow(row) {
  for (const each of visible) each.button.tabIndex = each === row ? 0 : -1;
  row.button.focus();
  row.element.scrollIntoView({ block: "nearest" });
}

function moveAmongRows(event) {
  const at = visible.findIndex((row) => row.button === event.target);
  const last = visible.length - 1;
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + 8, PageUp: at - 8, Home: 0, End: last }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  focusRow(visible[clamp(to, 0, last)]);
}
