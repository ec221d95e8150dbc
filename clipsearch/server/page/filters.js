// The filters, the cut-off by confidence and the order: what is in their fields, and what they are filled with.

import {part} from "./parts.js";
import {get} from "./api.js";
import {allTerms, inWords} from "./state.js";

const form = part("filters");
let known = ""; // the index whose folders the field offers

/** Call `changed(change)` with what to change in the state, when a field was changed. */
export function start(changed) {
  part("filtering").addEventListener("click", toggle);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => changed({filters: given()}));
  part("unfilter").addEventListener("click", () => {
    form.reset();
    changed({filters: {}});
  });
  part("confidence").addEventListener("input", () => {
    part("percent").textContent = `${part("confidence").value} %`;
    changed({confidence: Number(part("confidence").value) / 100}, true);
  });
  part("sort").addEventListener("change", () => changed({sort: part("sort").value}));
  part("index").addEventListener("change", () => changed({index: part("index").value, filters: {}, terms: []}));
}

/** Show the values of a state in the fields. */
export function show(state) {
  for (const field of form.elements) if (field.name) field.value = state.filters[field.name] ?? "";
  const number = Object.keys(given()).length;
  part("filtered").textContent = number || "";
  part("filtering").setAttribute("aria-label", number ? `Filters, ${number} set` : "Filters");
  if (number && form.hidden) toggle();
  part("confidence").value = Math.round(100 * state.confidence);
  part("percent").textContent = `${part("confidence").value} %`;
  part("sure").classList.toggle("off", !inWords(state));
  const browsing = !allTerms(state).length;
  part("sort").options[0].disabled = browsing;
  part("sort").value = state.sort || (browsing ? "date" : "");
  if (state.index) part("index").value = state.index;
}

/** Offer the indexes of the server, if there are several. */
export function offer(names) {
  part("index").replaceChildren(...names.map((name) => new Option(name, name)));
  part("indexes").hidden = names.length < 2;
}

function given() {
  return Object.fromEntries([...new FormData(form)].filter(([, value]) => value.trim()));
}

async function toggle() {
  form.hidden = !form.hidden;
  part("filtering").setAttribute("aria-expanded", !form.hidden);
  const index = part("index").value;
  if (form.hidden || known === `index ${index}`) return;
  known = `index ${index}`;
  const {folders} = await get("folders", new URLSearchParams(index ? {index} : {})).catch(() => ({folders: []}));
  part("folders").replaceChildren(...folders.slice(0, 2000).map(({path, images}) => new Option(`${images} pictures`, path)));
}
