// Shortcuts. Keys without Ctrl work only where nobody is writing, and can be switched off.

import { byId } from "./dom.js";
import { hideCard } from "./chips.js";
import { openPanel } from "./panels.js";

const STORED = "crossrag-single-keys";

/** `stop()` stops a running answer; `openSource(number)` opens a source of the last one. */
export function watchKeyboard({ stop, openSource }) {
  const box = byId("single-keys");
  box.checked = localStorage.getItem(STORED) !== "off";
  box.addEventListener("change", () => localStorage.setItem(STORED, box.checked ? "on" : "off"));
  byId("open-keys").addEventListener("click", () => openPanel(byId("keys")));
  addEventListener("keydown", (event) => {
    if (isComposing(event)) return;
    if (event.key === "Escape") {
      if (!byId("card").hidden) hideCard();
      else if (!document.querySelector("dialog[open]")) stop();
      return;
    }
    if (!box.checked || isWriting(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    if (runSingle(event.key, openSource)) event.preventDefault();
  });
}

/** Whether a key goes to an input method, which makes a letter of several; Safari says so by the code 229 alone. */
export function isComposing(event) {
  return event.isComposing || event.keyCode === 229;
}

function runSingle(key, openSource) {
  if (key === "/") byId("question").focus();
  else if (key === "?") openPanel(byId("keys"));
  else if (/^[1-9]$/.test(key)) openSource(Number(key));
  else return false;
  return true;
}

function isWriting(target) {
  return target instanceof Element && target.closest("input, textarea, select, [contenteditable]") !== null;
}
