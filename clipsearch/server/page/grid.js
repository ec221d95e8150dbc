// The grid of hits: only what is in sight is in the page, so that a hundred thousand hits are as light as a screenful.

import {part} from "./parts.js";
import {reasonFor, thumbnail} from "./api.js";

const CAPTION = 46; // pixels below the square of a tile
const HEADING = 52;
const BEYOND = 700; // pixels above and below the window that are kept
const SVG = "http://www.w3.org/2000/svg";

const list = part("grid");
const shown = new Map(); // number of a hit, or the top of a heading -> its element
let hits = [];
let days = false, complete = true;
let rows = []; // {top, from, to} of tiles, or {top, day, count} of headings
let columns = 1, width = 200, gap = 16;
let current = 0;
let index = "";
let handlers = {};
let drawing = 0;

/** Tell the grid what to do: `more()` when its end comes into sight, `open(number)`, `pick(number, on)`, `picked(hit)`. */
export function start(given) {
  handlers = given;
  new ResizeObserver(layOut).observe(list.parentElement);
  addEventListener("scroll", drawSoon, {passive: true});
  list.addEventListener("click", clicked);
  list.addEventListener("focusin", (event) => {
    const number = numberOf(event.target);
    if (number !== null) choose(number);
  });
}

/** Show hits; `kept` if they are the same as before, and more. */
export function show(given, {byDay, of, complete: all, kept}) {
  if (!kept) {
    for (const element of shown.values()) element.remove();
    shown.clear();
    current = 0;
  }
  [hits, days, index, complete] = [given, byDay, of, all];
  for (const [key, element] of shown) {
    element.setAttribute("aria-setsize", hits.length);
    if (typeof key === "number") continue;
    element.remove(); // headings have numbers, which may be others now
    shown.delete(key);
  }
  layOut();
}

/** The hits that are shown. */
export const all = () => hits;

/** Put the focus on a hit, which comes into sight. */
export function focus(number) {
  if (!hits.length) return;
  choose(Math.max(0, Math.min(number, hits.length - 1)));
  const row = rows.find((one) => one.to > current);
  if (!row) return;
  const top = list.getBoundingClientRect().top + scrollY + row.top;
  const above = document.querySelector("header").offsetHeight + 12;
  if (top < scrollY + above) scrollTo(0, top - above - (days ? HEADING : 0));
  else if (top + width + CAPTION > scrollY + innerHeight) scrollTo(0, top + width + CAPTION + 12 - innerHeight);
  draw();
  shown.get(current)?.querySelector(".tile").focus({preventScroll: true});
}

/** Draw the marks of what is selected again. */
export function remark() {
  for (const [number, element] of shown) {
    if (typeof number === "number") element.querySelector(".pick").checked = handlers.picked(hits[number]);
  }
}

/** What a key in the grid does; whether it does anything. */
export function key(event) {
  const number = numberOf(event.target);
  if (number === null) {
    if (event.target !== document.body || !event.key.startsWith("Arrow") || !hits.length) return false;
    focus(firstInSight());
    return true;
  }
  const to = {
    ArrowLeft: number - 1, ArrowRight: number + 1, ArrowUp: beside(number, -1), ArrowDown: beside(number, 1),
    Home: 0, End: hits.length - 1,
  }[event.key];
  if (to === undefined) return false;
  if (to >= 0 && to < hits.length) focus(to);
  return true;
}

/** The number of the hit that an element belongs to; null if to none. */
export function numberOf(element) {
  const item = element.closest?.("#grid > li[data-number]");
  return item ? Number(item.dataset.number) : null;
}

function beside(number, by) {
  const tiles = rows.filter((row) => row.to !== undefined);
  const at = tiles.findIndex((row) => row.to > number);
  const row = tiles[at + by];
  return row ? Math.min(row.from + number - tiles[at].from, row.to - 1) : -1;
}

function firstInSight() {
  const start = document.querySelector("header").getBoundingClientRect().bottom - list.getBoundingClientRect().top;
  return rows.find((row) => row.to !== undefined && row.top >= start - 4)?.from ?? 0;
}

