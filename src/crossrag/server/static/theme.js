// Light, dark, or as the system has it; the choice is kept in this browser.

import { byId } from "./dom.js";

const STORED = "crossrag-theme";
const NEXT = { system: "light", light: "dark", dark: "system" };
const LABELS = { system: "Colours: as the system", light: "Colours: light", dark: "Colours: dark" };

/** The button, and the choice of last time. */
export function watchTheme(say) {
  const button = byId("theme");
  apply(button, localStorage.getItem(STORED));
  button.addEventListener("click", () => {
    const next = NEXT[document.documentElement.dataset.theme ?? "system"];
    localStorage.setItem(STORED, next);
    apply(button, next);
    say(LABELS[next]);
  });
}

function apply(button, theme) {
  const known = theme in NEXT ? theme : "system";
  if (known === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = known;
  button.title = LABELS[known];
  button.setAttribute("aria-label", LABELS[known]);
}
