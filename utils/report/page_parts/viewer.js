// The viewer: two pictures under one transform.

const SIDES = ["blurry", "restored", "sharp"];
const STRIP = 6; // a picture is a strip where its sides' ratio is that many times the pane's
const panes = [...document.querySelectorAll(".pane")];
const view = {
  row: null, chosen: ["blurry", "restored"], beside: false, split: .5, // and where the pictures lie in their panes:
  fitted: true, scale: 1, x: 0, y: 0,
};
const pointers = new Map();
let grip = null; // what the pointers do: "divide", "pan" or "pinch"

/** The rows among which the viewer steps: of images those in the table, of videos all. */
const stepped = (row) => (row.video ? videoRows : visible);

/** The pictures of a row by name; where several networks restored one image, theirs, too. */
function choices(row) {
  const { blurry } = row.pictures, own = SIDES.filter((side) => row.pictures[side]);
  const others = blurry ? data.rows.filter((each) => each !== row && each.pictures.blurry === blurry) : [];
  return new Map([
    ...own.map((side) => [side, row.pictures[side]]),
    ...others.map(({ values, pictures }) => [`restored, ${values.set}`, pictures.restored]).filter(([, url]) => url),
  ]);
}

function openViewer(row) {
  if (!Object.keys(row.pictures).length) return;
  $("viewer").showModal();
  view.row = null; // it is new, also where it was the last one
  show(row);
  focusViewer();
}

/** Keys need a focus in the viewer: the divider, where it is there. */
const focusViewer = () => $(view.beside ? "beside" : "divider").focus();

function show(row) {
  const given = choices(row), names = [...given.keys()];
  // Another choice of what to compare keeps the place looked at; another image does not.
  if (row !== view.row) Object.assign(view, { row, ...start(row.values) });
  const set = setNames.length > 1 && row.values.set ? `${row.values.set}: ` : "";
  const among = stepped(row), at = among.indexOf(row);
  $("name").replaceChildren(...breakable(`${set}${row.values.image}`));
  $("name").title = $("name").textContent; // a phone shows its first lines
  $("at").textContent = `${count(at + 1)} of ${count(among.length)}`;
  $("scores").replaceChildren(...scoreLines(row));
  view.shown = view.chosen.map((name, i) => (given.has(name) ? name : names[Math.min(i, names.length - 1)]));
  ["left", "right"].forEach((id, i) => {
    $(id).replaceChildren(...names.map((name) => el("option", { value: name }, name)));
    $(id).value = view.shown[i];
    setPicture(panes[i], view.shown[i], given.get(view.shown[i]));
  });
  $("previous").disabled = at <= 0;
  $("next").disabled = at >= among.length - 1;
  place();
}

function scoreLines(row) {
  const main = mainOf(row.values.set), scored = metrics.filter(({ name }) => !absent(row.values[name]));
  return scored.sort((a, b) => (b === main) - (a === main)).map((metric) => {
    const [before, after] = [row.values[`input_${metric.name}`], row.values[metric.name]].map(number);
    const from = Number.isNaN(before) ? "" : `${format(before, metric.digits)} → `;
    const gain = el("span", { class: gainClass(metric, after - before) }, format(after - before, metric.digits, true));
    const text = `${metricName(metric.name)} ${from}${format(after, metric.digits)}${unit(metric)} `;
    return el("span", {}, text, from ? gain : null);
  });
}

function setPicture(pane, name, url) {
  const [image, label] = pane.children;
  label.textContent = name;
  if (image.dataset.url === url) return;
  image.dataset.url = url;
  // Where the page was moved without the data set, the pictures are still where they were.
  const places = [url, new URL(url, data.home).href];
  const next = () => {
    const place = places.shift();
    if (place) image.src = place;
    else label.textContent = `${name}: cannot be shown`;
  };
  image.onerror = next;
  image.alt = name;
  next();
}

