// The header, and for each set its means, the published results and a histogram of gains.

function showHeader() {
  const { networks, from_results: saved, precision, device, torch } = data.settings;
  const files = Object.values(networks ?? {}).map(({ weights }) => String(weights).split(/[\\/]/));
  const short = files.map((parts) => parts.at(-1)), alike = new Set(short).size < short.length;
  const names = alike ? files.map((parts) => parts.slice(-2).join("/")) : short; // tells any two of a run apart
  const run = [names.join(", ") || (saved && `pictures of ${saved}`), precision, device, torch && `torch ${torch}`];
  $("run").append(run.filter(Boolean).join(" · "));
  const videos = Object.values(data.sets).filter(({ kind }) => kind === "video").length;
  const extent = [[data.rows.length, "image"], [Object.keys(data.sets).length - videos, "set"], [videos, "video"]];
  $("extent").append(extent.filter(([size]) => size).map((each) => counted(...each)).join(" · "));
  $("settings").append(settingsList(data.settings));
}

function settingsList(settings) {
  const shown = (value) => (value && typeof value === "object" ? settingsList(value) : String(value));
  return el("dl", {}, ...Object.entries(settings).flatMap(([name, value]) => {
    const lines = [value].flat().map((each) => el("div", {}, shown(each)));
    return [el("dt", {}, name.replaceAll("_", " ")), el("dd", {}, ...lines)];
  }));
}

function tableOf(names, rows) {
  const heads = names.map((name) => el("th", { scope: "col" }, name));
  return el("table", { class: "plain" }, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows));
}

const known = (name) => metrics.find((metric) => metric.name === name) ?? { name, better: null, digits: 4, unit: "" };

function gainCell(metric, before, after) {
  const gain = gainOf(metric, before, after);
  return el("td", { class: gainClass(metric, gain) }, format(gain, metric.digits, true));
}

function metricsTable(summary) {
  const body = Object.entries(summary.output).flatMap(([name, after]) => {
    const metric = known(name), before = summary.input?.[name], fits = data.comparable_with[name];
    const means = [before, after].map((value) => el("td", {}, format(number(value), metric.digits)));
    const row = el("tr", {}, el("th", { scope: "row" }, ...breakable(name)), ...means, gainCell(metric, before, after));
    return fits ? [row, el("tr", { class: "note" }, el("td", { colspan: 4 }, `as ${fits}`))] : [row];
  });
  return tableOf(["means", "input", "output", "change"], body);
}

function publishedTable(summary, open) {
  if (!summary.published?.length) return null;
  const body = summary.published.map(({ method, protocol, source, psnr, ssim }) => {
    const named = el("span", { class: "named" }, method, el("small", {}, `${protocol}; ${source}`));
    const values = [format(number(psnr), 2), absent(ssim) ? NONE : String(ssim)].map((value) => el("td", {}, value));
    return el("tr", {}, el("th", { scope: "row" }, named), ...values);
  });
  const table = tableOf(["method, protocol, source", "PSNR", "SSIM"], body);
  const names = { gopro: "GoPro", hide: "HIDE", realblur_j: "RealBlur-J", realblur_r: "RealBlur-R", reds: "REDS" };
  const set = names[summary.kind] ?? summary.kind;
  const attributes = { class: "published", open: open ? "" : null };
  return el("details", attributes, el("summary", {}, `Published on ${set}'s test set`), table);
}

function overviewTable(names) {
  const columns = [...new Set(names.flatMap((name) => Object.keys(data.sets[name].output)))].map(known);
  const body = names.map((name) => {
    const { input, output } = data.sets[name];
    const cells = columns.map((metric) => {
      const gain = gainOf(metric, input?.[metric.name], output[metric.name]);
      const small = el("small", { class: gainClass(metric, gain) }, format(gain, metric.digits, true));
      return el("td", {}, format(number(output[metric.name]), metric.digits), small);
    });
    return el("tr", {}, el("th", { scope: "row" }, ...breakable(name)), ...cells);
  });
  const table = tableOf(["means: output, change", ...columns.map((metric) => metric.name)], body);
  const attributes = { class: "scroll", tabindex: 0, role: "region", "aria-label": "Means of all sets" };
  return el("section", { class: "card" }, el("h2", {}, "All sets"), el("div", attributes, table));
}

