// The header, for each set its means and a histogram of gains, and the published results.

const WARNING = "WARNING: "; // before notes that are no mere notes
const NOT_USED = /^not used: ([\d,]+) /; // a note on images that were found, and are no part of the set
const SHORT = 3; // lines of a list that is shown without being unfolded

function showHeader() {
  const { networks, from_results: saved, precision, device, torch } = data.settings;
  const files = Object.values(networks ?? {}).map(({ weights }) => String(weights).split(/[\\/]/));
  const short = files.map((parts) => parts.at(-1)), alike = new Set(short).size < short.length;
  const names = alike ? files.map((parts) => parts.slice(-2).join("/")) : short; // tells any two of a run apart
  const run = [names.join(", ") || (saved && `pictures of ${saved}`), precision, device, torch && `torch ${torch}`];
  $("run").append(run.filter(Boolean).join(" · "));
  const videos = Object.values(data.sets).filter(({ kind }) => kind === "video").length;
  const extent = [[Object.keys(data.sets).length - videos, "set"], [videos, "video"]].filter(([size]) => size);
  if (data.rows.length) $("extent").append(el("a", { href: "#pictures" }, counted(data.rows.length, "image")), " · ");
  $("extent").append(extent.map((each) => counted(...each)).join(" · "));
  $("lacks").append(...lacks());
  $("settings").append(settingsList(data.settings));
}

/** What the run lacks: files that were skipped or not used, warnings, videos that were restored in part. */
function lacks() {
  const sets = Object.entries(data.sets), [videos, images] = [true, false].map((video) =>
    sets.filter(([, { kind }]) => (kind === "video") === video));
  const skipped = new Set([...data.problems, ...images.flatMap(([, { problems }]) => problems ?? [])]);
  const notes = new Map(images.flatMap(([name, { notes: all }]) => (all ?? []).map((note) => [note, name])));
  const ofSet = (name, note) => (images.length > 1 ? `${name}: ${note}` : note);
  const warned = [...notes].filter(([note]) => note.startsWith(WARNING)).map(([note, name]) =>
    ofSet(name, note.slice(WARNING.length)));
  const unused = [...notes].filter(([note]) => NOT_USED.test(note));
  const left = unused.reduce((sum, [note]) => sum + Number(NOT_USED.exec(note)[1].replaceAll(",", "")), 0);
  const unusedLines = unused.map(([note, name]) => ofSet(name, note));
  const partial = videos.filter(([, { problems }]) => problems?.length).length;
  return [
    skipped.size ? foldedList(`${counted(skipped.size, "file")} skipped`, [...skipped]) : null,
    unused.length ? foldedList(`${counted(left, "image")} not used`, unusedLines) : null,
    warned.length ? foldedList(counted(warned.length, "warning"), warned) : null,
    partial ? el("p", {}, `${counted(partial, "video")} restored in part`) : null,
  ].filter(Boolean);
}

function settingsList(settings) {
  const shown = (value) => (value && typeof value === "object" ? settingsList(value) : String(value));
  const given = Object.entries(settings).filter(([, value]) => !absent(value));
  return el("dl", {}, ...given.flatMap(([name, value]) => {
    const values = [value].flat(), named = name === "metrics" ? values.map(metricName) : values;
    const lines = named.map((each) => el("div", {}, shown(each)));
    return [el("dt", {}, name.replaceAll("_", " ")), el("dd", {}, ...lines)];
  }));
}

function tableOf(names, rows) {
  const heads = names.map((name) => el("th", { scope: "col" }, name));
  return el("table", { class: "plain" }, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows));
}

const known = (name) => metricOf(name) ?? { name, better: null, digits: 4, unit: "" };

function gainCell(metric, before, after) {
  const gain = gainOf(metric, before, after);
  return el("td", { class: gainClass(metric, gain) }, format(gain, metric.digits, true));
}

