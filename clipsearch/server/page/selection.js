// Hits that are selected, and what can be done with all of them.

import {copyText, part, say} from "./parts.js";
import {zip} from "./api.js";
import {all, remark} from "./grid.js";

const selected = new Map(); // row -> hit
let last = 0;
let context = () => ({});

/** Begin; `given()` returns the `index` and the `command` of the hits that are shown. */
export function start(given) {
  context = given;
  part("paths").addEventListener("click", () => copyText(inOrder().map((hit) => hit.path).join("\n"), "Paths copied"));
  part("zip").addEventListener("click", download);
  part("command").addEventListener("click", copyCommand);
  part("unselect").addEventListener("click", clear);
}

/** Whether a hit is selected. */
export const picked = (hit) => selected.has(hit?.row);

/** Select a hit or not; with `range`, all from the last one on. */
export function pick(number, on = !picked(all()[number]), range = false) {
  const [from, to] = range ? [Math.min(last, number), Math.max(last, number)] : [number, number];
  for (const hit of all().slice(from, to + 1)) {
    if (on) selected.set(hit.row, hit);
    else selected.delete(hit.row);
  }
  last = number;
  show();
}

/** Select nothing; whether anything was selected. */
export function clear() {
  const any = selected.size > 0;
  selected.clear();
  show();
  return any;
}

function show() {
  part("selection").hidden = !selected.size;
  part("selected").textContent = `${selected.size} selected`;
  part("grid").classList.toggle("picking", selected.size > 0);
  remark();
}

const inOrder = () => [...selected.values()].sort((a, b) => a.rank - b.rank);

async function download() {
  say("Packing …");
  try {
    const address = URL.createObjectURL(await zip([...selected.keys()], context().index));
    const link = Object.assign(document.createElement("a"), {href: address, download: "pictures.zip"});
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  } catch (error) {
    say(error.message);
  }
}

function copyCommand() {
  const {command} = context();
  if (command === null) say(all()[0]?.score === null ? "No command shows all pictures" : "A picture that was only sent here has no path to type");
  else copyText(command(Math.max(...inOrder().map((hit) => hit.rank))), "Command copied");
}
