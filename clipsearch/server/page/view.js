// One picture, enlarged: its neighbours, what is known of it, and searches by it or by a part of it.

import {copyText, part} from "./parts.js";
import {image, reasonFor, thumbnail} from "./api.js";
import {all, nameOf, outline} from "./grid.js";

const LEAST = 2; // percent of the picture that a part has at least
const STEP = 2;
const view = part("view");
const canvas = part("canvas");
const picture = part("picture");
let number = -1;
let index = "";
let handlers = {};
let box = null; // the part, in percent: left, top, right, bottom
let drag = null;

/** Tell the view what to do: `like(hit, sign, box)`, `closed(number)`, `shown(hit)`, `pick(number)`, `picked(hit)`. */
export function start(given) {
  handlers = given;
  view.addEventListener("close", closed);
  view.addEventListener("cancel", (event) => {
    if (box) {
      event.preventDefault();
      crop(false);
    }
  });
  part("back").addEventListener("click", () => step(-1));
  part("next").addEventListener("click", () => step(1));
  part("close").addEventListener("click", () => view.close());
  part("copy").addEventListener("click", () => copyText(all()[number].path, "Path copied"));
  part("more").addEventListener("click", () => like(1));
  part("less").addEventListener("click", () => like(-1));
  part("crop").addEventListener("click", () => (box ? searchPart() : crop(true)));
  part("pick").addEventListener("click", pick);
  part("stage").addEventListener("click", (event) => {
    if (event.target === part("stage") || event.target === canvas) view.close();
  });
  canvas.addEventListener("pointerdown", pressed);
  canvas.addEventListener("pointermove", moved);
  canvas.addEventListener("pointerup", released);
  addEventListener("resize", drawPart);
}

/** Whether a picture is shown. */
export const isOpen = () => view.open;

/** Show a hit by its number. */
export function open(wanted, of) {
  [number, index] = [wanted, of];
  const hit = all()[number];
  crop(false);
  part("name").textContent = nameOf(hit);
  part("path").textContent = hit.path;
  part("facts").textContent = factsOf(hit);
  part("original").href = image(hit, index);
  part("reason").hidden = true;
  picture.hidden = false;
  picture.alt = nameOf(hit);
  picture.src = thumbnail(hit, 1600, index);
  picture.onerror = () => failed(hit);
  picture.onload = frame;
  for (const other of [number - 1, number + 1]) {
    if (all()[other]) new Image().src = thumbnail(all()[other], 1600, index);
  }
  part("pick").setAttribute("aria-pressed", handlers.picked(hit));
  for (const name of ["more", "less", "crop"]) part(name).disabled = !hit.id;
  if (!view.open) {
    view.append(part("said")); // outside of an open dialog nothing is heard
    view.showModal();
    part("more").focus({preventScroll: true});
  }
  offer("back", number > 0);
  offer("next", number < all().length - 1);
  handlers.shown(hit);
}

/** Close the view, if it is open. */
export function close() {
  if (view.open) view.close();
}

/** What a key does in the view; whether it does anything. */
export function key(event) {
  if (box && keyOfPart(event)) return true;
  const does = {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1), m: () => like(1), l: () => like(-1), r: () => crop(!box),
    x: pick, c: () => copyText(all()[number].path, "Path copied"),
  }[event.key];
  if (!does) return false;
  does();
  return true;
}

function closed() {
  document.body.append(part("said"));
  picture.removeAttribute("src");
  handlers.closed(number);
}

function offer(arrow, possible) {
  const button = part(arrow);
  if (!possible && button === document.activeElement) part("more").focus({preventScroll: true});
  button.disabled = !possible;
}

function step(by) {
  if (all()[number + by]) open(number + by, index);
}

function pick() {
  handlers.pick(number);
  part("pick").setAttribute("aria-pressed", handlers.picked(all()[number]));
}

function like(sign) {
  const hit = all()[number];
  if (hit.id) handlers.like(hit, sign, undefined);
}

async function failed(hit) {
  if (!picture.hasAttribute("src")) return;
  picture.hidden = true;
  part("box").replaceChildren();
  part("reason").textContent = await reasonFor(thumbnail(hit, 1600, index));
  part("reason").hidden = false;
}

