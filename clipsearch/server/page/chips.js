// The terms of the search that are finished, each with its weight, before the box for the next one.

import {part} from "./parts.js";

const WEIGHTS = [0.25, 0.5, 1, 2, 3];

/** Show terms; `changed(terms)` gets the new ones, `edit(term)` the one that is to be typed again. */
export function show(terms, index, {changed, edit}) {
  part("chips").replaceChildren(...terms.map((term, number) => chip(term, index, {
    replace: (other) => changed(terms.toSpliced(number, 1, ...(other ? [other] : []))),
    edit: () => edit(term, terms.toSpliced(number, 1)),
  })));
}

function chip(term, index, {replace, edit}) {
  const name = term.text ?? (term.box ? "part of a picture" : "a picture");
  const item = document.createElement("li");
  item.classList.toggle("away", term.weight < 0);
  const sign = button(term.weight < 0 ? "−" : "+", `${name}: ${term.weight < 0 ? "unwanted" : "wanted"}. Change`);
  sign.addEventListener("click", () => replace({...term, weight: -term.weight}));
  item.append(sign);
  if (term.id !== undefined) item.append(pictureOf(term, index));
  const text = document.createElement("span");
  text.className = "text";
  text.textContent = name;
  if (term.text !== undefined) text.addEventListener("click", edit);
  item.append(text, weights(term, name, replace));
  const away = button("×", `Remove ${name}`);
  away.addEventListener("click", () => replace(null));
  item.append(away);
  return item;
}

function pictureOf(term, index) {
  const image = document.createElement("img");
  image.alt = term.name ?? "";
  const named = new URLSearchParams({side: 320, id: term.id, ...(index ? {index} : {})});
  if (term.row !== undefined) image.src = `/api/thumbnail/${term.row}?${named}`;
  else if (term.known) image.src = `/api/upload/${term.id}`;
  return image;
}

function weights(term, name, replace) {
  const select = document.createElement("select");
  select.setAttribute("aria-label", `Weight of ${name}`);
  const weight = Math.abs(term.weight);
  for (const one of [...new Set([...WEIGHTS, weight])].sort((a, b) => a - b)) {
    select.add(new Option(`×${one}`, one, one === weight, one === weight));
  }
  select.addEventListener("change", () => replace({...term, weight: Math.sign(term.weight) * Number(select.value)}));
  return select;
}

function button(text, label) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.setAttribute("aria-label", label);
  made.title = label;
  return made;
}
