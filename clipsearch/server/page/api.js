// Requests to the server. Errors come as exceptions with a message for people.

async function asked(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  if (!response.ok) {
    const {error} = await response.json().catch(() => ({}));
    throw new Error(error ?? `The server refused it (${response.status}).`);
  }
  return response;
}

/** The answer of an address of the API, as an object. */
export async function get(path, parameters = "", signal = undefined) {
  const text = String(parameters);
  return (await asked(`/api/${path}${text ? `?${text}` : ""}`, {signal})).json();
}

/** Send a picture; its term comes back. */
export async function send(file, index) {
  const to = new URLSearchParams({k: 1, ...(index ? {index} : {})});
  const answer = await (await asked(`/api/similar?${to}`, {method: "POST", body: file})).json();
  return answer.terms[0];
}

/** A zip file with the pictures in these rows. */
export async function zip(rows, index) {
  const to = index ? `?${new URLSearchParams({index})}` : "";
  return (await asked(`/api/zip${to}`, {method: "POST", body: rows.join(" ")})).blob();
}

/** The address of a reduced picture of a hit. */
export function thumbnail(hit, side, index) {
  return `/api/thumbnail/${hit.row}?${named(hit, index, {side})}`;
}

/** The address of the file of a hit. */
export function image(hit, index) {
  return `/api/image/${hit.row}?${named(hit, index, {})}`;
}

function named(hit, index, more) {
  return new URLSearchParams({...more, ...(hit.id ? {id: hit.id} : {}), ...(index ? {index} : {})});
}

/** Say why a picture cannot be shown. */
export async function reasonFor(address) {
  try {
    await asked(address);
    return "The browser cannot show it.";
  } catch (error) {
    return error.message;
  }
}