function setCard(name, summary, first) {
  const card = el("section", { class: "card" }, el("h2", {}, ...breakable(name)));
  const facts = summary.kind === "video" ? videoFacts(summary) : setFacts(summary);
  card.append(el("p", { class: "muted" }, facts.filter(Boolean).join(" · ")));
  if (summary.thumbnail) card.append(stillButton(name, summary));
  const places = [[summary.file, "Open"], [summary.original, "Open the original"]].filter(([place]) => place);
  if (places.length) card.append(el("p", { class: "links" }, ...places.map(([href, text]) => el("a", { href }, text))));
  const incomplete = "Incomplete: not all images that were asked for are here.";
  if (summary.complete === false) card.append(el("p", { class: "warn" }, incomplete));
  if (summary.kind !== "video" && !summary.published) {
    const done = summary.output ? "judged without one" : "not scored";
    card.append(el("p", {}, `No ground truth: restored and saved, ${done}.`));
  }
  const rows = data.rows.filter((row) => row.values.set === name);
  if (summary.output) {
    const scored = metrics.filter((metric) => metric.name in summary.output); // RealBlur's are of aligned images
    const main = scored.includes(primary) ? primary : scored[0], gains = rows.map((row) => rowGain(row, main));
    const drawn = gains.some((gain) => !Number.isNaN(gain)) ? histogram(gains, main) : "";
    card.append(el("div", { class: "halves" }, metricsTable(summary), drawn), publishedTable(summary, first) ?? "");
  }
  const wrong = summary.kind === "video" ? "Problems" : "Left out";
  if (summary.problems?.length) card.append(foldedList(wrong, summary.problems, { open: "", class: "warn" }));
  if (summary.notes?.length) card.append(foldedList("Notes", summary.notes));
  return card;
}

function videoFacts({ width, height, frames, frames_per_second: rate }) {
  return ["video", `${width}×${height} px`, counted(frames, "frame"), `${Number(rate.toFixed(3))} a second`];
}

/** A frame of a video, which opens it before and after. */
function stillButton(name, { width, height, pictures, thumbnail }) {
  const row = { values: { set: "", image: name, width, height }, pictures, video: true };
  const image = el("img", { loading: "lazy", decoding: "async", alt: "", src: thumbnail });
  row.button = el("button", { type: "button", class: "still", "aria-haspopup": "dialog" }, image, "Compare a frame");
  row.button.addEventListener("click", () => openViewer(row));
  videoRows.push(row);
  return row.button;
}

function setFacts({ kind, images, images_in_set: whole, seconds_per_image: seconds, protocol, root }) {
  const size = whole > images ? `${count(images)} of ${counted(whole, "image")}` : counted(images, "image");
  return [kind, size, seconds > 0 && `${duration(seconds)} an image (median)`, protocol && `scored: ${protocol}`, root];
}

function foldedList(title, lines, attributes = {}) {
  const list = el("ul", {}, ...lines.map((line) => el("li", {}, line)));
  return el("details", attributes, el("summary", {}, `${title} (${lines.length})`), list);
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
  const width = svg.clientWidth || 400, height = 190, base = height - 34, top = 18, bar = width / (bins.length + 1);
  const most = Math.max(...bins.map(([, size]) => size)), x = (bin) => (bin - bins[0][0] + .5) * bar;
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
  const every = Math.ceil(46 / bar), last = bins.at(-1)[0] + 1;
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
  const title = `${gainWord(metric) === "gain" ? "Gains" : "Changes"} in ${metric.name}: ${facts.join(", ")}`;
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
