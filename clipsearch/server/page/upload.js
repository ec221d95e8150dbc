// Pictures from outside: dropped, pasted or chosen. The server gets one, and its id becomes a term.

import {part, say} from "./parts.js";
import {send} from "./api.js";

/** Call `found(term)` with the term of each picture that is brought; `index()` names the index that is searched. */
export function start(found, index) {
  const take = async (files) => {
    const file = [...files].find((one) => one.type.startsWith("image/") || !one.type);
    if (!file) return;
    say("Looking at the picture …");
    try {
      found({...await send(file, index()), known: true});
    } catch (error) {
      say(error.message);
    }
  };
  part("send").addEventListener("click", () => part("file").click());
  part("file").addEventListener("change", () => {
    take(part("file").files);
    part("file").value = "";
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) {
      event.preventDefault();
      take(event.clipboardData.files);
    }
  });
  const isFile = (event) => [...event.dataTransfer?.types ?? []].includes("Files");
  addEventListener("dragover", (event) => {
    if (!isFile(event)) return;
    event.preventDefault();
    part("drop").hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) part("drop").hidden = true;
  });
  addEventListener("drop", (event) => {
    if (!isFile(event)) return;
    event.preventDefault();
    part("drop").hidden = true;
    take(event.dataTransfer.files);
  });
}