function metricsTable(summary) {
  const body = Object.entries(summary.output).flatMap(([name, after]) => {
    const metric = known(name), before = summary.input?.[name], fits = data.comparable_with[name];
    const means = [before, after].map((value) => el("td", {}, format(number(value), metric.digits)));
    const row = el("tr", {}, el("th", { scope: "row" }, metricName(name)), ...means, gainCell(metric, before, after));
    const note = name in data.labels ? `as ${fits}` : fits; // others are no scores: the share of aligned images
    return fits ? [row, el("tr", { class: "note" }, el("td", { colspan: 4 }, note))] : [row];
  });
  return tableOf(["means", "input", "output", "change"], body);
}

/** What keeps a set's means from being compared with published ones: another number of images. */
function incomparable({ images, published_images: whole }) {
  if (images === whole) return "";
  return `not comparable: ${counted(images, "image")} scored, the published results are of ${count(whole)}`;
}

/** The tables of published results by kind of set, folded. */
function publishedTables() {
  const sets = Object.values(data.sets).filter(({ output, published }) => output && published?.length);
  return new Map([...new Set(sets.map(({ kind }) => kind))].map((kind) => {
    const ofKind = sets.filter((each) => each.kind === kind), marks = ofKind.map(incomparable);
    const mark = marks.every(Boolean) ? el("span", { class: "warn" }, ` (${marks[0]})`) : null;
    return [kind, publishedTable(kind, ofKind[0].published, mark)];
  }));
}

function publishedTable(kind, published, mark) {
  const body = published.map(({ method, protocol, source, psnr, ssim }) => {
    const named = el("span", { class: "named" }, method, el("small", {}, `${labelled(protocol)}; ${source}`));
    const values = [format(number(psnr), 2), absent(ssim) ? NONE : String(ssim)].map((value) => el("td", {}, value));
    return el("tr", {}, el("th", { scope: "row" }, named), ...values);
  });
  const table = tableOf(["method, protocol, source", "PSNR", "SSIM"], body);
  return el("details", { id: `published-${kind}` }, el("summary", {}, `On ${data.titles[kind]}'s test set`, mark), table);
}

/** A link to the published results on a set, which says where the set's means are not comparable with them. */
function publishedLink(summary, table) {
  const link = el("a", { href: `#${table.id}` }, `Published on ${data.titles[summary.kind]}'s test set`);
  link.addEventListener("click", () => { table.open = true; });
  return el("p", { class: "links" }, link, el("span", { class: "warn" }, incomparable(summary)));
}

function overviewTable(names) {
  const found = new Set(names.flatMap((name) => Object.keys(data.sets[name].output)));
  const columns = [...new Set([...data.printed.filter((name) => found.has(name)), ...found])].map(known);
  const body = names.map((name) => {
    const { input, output } = data.sets[name];
    const cells = columns.map((metric) => {
      const role = "cell", label = metricName(metric.name);
      if (!(metric.name in output)) return el("td", { role, class: "without" }, NONE);
      const gain = gainOf(metric, input?.[metric.name], output[metric.name]);
      const small = el("small", { class: gainClass(metric, gain) }, format(gain, metric.digits, true));
      const value = format(number(output[metric.name]), metric.digits);
      return el("td", { role, "data-label": label }, value, small);
    });
    return el("tr", { role: "row" }, el("th", { scope: "row", role: "rowheader" }, ...breakable(name)), ...cells);
  });
  const table = tableOf(["set", ...columns.map(({ name }) => metricName(name))], body);
  table.setAttribute("role", "table"); // stays one where the style makes blocks of its rows
  const box = el("div", { class: "overview" }, table);
  new ResizeObserver(() => { // a window that is too narrow has each set's own metrics below its name
    box.classList.remove("stacked");
    box.classList.toggle("stacked", box.scrollWidth > box.clientWidth);
  }).observe(document.querySelector("main"));
  const what = el("p", { class: "muted" }, "means: output, change");
  return el("section", { class: "card" }, el("h2", {}, "All sets"), what, box);
}

