// The page: one state, which its address names. What changes it searches again and writes the address.

import {part, say, switchTheme} from "./parts.js";
import {get} from "./api.js";
import {allTerms, fromAddress, parameters, parsedTyping, toAddress} from "./state.js";
import * as chips from "./chips.js";
import * as filters from "./filters.js";
import * as grid from "./grid.js";
import * as selection from "./selection.js";
import * as status from "./status.js";
import * as upload from "./upload.js";
import * as view from "./view.js";

const PAUSE = 120; // milliseconds without a key after which a search begins
const PAGES = [120, 500, 1000]; // hits that are asked for at first, then, and then

let state = fromAddress(location.search);
let answer = null; // what the server said to `asked`
let asked = null; // the parameters of the search whose hits are shown
let hits = [];
let loading = null; // what stops the search that is under way
let more = false; // whether more hits are being loaded
let timer = 0;
let writing = false; // whether the last entry of the history is of words that are still being typed

// --- searching ---

/** Search for the state if its hits are not those that are shown; `again` if the index has changed. */
async function search({again = false} = {}) {
  clearTimeout(timer);
  const wanted = parameters(state).toString();
  if (wanted === asked && !again) return;
  loading?.abort();
  loading = new AbortController();
  const {signal} = loading;
  try {
    const first = PAGES[state.sort && !browsing() ? 1 : 0];
    const number = again ? Math.min(1000, Math.max(first, hits.length)) : first;
    const found = await get("search", `${wanted}&k=${number}`, signal);
    if (signal.aborted) return;
    const before = answer;
    [asked, answer, hits] = [wanted, found, found.hits];
    for (const [at, term] of state.terms.entries()) if (term.id) Object.assign(term, termOf(found, term), state.terms[at]);
    present(again && before !== null);
    showPicture();
  } catch (error) {
    if (error.name === "AbortError") return;
    [asked, answer, hits] = [wanted, null, []];
    present(false, error.message);
  }
}

function termOf(found, term) {
  const same = found.terms.find((one) => one.id === term.id);
  return same ? {row: same.row, name: same.path, known: same.width !== undefined} : {};
}

/** Load the next hits, if there are more. */
async function loadMore() {
  if (more || !answer || (answer.total !== null && hits.length >= answer.total)) return;
  more = true;
  const {signal} = loading;
  try {
    const number = PAGES[Math.min(PAGES.length - 1, 1 + Math.floor(hits.length / 2000))];
    const next = await get("search", `${asked}&k=${number}&offset=${hits.length}`, signal);
    if (signal.aborted) return;
    if (next.version !== answer.version) {
      search({again: true});
      return;
    }
    answer = {...next, terms: answer.terms};
    hits = hits.concat(next.hits);
    if (!next.hits.length) answer.total = hits.length;
    showGrid(true);
    summarise();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message);
  } finally {
    more = false;
  }
}

function present(kept, wrong = "") {
  showChips();
  filters.show(state);
  if (!kept) selection.clear();
  showGrid(kept);
  summarise(wrong);
  document.title = `${allTerms(state).map((term) => term.text ?? "picture").join(" + ") || "Search"} · clipsearch`;
}

function showChips() {
  chips.show(state.terms, state.index, {changed: (terms) => change({terms}), edit});
}

function showGrid(kept) {
  grid.show(hits, {byDay: state.sort !== "" || browsing(), of: state.index, complete: hits.length === answer?.total, kept});
}

function summarise(wrong = "") {
  const hint = part("hint");
  hint.classList.toggle("wrong", wrong !== "");
  hint.classList.toggle("above", hits.length > 0);
  hint.replaceChildren();
  let text = "";
  if (wrong) hint.textContent = wrong;
  else if (answer && !hits.length) hint.textContent = "Nothing fits. Lower the confidence, or leave out a filter.";
  else if (browsing()) hint.append(...welcome());
  if (answer && hits.length) {
    const total = answer.total ?? `More than ${hits.length.toLocaleString()}`;
    text = answer.total === 1 ? "1 picture" : `${total.toLocaleString()} pictures`;
    if (browsing()) text += `, the ${state.sort.endsWith("-reverse") ? "oldest" : "newest"} first`;
    else if (state.sort && !asked.includes("min_confidence")) text = `The ${total.toLocaleString()} that fit best, by date`;
  }
  part("summary").textContent = text;
}

function welcome() {
  const lines = [
    ["Type what the pictures should show: a dog is sleeping. Enter begins another term; a minus before it is for what they should not show."],
    ["Or drop or paste a picture here."],
    [kbd("/"), " to type · ", kbd("arrows"), " and ", kbd("Enter"), " to look · ", kbd("x"), " to select · ", kbd("Esc"), " back"],
  ];
  return lines.map((parts) => {
    const line = document.createElement("p");
    line.append(...parts);
    return line;
  });
}

function kbd(text) {
  const key = document.createElement("kbd");
  key.textContent = text;
  return key;
}

// --- the state ---

/**
 * Change the state, write its address, and search; `soon` while somebody types or drags. All of a typing is one entry of
 * the history, with what ends it, which is `ended`.
 */