const pictureSize = () => ({ width: number(view.row.values.width), height: number(view.row.values.height) });
const room = () => ({ width: panes[0].clientWidth, height: panes[0].clientHeight });
const exactScale = () => 1 / devicePixelRatio;
const fillScales = ({ width, height }) => [room().width / width, room().height / height].sort((a, b) => a - b);
const fitScale = () => Math.min(fillScales(pictureSize())[0], exactScale()); // whole, and never enlarged
const bounded = (scale) => clamp(scale, fitScale(), 32 * exactScale());

/** How a picture is first seen: whole; of a panorama, which would be a strip, the middle, as high as its pane. */
function start({ width, height }) {
  const [whole, full] = fillScales({ width, height }), scale = Math.min(full, exactScale());
  if (full <= STRIP * whole || whole >= scale) return { fitted: true };
  return { fitted: false, scale, x: (room().width - width * scale) / 2, y: (room().height - height * scale) / 2 };
}

/** Puts both pictures and the divider where the view says. */
function place() {
  if (!view.row) return;
  const size = pictureSize(), exact = exactScale();
  $("viewer").classList.toggle("beside", view.beside);
  $("beside").setAttribute("aria-pressed", String(view.beside));
  view.scale = view.fitted ? fitScale() : bounded(view.scale);
  const settle = (at, free) => (free >= 0 ? free / 2 : clamp(at, free, 0)); // centred, or without a gap at an edge
  view.x = settle(view.x, room().width - size.width * view.scale);
  view.y = settle(view.y, room().height - size.height * view.scale);
  const whole = (at) => Math.round(at / exact) * exact; // at 1:1 each pixel falls on one of the display
  for (const pane of panes) {
    const [image] = pane.children;
    image.style.width = `${size.width * view.scale}px`;
    image.style.height = `${size.height * view.scale}px`;
    image.style.transform = `translate(${whole(view.x)}px, ${whole(view.y)}px)`;
  }
  const percent = 100 * view.split;
  panes[0].style.clipPath = view.beside ? "" : `inset(0 ${100 - percent}% 0 0)`;
  panes[1].style.clipPath = view.beside ? "" : `inset(0 0 0 ${percent}%)`;
  $("divider").style.left = `${percent}%`;
  $("divider").setAttribute("aria-valuenow", Math.round(percent));
  $("stage").classList.toggle("pixelated", view.scale > 2.5 * exact);
  $("zoom").textContent = `${Math.round(100 * view.scale / exact)} %`;
}

/** Zooms about a point of a pane (its middle unless given), which stays where it is. */
function zoomTo(scale, x = room().width / 2, y = room().height / 2) {
  const after = bounded(scale), factor = after / view.scale;
  Object.assign(view, { fitted: false, scale: after, x: x - (x - view.x) * factor, y: y - (y - view.y) * factor });
  place();
}

function pan(x, y) {
  view.x += x;
  view.y += y;
  place();
}

function divide(split) {
  view.split = clamp(split, 0, 1);
  place();
}

function fitPicture() {
  view.fitted = true;
  place();
}

const exactPicture = () => zoomTo(exactScale());
const zoomIn = () => zoomTo(view.scale * 1.25), zoomOut = () => zoomTo(view.scale / 1.25);

function step(by) {
  const among = stepped(view.row), row = among[among.indexOf(view.row) + by];
  if (row) show(row);
}

const nextImage = () => step(1), previousImage = () => step(-1);

function choose(i, name) {
  view.chosen[i] = name;
  show(view.row);
}

/** A pointer's place in the pane it is over. */
function inPane(x, y) {
  const over = panes.map((pane) => pane.getBoundingClientRect());
  const box = view.beside && x >= over[1].left && y >= over[1].top ? over[1] : over[0];
  return [x - box.left, y - box.top];
}