function setCard(name, summary, tables) {
  const card = el("section", { class: "card" }, el("h2", {}, ...breakable(name)));
  const facts = summary.kind === "video" ? videoFacts(summary) : setFacts(name, summary);
  card.append(el("p", { class: "muted" }, facts.filter(Boolean).join(" · ")));
  if (summary.thumbnails?.restored) card.append(stillButton(name, summary));
  const all = [[summary.original, "Open the original"], [summary.file, "Open the restored video"]];
  const places = all.filter(([place]) => place);
  if (places.length) card.append(el("p", { class: "links" }, ...places.map(([href, text]) => el("a", { href }, text))));
  const incomplete = "Incomplete: not all images that were asked for are here.";
  if (summary.complete === false) card.append(el("p", { class: "warn" }, incomplete));
  if (summary.kind !== "video" && !summary.published) {
    const done = summary.output ? "judged without one" : "not scored";
    card.append(el("p", {}, `No ground truth: restored and saved, ${done}.`));
  }
  const rows = data.rows.filter((row) => row.values.set === name);
  if (summary.output) {
    const scored = metrics.filter((metric) => metric.name in summary.output);
    const main = scored.find((metric) => metric === mainOf(name)) ?? scored[0];
    const gains = rows.map((row) => rowGain(row, main));
    const drawn = gains.some((gain) => !Number.isNaN(gain)) ? histogram(gains, main) : "";
    card.append(el("div", { class: "halves" }, metricsTable(summary), drawn));
    if (tables.has(summary.kind)) card.append(publishedLink(summary, tables.get(summary.kind)));
  }
  const { kind, problems, notes } = summary; // those of sets stand in the header
  if (kind === "video" && problems?.length) {
    card.append(el("div", { class: "warn" }, foldedList(`Problems (${problems.length})`, problems)));
  }
  if (notes?.length) card.append(foldedList(`Notes (${notes.length})`, notes, false));
  return card;
}

/** The cards of all sets and videos; of several sets those after the first are folded, but for incomplete ones. */
function setCards(tables) {
  const first = Object.keys(data.sets).filter((name) => data.sets[name].kind !== "video");
  return Object.entries(data.sets).map(([name, summary]) => {
    const card = setCard(name, summary, tables);
    if (first.length < 2 || summary.kind === "video") return card;
    const [heading, ...rest] = card.childNodes, open = name === first[0] || summary.complete === false;
    card.append(el("details", { class: "set", open: open ? "" : null }, el("summary", {}, heading), ...rest));
    return card;
  });
}

function videoFacts({ width, height, frames, frames_per_second: rate }) {
  return ["video", `${width}×${height} px`, counted(frames, "frame"), `${Number(rate.toFixed(3))} a second`];
}

/** A frame of a video, which opens it before and after. */
function stillButton(name, { width, height, pictures, thumbnails }) {
  const row = { values: { set: "", image: name, width, height }, pictures, video: true };
  const frames = [["before", thumbnails.blurry], ["after", thumbnails.restored]].filter(([, src]) => src);
  const images = frames.map(([side, src]) => el("span", {}, el("img", { loading: "lazy", alt: "", src }), side));
  const attributes = { type: "button", class: "still", "aria-haspopup": "dialog" };
  row.button = el("button", attributes, ...images, "Compare a frame");
  row.button.addEventListener("click", () => openViewer(row));
  videoRows.push(row);
  return row.button;
}

function setFacts(name, { kind, images, images_in_set: whole, seconds_per_image: seconds, protocol, root }) {
  const size = whole > images ? `${count(images)} of ${counted(whole, "image")}` : counted(images, "image");
  const scored = protocol && `scored: ${labelled(protocol)}`;
  const title = data.titles[kind] ?? kind; // which the name of a whole data set is
  return [title === name ? "" : title, size, seconds > 0 && `${duration(seconds)} an image (median)`, scored, root];
}

function foldedList(title, lines, open = lines.length <= SHORT) {
  const list = el("ul", {}, ...lines.map((line) => el("li", {}, line)));
  return el("details", { open: open ? "" : null }, el("summary", {}, title), list);
}