function change(changes, soon = false, ended = false) {
  Object.assign(state, changes);
  const address = toAddress(state);
  if (writing && (soon || ended)) history.replaceState(null, "", address);
  else if (address !== location.pathname + location.search && address !== location.search) history.pushState(null, "", address);
  writing = soon;
  if (changes.terms) showChips();
  clearTimeout(timer);
  if (soon) timer = setTimeout(search, PAUSE);
  else search();
}

function edit(term, others) {
  part("words").value = (term.weight < 0 ? "-" : "") + term.text;
  part("words").focus();
  change({terms: others, typed: part("words").value});
}

function like(hit, sign, box) {
  const term = {id: hit.id, row: hit.row, name: hit.path, weight: sign, box, known: true};
  const others = sign > 0 ? [] : [...allTerms(state)];
  part("words").value = "";
  scrollTo(0, 0);
  view.close();
  change({terms: [...others, term], typed: "", show: ""});
}

/** Show the picture that the state names, or none. */
function showPicture() {
  const at = state.show ? hits.findIndex((hit) => (hit.id ?? String(hit.row)) === state.show) : -1;
  if (at >= 0) view.open(at, state.index);
  else view.close();
}

function restore() {
  state = {...fromAddress(location.search)};
  writing = false;
  part("words").value = state.typed;
  if (parameters(state).toString() === asked) {
    present(true);
    showPicture();
  } else {
    search();
  }
  if (state.status) status.open();
  else status.close();
}

// --- what the page listens to ---

part("ask").addEventListener("submit", (event) => event.preventDefault());
part("words").addEventListener("input", () => change({typed: part("words").value}, true));
part("words").addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  const typed = parsedTyping(part("words").value);
  if (event.key === "Enter") {
    event.preventDefault();
    if (!typed) return;
    part("words").value = "";
    change({terms: [...state.terms, typed], typed: ""}, false, true);
  } else if (event.key === "Backspace" && part("words").value === "" && state.terms.length) {
    event.preventDefault();
    const last = state.terms.at(-1);
    if (last.text === undefined) change({terms: state.terms.slice(0, -1)});
    else edit(last, state.terms.slice(0, -1));
  } else if (event.key === "ArrowDown" && hits.length) {
    event.preventDefault();
    grid.focus(0);
  }
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  if (view.isOpen()) {
    if (view.key(event)) event.preventDefault();
    return;
  }
  if (document.querySelector("dialog[open]")) return;
  const typing = event.target.matches("input:not([type='checkbox'], [type='range']), select, textarea");
  if (event.key === "Escape") {
    if (!selection.clear()) part("words").focus();
  } else if (event.key === "/" && !typing) {
    event.preventDefault();
    part("words").focus();
    part("words").select();
  } else if (!typing && event.key === "x" && grid.numberOf(event.target) !== null) {
    selection.pick(grid.numberOf(event.target));
  } else if (!typing && !event.shiftKey && grid.key(event)) {
    event.preventDefault();
  }
});
part("tell").addEventListener("click", () => {
  change({status: true});
  status.open();
});
part("theme").addEventListener("click", switchTheme);
addEventListener("popstate", restore);

/** Whether there is nothing to look for, so that all pictures are shown by date. */
function browsing() {
  return !allTerms(state).length;
}

/** The command that gives the hits up to a rank; null if there is none. */
function command() {
  if (!answer?.arguments) return null;
  const sorted = state.sort && !asked.includes("min_confidence");
  return (rank) => `clipsearch query ${answer.arguments} -k ${sorted ? hits.length : state.sort ? "all" : rank}`;
}

filters.start(change);
selection.start(() => ({index: state.index, command: command()}));
upload.start((term) => {
  part("words").value = "";
  change({terms: [...state.terms, {...term, weight: 1}], typed: ""});
}, () => state.index);
status.start(() => { if (state.status) change({status: false}); });
view.start({
  like,
  pick: (number) => selection.pick(number),
  picked: selection.picked,
  shown: (hit) => {
    const name = hit.id ?? String(hit.row);
    if (state.show === name) return;
    const first = state.show === "";
    state.show = name;
    if (first) history.pushState({opened: true}, "", toAddress(state));
    else history.replaceState(history.state, "", toAddress(state));
  },
  closed: (number) => {
    if (state.show !== "") {
      state.show = "";
      if (history.state?.opened) history.back();
      else history.replaceState(null, "", toAddress(state));
    }
    grid.focus(number);
  },
});
grid.start({more: loadMore, open: (number) => view.open(number, state.index), pick: selection.pick, picked: selection.picked});

part("words").value = state.typed;
present(false);
search();
if (state.status) status.open();
get("status").then(({indexes, watch}) => {
  filters.offer(indexes.map(({name}) => name));
  filters.show(state);
  const versions = Object.fromEntries(indexes.map(({name, version}) => [name, version]));
  if (watch) {
    status.watch(versions, (name) => {
      if (!answer || answer.index !== name) return;
      say("The index has changed");
      search({again: true});
    });
  }
}).catch((error) => say(error.message));