function pointerDown(event) {
  if (event.button) return;
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  $("stage").setPointerCapture(event.pointerId);
  const whole = view.scale <= fitScale() * 1.001;
  grip = pointers.size > 1 ? "pinch" : event.target === $("divider") || (whole && !view.beside) ? "divide" : "pan";
  if (grip === "divide" && event.target !== $("divider")) divide(splitAt(event.clientX));
  $("stage").classList.toggle("dragged", grip === "pan");
}

function splitAt(x) {
  const box = $("stage").getBoundingClientRect();
  return (x - box.left) / box.width;
}

function pointerMove(event) {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const after = [event.clientX, event.clientY];
  if (grip === "divide") divide(splitAt(after[0]));
  if (grip === "pan") pan(after[0] - before[0], after[1] - before[1]);
  if (grip === "pinch") {
    const [, other] = [...pointers].find(([id]) => id !== event.pointerId);
    const apart = ([x, y]) => Math.hypot(x - other[0], y - other[1]);
    pan((after[0] - before[0]) / 2, (after[1] - before[1]) / 2);
    const middle = inPane((after[0] + other[0]) / 2, (after[1] + other[1]) / 2);
    zoomTo(view.scale * apart(after) / Math.max(apart(before), 1), ...middle);
  }
  pointers.set(event.pointerId, after);
}

function pointerUp(event) {
  pointers.delete(event.pointerId);
  grip = pointers.size ? "pan" : null;
  $("stage").classList.toggle("dragged", grip === "pan");
}

function viewerKey(event) {
  if (event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey) return;
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const actions = {
    "+": zoomIn, "=": zoomIn, "-": zoomOut, "0": fitPicture, "1": exactPicture, s: besideOrNot,
    n: nextImage, p: previousImage, PageDown: nextImage, PageUp: previousImage,
    Home: () => divide(0), End: () => divide(1),
  };
  const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (arrows && (event.shiftKey || view.beside || arrows[1])) pan(-60 * arrows[0], -60 * arrows[1]);
  else if (arrows) divide(view.split + .02 * arrows[0]);
  else if (action) action();
  else return;
  event.preventDefault();
}

function besideOrNot() {
  // What lies in the middle stays there.
  const middle = [(room().width / 2 - view.x) / view.scale, (room().height / 2 - view.y) / view.scale];
  view.beside = !view.beside;
  const divided = document.activeElement === $("divider");
  $("viewer").classList.toggle("beside", view.beside);
  if (divided) focusViewer();
  view.x = room().width / 2 - middle[0] * view.scale;
  view.y = room().height / 2 - middle[1] * view.scale;
  place();
}

function buildViewer() {
  const stage = $("stage"), clicks = {
    previous: previousImage, next: nextImage, close: () => $("viewer").close(), beside: besideOrNot,
    in: zoomIn, out: zoomOut, fit: fitPicture, exact: exactPicture,
  };
  for (const [id, action] of Object.entries(clicks)) $(id).addEventListener("click", action);
  ["left", "right"].forEach((id, i) => $(id).addEventListener("change", () => choose(i, $(id).value)));
  stage.addEventListener("pointerdown", pointerDown);
  stage.addEventListener("pointermove", pointerMove);
  for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, pointerUp);
  stage.addEventListener("dblclick", ({ clientX, clientY }) => {
    if (view.fitted) zoomTo(Math.max(exactScale(), 2 * view.scale), ...inPane(clientX, clientY));
    else fitPicture();
  });
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const line = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1; // px
    const factor = Math.exp(-event.deltaY * line * (event.ctrlKey ? .01 : .002)); // a pinch on a touchpad has ctrlKey
    zoomTo(view.scale * factor, ...inPane(event.clientX, event.clientY));
  }, { passive: false });
  $("viewer").addEventListener("keydown", viewerKey);
  $("viewer").addEventListener("close", () => {
    pointers.clear();
    if (view.row.video) view.row.button.focus();
    else focusRow(view.row);
  });
  new ResizeObserver(place).observe(stage);
}