// ---- histogram

/** Bins of a round width whose edges include 0, so that no bin holds both better and worse images. */
function binned(values) {
  const low = Math.min(...values), high = Math.max(...values);
  const steps = [-4, -3, -2, -1, 0, 1, 2].flatMap((power) => [1, 2, 5].map((digit) => Number(`${digit}e${power}`)));
  const step = steps.find((each) => (high - low) / each <= 20) ?? 1000;
  const place = (value) => Math.floor(value / step + 1e-9);
  const bins = new Map();
  for (let bin = place(low); bin <= place(high); bin++) bins.set(bin, 0);
  for (const value of values) bins.set(place(value), bins.get(place(value)) + 1);
  return { step, bins: [...bins] };
}

function drawHistogram(svg, { step, bins }, metric) {
  const width = svg.clientWidth || 400, height = 190, base = height - 34, top = 18, label = 46; // px: a label is as wide
  const bar = Math.min(width / (bins.length + 1), (width - label) / bins.length);
  const left = (width - bar * bins.length) / 2;
  const most = Math.max(...bins.map(([, size]) => size)), x = (bin) => left + (bin - bins[0][0]) * bar;
  const shape = (tag, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.textContent = text ?? "";
    return node;
  };
  const digits = step < 1 ? Math.ceil(-Math.log10(step)) : 0, edge = (bin) => format(bin * step, digits, true);
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  for (const [bin, size] of bins) {
    const tall = (base - top) * size / most;
    const worse = metric.better === "lower" ? bin >= 0 : bin < 0;
    const place = { x: x(bin) + .5, y: base - tall, width: Math.max(bar - 1, .5), height: tall };
    const box = shape("rect", { ...place, class: worse ? "worse" : "better" });
    box.append(shape("title", {}, `${edge(bin)} to ${edge(bin + 1)}${unit(metric)}: ${count(size)}`));
    svg.append(box);
    const fits = size && bar >= 8 * count(size).length;
    if (fits) svg.append(shape("text", { x: x(bin + .5), y: base - tall - 4 }, count(size)));
  }
  const every = Math.ceil(label / bar), last = bins.at(-1)[0] + 1;
  for (let bin = bins[0][0]; bin <= last; bin++) {
    if (bin % every === 0 || bins.length < 3) svg.append(shape("text", { x: x(bin), y: base + 15 }, edge(bin)));
  }
  svg.append(shape("line", { x1: 0, x2: width, y1: base, y2: base, class: "axis" }));
  const zero = { x1: x(0), x2: x(0), y1: top - 12, y2: base, class: "zero" };
  if (bins[0][0] < 0 && last > 0) svg.append(shape("line", zero));
  const scale = gainWord(metric) + (metric.unit && ` in ${metric.unit}`);
  svg.append(shape("text", { x: width / 2, y: height - 4 }, `${scale}, number of images`));
}

function histogram(gains, metric) {
  const finite = gains.filter(Number.isFinite).sort((a, b) => a - b);
  const worse = gains.filter((gain) => worsens(metric, gain)).length;
  const middle = (finite[(finite.length - 1) >> 1] + finite[finite.length >> 1]) / 2;
  const median = `median ${format(middle, metric.digits, true)}${unit(metric)}`, rest = gains.length - finite.length;
  const facts = [`${count(worse)} of ${count(gains.length)} made worse`, ...(finite.length ? [median] : [])];
  if (rest) facts.push(`${count(rest)} without a finite one, not drawn`);
  const word = gainWord(metric) === "gain" ? "Gains" : "Changes";
  const title = `${word} in ${metricName(metric.name)}: ${facts.join(", ")}`;
  const figure = el("div", { class: "histogram" }, el("h3", {}, title));
  if (finite.length < 2) return figure;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Histogram. ${title}`);
  svg.setAttribute("height", 190);
  figure.append(svg);
  const bins = binned(finite);
  new ResizeObserver(() => drawHistogram(svg, bins, metric)).observe(figure);
  return figure;
}