function frame() {
  const hit = all()[number];
  const over = part("box");
  over.replaceChildren();
  // Small pictures are not shown much larger than they are; the style keeps large ones in the window.
  const largest = Math.max(picture.naturalWidth, picture.naturalHeight);
  picture.height = Math.round(picture.naturalHeight * Math.max(1, 720 / largest));
  if (hit?.box && hit.width) {
    const drawn = outline(hit);
    over.setAttribute("viewBox", drawn.getAttribute("viewBox"));
    over.setAttribute("height", picture.height);
    over.setAttribute("width", picture.height * hit.width / hit.height);
    over.replaceChildren(...drawn.children);
  }
}

function factsOf(hit) {
  const facts = hit.score === null ? [] : [`Rank ${hit.rank}`, `score ${hit.score.toFixed(3)}`];
  if (hit.confidence !== null) facts.push(`${Math.round(100 * hit.confidence)}% sure`);
  if (hit.width) facts.push(`${hit.width} × ${hit.height} pixels`);
  facts.push(size(hit.bytes), `${hit.date_source === "file" ? "changed" : "taken"} ${hit.date.replace("T", " ")}`);
  return facts.join(" · ");
}

/** A size in bytes with a unit. */
export function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  for (; bytes >= 999.5 && at < units.length - 1; at += 1) bytes /= 1000;
  return `${bytes.toFixed(at > 1 ? 1 : 0)} ${units[at]}`;
}

// --- a part of the picture ---

function crop(on) {
  box = on ? [25, 25, 75, 75] : null;
  part("crop").setAttribute("aria-pressed", on);
  part("crop").textContent = on ? "Search by this part" : "Search by a part";
  part("how").hidden = !on;
  if (on) part("crop").focus({preventScroll: true}); // so that Enter searches
  drawPart();
}

function searchPart() {
  const [left, top, right, bottom] = box.map((edge) => `${Math.round(edge * 100) / 100}%`);
  handlers.like(all()[number], 1, [left, top, right, bottom].join(","));
}

function drawPart() {
  const drawn = part("part");
  drawn.hidden = !box;
  if (!box) return;
  const outer = canvas.getBoundingClientRect(), inner = shownPicture();
  drawn.style.left = `${inner.left - outer.left + box[0] * inner.width / 100}px`;
  drawn.style.top = `${inner.top - outer.top + box[1] * inner.height / 100}px`;
  drawn.style.width = `${(box[2] - box[0]) * inner.width / 100}px`;
  drawn.style.height = `${(box[3] - box[1]) * inner.height / 100}px`;
}

/** Where in the window the picture itself is: its element may be wider or higher. */
function shownPicture() {
  const outer = picture.getBoundingClientRect();
  const scale = Math.min(outer.width / picture.naturalWidth, outer.height / picture.naturalHeight) || 1;
  const width = picture.naturalWidth * scale, height = picture.naturalHeight * scale;
  return new DOMRect(outer.x + (outer.width - width) / 2, outer.y + (outer.height - height) / 2, width, height);
}

function pressed(event) {
  if (event.target !== picture || event.button !== 0 || !all()[number].id) return;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  drag = point(event);
}

function moved(event) {
  if (!drag) return;
  const to = point(event);
  const edges = [Math.min(drag[0], to[0]), Math.min(drag[1], to[1]), Math.max(drag[0], to[0]), Math.max(drag[1], to[1])];
  if (edges[2] - edges[0] < LEAST && edges[3] - edges[1] < LEAST) return;
  box = edges; // nothing else changes meanwhile, so that the picture stays where it is
  drawPart();
}

function released() {
  const drawn = drag && box;
  drag = null;
  if (drawn && box[2] - box[0] >= LEAST && box[3] - box[1] >= LEAST) searchPart();
  else if (drawn) crop(false);
}

function point(event) {
  const inner = shownPicture();
  return [[event.clientX - inner.left, inner.width], [event.clientY - inner.top, inner.height]]
    .map(([place, whole]) => Math.max(0, Math.min(100, 100 * place / whole)));
}

function keyOfPart(event) {
  const along = {ArrowLeft: [0, -STEP], ArrowRight: [0, STEP], ArrowUp: [1, -STEP], ArrowDown: [1, STEP]}[event.key];
  if (event.key === "Enter" && event.target.tagName !== "BUTTON") {
    searchPart();
    return true;
  }
  if (!along) return false;
  const [axis, by] = along;
  if (event.shiftKey) {
    box[axis + 2] = Math.max(box[axis] + LEAST, Math.min(100, box[axis + 2] + by));
  } else {
    const most = by > 0 ? Math.min(by, 100 - box[axis + 2]) : Math.max(by, -box[axis]);
    box[axis] += most;
    box[axis + 2] += most;
  }
  drawPart();
  return true;
}
