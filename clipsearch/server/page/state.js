// What is searched for, and its address: every state of the page is one that can be shared, and gone back to.

/** @typedef {{text?: string, id?: string, weight: number, box?: string, row?: number, name?: string}} Term */

const FILTERS = ["under", "after", "before", "min_width", "min_height", "orientation"];
const BEST_OF_A_SORT = 500;

/** What is looked for, besides words that are still being typed. */
export function empty() {
  return {terms: [], typed: "", filters: {}, confidence: 0, sort: "", index: "", show: "", status: false};
}

/** Read the state that an address names. */
export function fromAddress(search) {
  const given = new URLSearchParams(search);
  const state = empty();
  for (const [name, value] of given) {
    if (name === "q" || name === "not") state.terms.push(textTerm(value, name === "not" ? -1 : 1));
    if (name === "like" || name === "unlike") state.terms.push(pictureTerm(value, name === "unlike" ? -1 : 1));
    if (FILTERS.includes(name)) state.filters[name] = value;
  }
  state.typed = given.get("typing") ?? "";
  state.confidence = Number(given.get("min_confidence") ?? 0);
  state.sort = given.get("sort") ? given.get("sort") + (given.get("reverse") ? "-reverse" : "") : "";
  state.index = given.get("index") ?? "";
  state.show = given.get("show") ?? "";
  state.status = given.has("status");
  return state;
}

/** The address of a state, without what is before the question mark. */
export function toAddress(state) {
  const to = parameters({...state, typed: ""});
  if (state.typed.trim()) to.append("typing", state.typed.trim());
  if (state.show) to.append("show", state.show);
  if (state.status) to.append("status", "1");
  to.delete("most");
  const text = to.toString();
  return text ? `?${text}` : location.pathname;
}

/** The parameters of the search of a state. */
export function parameters(state) {
  const to = new URLSearchParams();
  for (const term of allTerms(state)) {
    const weight = Math.abs(term.weight) === 1 ? "" : `${Math.abs(term.weight)}:`;
    const away = term.weight < 0;
    if (term.text !== undefined) {
      const escaped = weight === "" && /^[+-]?[\d.]+:/.test(term.text) ? `\\${term.text}` : term.text;
      to.append(away ? "not" : "q", weight + escaped);
    } else {
      to.append(away ? "unlike" : "like", `${weight}${term.id}${term.box ? `@${term.box}` : ""}`);
    }
  }
  for (const name of FILTERS) if (state.filters[name]) to.append(name, state.filters[name]);
  if (state.confidence && inWords(state)) to.append("min_confidence", state.confidence);
  if (state.sort) {
    to.append("sort", state.sort.split("-")[0]);
    if (state.sort.endsWith("-reverse")) to.append("reverse", "1");
    if (!to.has("min_confidence") && allTerms(state).length) to.append("most", BEST_OF_A_SORT);
  }
  if (state.index) to.append("index", state.index);
  return to;
}

/** All terms, with the one that is being typed. */
export function allTerms(state) {
  const typed = parsedTyping(state.typed);
  return typed ? [...state.terms, typed] : state.terms;
}

/** Whether there is a confidence: for words only. */
export function inWords(state) {
  const terms = allTerms(state);
  return terms.every((term) => term.text !== undefined) && terms.some((term) => term.weight > 0);
}

/** The term that was typed: a minus before it is for what should not be there; null for nothing. */
export function parsedTyping(typed) {
  const away = /^\s*[-\u2212]\s*(?=\D)/.exec(typed);
  const text = typed.slice(away ? away[0].length : 0).trim();
  return text ? textTerm(text, away ? -1 : 1) : null;
}

function textTerm(value, sign) {
  const found = /^\+?(\d+\.?\d*|\.\d+):([^]+)$/.exec(value);
  const text = found ? found[2] : value;
  return {text: text.replace(/^\\(?=[+-]?[\d.]+:)/, ""), weight: sign * (found ? Number(found[1]) || 1 : 1)};
}

function pictureTerm(value, sign) {
  const found = /^(?:(\d+\.?\d*|\.\d+):)?([0-9a-f]{32})(?:@(.+))?$/.exec(value);
  return {id: found?.[2] ?? value, weight: sign * (Number(found?.[1]) || 1), box: found?.[3]};
}