function choose(number) {
  shown.get(current)?.querySelector(".tile")?.setAttribute("tabindex", "-1");
  current = number;
  shown.get(current)?.querySelector(".tile")?.setAttribute("tabindex", "0");
}

function layOut() {
  const space = list.clientWidth;
  gap = space < 600 ? 10 : 20;
  const least = space < 600 ? 120 : 190;
  columns = Math.max(space < 600 ? 2 : 1, Math.floor((space + gap) / (least + gap)));
  width = (space - gap * (columns - 1)) / columns;
  rows = [];
  let top = 0;
  for (let from = 0; from < hits.length;) {
    let end = hits.length;
    if (days) {
      const day = hits[from].date.slice(0, 10);
      for (end = from; end < hits.length && hits[end].date.startsWith(day);) end += 1;
      rows.push({top, day, count: end - from});
      top += HEADING;
    }
    for (; from < end; from = Math.min(from + columns, end)) {
      rows.push({top, from, to: Math.min(from + columns, end)});
      top += width + CAPTION + gap;
    }
  }
  list.style.height = `${top}px`;
  for (const [number, element] of shown) place(number, element);
  draw();
}

function drawSoon() {
  cancelAnimationFrame(drawing);
  drawing = requestAnimationFrame(draw);
}

function draw() {
  const above = -list.getBoundingClientRect().top;
  const wanted = new Set();
  let at = firstRow(above - BEYOND);
  for (; at < rows.length && rows[at].top < above + innerHeight + BEYOND; at += 1) {
    const row = rows[at];
    if (row.day) wanted.add(`day ${row.top}`);
    for (let number = row.from; number < row.to; number += 1) wanted.add(number);
  }
  for (const [number, element] of shown) {
    if (wanted.has(number) || element.contains(document.activeElement)) continue;
    element.querySelector("img")?.removeAttribute("src"); // what has not come yet is not wanted any more
    element.remove();
    shown.delete(number);
  }
  for (const number of wanted) if (!shown.has(number)) add(number);
  if (!shown.get(current)?.querySelector(".tile[tabindex='0']")) {
    const first = [...wanted].find((number) => typeof number === "number");
    if (first !== undefined && !list.contains(document.activeElement)) choose(first);
  }
  if (hits.length && at >= rows.length) handlers.more();
}

/** The first row that ends below a height: rows are in order, so that halves are left out. */
function firstRow(height) {
  let [low, high] = [0, rows.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].top + (rows[middle].day ? HEADING : width + CAPTION) < height) low = middle + 1;
    else high = middle;
  }
  return low;
}

function add(number) {
  const element = typeof number === "number" ? tile(number) : heading(number);
  place(number, element);
  const top = topOf(element);
  const after = [...list.children].find((other) => topOf(other) > top || (topOf(other) === top
    && Number(other.dataset.number) > number));
  list.insertBefore(element, after ?? null); // in the order in which it is read
  shown.set(number, element);
}

const topOf = (element) => Number(element.dataset.top);

function place(number, element) {
  let left = 0, row;
  if (typeof number === "number") {
    row = rows[rowOf(number)];
    if (!row) return;
    left = (number - row.from) * (width + gap);
    element.style.width = `${width}px`;
  } else {
    row = {top: Number(number.slice(4))};
  }
  element.dataset.top = row.top;
  element.style.transform = `translate(${left}px, ${row.top}px)`;
}

function rowOf(number) {
  let [low, high] = [0, rows.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    const end = rows[middle].to ?? rows[middle + 1]?.from ?? 0;
    if (end <= number) low = middle + 1;
    else high = middle;
  }
  return rows[low]?.to === undefined ? low + 1 : low;
}

function heading(key) {
  const row = rows.find((one) => `day ${one.top}` === key);
  const item = document.createElement("li");
  item.className = "day";
  const title = document.createElement("h2");
  const isLast = row.day === hits.at(-1).date.slice(0, 10);
  title.textContent = `${dayInWords(row.day)} · ${row.count}${isLast && !complete ? " or more" : ""}`;
  item.append(title);
  return item;
}

