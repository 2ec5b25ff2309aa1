// What the page tells: to a screen reader, and for a moment to everybody.

import { byId, element } from "./dom.js";

/** Tells a screen reader, and with `isShown` everybody, for a moment. */
export function say(words, isShown = false) {
  // What lies outside of an open dialog is neither read out nor always seen.
  const dialog = document.querySelector("dialog[open]");
  (dialog?.querySelector("[role=status]") ?? byId("live")).textContent = words;
  if (!isShown) return;
  const toast = element("p", { class: "toast", "aria-hidden": "true" }, words);
  (dialog ?? document.body).append(toast);
  setTimeout(() => toast.remove(), 2200);
}
