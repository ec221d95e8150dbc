// What all pages with pictures share. A page in one file contains this without the words "export".

/** The element with this id. */
export const part = (id) => document.getElementById(id);

let silence = 0;

/** Say something for a moment, also to who does not see it. */
export function say(text) {
  part("said").textContent = text;
  clearTimeout(silence);
  silence = setTimeout(() => { part("said").textContent = ""; }, 1600);
}

/** Copy a text, and say that it was done. */
export async function copyText(text, done) {
  try {
    await navigator.clipboard.writeText(text);
    say(done);
  } catch { // not allowed, or not there: pages that came over plain http have none
    say(copyByHand(text) ? done : "The browser does not let this page copy");
  }
}

function copyByHand(text) {
  const before = document.activeElement;
  const field = document.createElement("textarea");
  field.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  before?.focus({preventScroll: true});
  return done;
}

/** Switch between light and dark. */
export function switchTheme() {
  const root = document.documentElement;
  const chosen = root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  root.dataset.theme = chosen === "dark" ? "light" : "dark";
}
