// What the indexes hold, as a sheet over the page, and whether they have changed.

import {part} from "./parts.js";
import {get} from "./api.js";
import {size} from "./view.js";

const SECONDS = 2;
const sheet = part("status");

/** Begin; `closed()` is called when the sheet is closed. */
export function start(closed) {
  part("status-close").addEventListener("click", () => sheet.close());
  sheet.addEventListener("close", closed);
}

/** Show the sheet. */
export async function open() {
  if (sheet.open) return;
  sheet.showModal();
  try {
    const {indexes, clipsearch} = await get("status");
    part("facts-of-indexes").replaceChildren(...indexes.flatMap(facts), line("p", `clipsearch ${clipsearch}`, "muted"));
  } catch (error) {
    part("facts-of-indexes").replaceChildren(line("p", error.message, "wrong"));
  }
}

/** Close the sheet, if it is open. */
export function close() {
  if (sheet.open) sheet.close();
}

/** Ask again and again for the version of each index, and call `changed(name)` when one is new. */
export async function watch(versions, changed) {
  for (;;) {
    await new Promise((resolve) => { setTimeout(resolve, 1000 * SECONDS); });
    if (document.hidden) continue;
    const now = await get("version").catch(() => versions); // it may be started again
    for (const [name, version] of Object.entries(now)) if (version !== versions[name]) changed(name);
    versions = now;
  }
}

function facts(index) {
  const list = document.createElement("dl");
  const run = index.last_run;
  const rows = [
    ["Pictures", index.images.toLocaleString()],
    ["Model", `${index.model ?? "none yet"}${index.dim ? `, ${index.dim} dimensions` : ""}`],
    ...index.roots.map(({path, images}) => ["Folder", `${path} (${images.toLocaleString()})`]),
    ...(index.regions === null ? [] : [["Regions", index.regions.toLocaleString()]]),
    ["Size", size(index.bytes)],
    ["Last run", run ? `${run.ended_at.replace("T", " ").slice(0, 19)} UTC, ${run.seconds.toFixed(1)} s, ${run.outcome}` : "none"],
    ["State", index.at_work ? "a run is writing to it" : index.whole ? "complete" : "not complete"],
    ["Unreadable", String(index.unreadable.length)],
    ...index.unreadable.slice(0, 100).map(({path, reason}) => ["", `${path}: ${reason}`]),
    ...index.damaged.slice(0, 100).map(({path, missing}) => ["Damaged", `${path}: ${Math.round(100 * missing)} % is missing`]),
  ];
  list.append(...rows.flatMap(([name, value]) => [line("dt", name), line("dd", value)]));
  return [line("h3", index.name), list];
}

function line(kind, text, look = "") {
  const element = document.createElement(kind);
  element.textContent = text;
  element.className = look;
  return element;
}