/** A day as people say it where the browser is. */
export function dayInWords(day) {
  const date = new Date(`${day}T12:00`);
  return isNaN(date) ? day : date.toLocaleDateString(undefined, {dateStyle: "full"});
}

function tile(number) {
  const hit = hits[number];
  const item = document.createElement("li");
  item.dataset.number = number;
  item.setAttribute("aria-setsize", hits.length);
  item.setAttribute("aria-posinset", number + 1);
  const pick = document.createElement("input");
  Object.assign(pick, {type: "checkbox", className: "pick", checked: handlers.picked(hit), tabIndex: -1});
  pick.setAttribute("aria-label", `Select ${nameOf(hit)}`);
  const button = document.createElement("button");
  Object.assign(button, {type: "button", className: "tile", tabIndex: number === current ? 0 : -1});
  button.setAttribute("aria-label", labelOf(hit));
  const frame = document.createElement("span");
  frame.className = "frame";
  const caption = document.createElement("span");
  caption.className = "caption";
  caption.append(span("rank", String(hit.rank)), span("name", nameOf(hit)), figuresOf(hit));
  frame.append(picture(hit));
  if (hit.box && hit.width && hit.height) frame.append(outline(hit));
  button.append(frame, caption);
  item.append(pick, button);
  return item;
}

function picture(hit) {
  const image = document.createElement("img");
  Object.assign(image, {alt: "", decoding: "async"});
  const address = thumbnail(hit, devicePixelRatio * width > 360 ? 640 : 320, index);
  image.addEventListener("error", async () => {
    if (!image.hasAttribute("src")) return;
    const gone = span("gone", await reasonFor(address));
    image.replaceWith(gone);
  });
  // Tiles that are only passed over on the way ask for nothing.
  setTimeout(() => { if (image.isConnected) image.src = address; }, 40);
  return image;
}

/** The outline of the part that fits best. */
export function outline(hit) {
  const drawn = document.createElementNS(SVG, "svg");
  drawn.setAttribute("class", "box");
  drawn.setAttribute("viewBox", `0 0 ${hit.width} ${hit.height}`);
  drawn.setAttribute("aria-hidden", "true");
  const [x, y, right, bottom] = hit.box;
  for (let line = 0; line < 2; line += 1) {
    const rectangle = document.createElementNS(SVG, "rect");
    for (const [name, value] of Object.entries({x, y, width: right - x, height: bottom - y})) {
      rectangle.setAttribute(name, value);
    }
    drawn.append(rectangle);
  }
  return drawn;
}

/** The name of a hit's file. */
export const nameOf = (hit) => hit.path.slice(hit.path.lastIndexOf("/") + 1);

function labelOf(hit) {
  const sure = hit.confidence === null ? "" : `, ${percent(hit.confidence)} sure`;
  const score = hit.score === null ? "" : `, score ${hit.score.toFixed(3)}`;
  return `${hit.rank}: ${nameOf(hit)}${score}${sure}, ${hit.date.slice(0, 10)}`;
}

const percent = (share) => `${Math.round(100 * share)}%`;

function figuresOf(hit) {
  const figures = span("figures", days ? hit.date.slice(11, 16) : hit.score.toFixed(3));
  if (hit.confidence !== null) {
    const sure = document.createElement("b");
    sure.textContent = percent(hit.confidence);
    figures.append(sure);
  }
  return figures;
}

function span(kind, text) {
  const element = document.createElement("span");
  element.className = kind;
  element.textContent = text;
  return element;
}

function clicked(event) {
  const number = numberOf(event.target);
  if (number === null) return;
  if (event.target.classList.contains("pick")) handlers.pick(number, event.target.checked, event.shiftKey);
  else if (event.ctrlKey || event.metaKey || event.shiftKey) handlers.pick(number, !handlers.picked(hits[number]), event.shiftKey);
  else if (event.target.closest(".tile")) handlers.open(number);
}
