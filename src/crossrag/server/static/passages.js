// Words for passages: what a place is called, how relevant it is.

import { element } from "./dom.js";

/** The last part of a source's path, and what of the place comes after the source. */
export function nameOf(passage) {
  const source = passage.source || "";
  const name = source.split("/").filter(Boolean).at(-1) ?? source;
  const rest = passage.location?.startsWith(source) ? passage.location.slice(source.length).replace(/^,\s*/, "") : "";
  return { name, place: rest };
}

/** A part in [0, 1] in words: `93%`, and never 0% or 100% of what is neither. */
export function percent(part) {
  if (part === null || part === undefined) return "not read";
  if (part < 0.01) return part > 0 ? "under 1%" : "0%";
  if (part > 0.99 && part < 1) return "over 99%";
  return `${Math.round(part * 100)}%`;
}

/** A bar whose length is the relevance. */
export function relevanceBar(relevance, isKept = true) {
  const fill = element("span", { class: "bar-fill" });
  fill.style.inlineSize = `${Math.max(relevance > 0 ? 2 : 0, (relevance ?? 0) * 100)}%`;
  return element("span", { class: isKept ? "relevance-bar" : "relevance-bar is-cut", "aria-hidden": "true" }, fill);
}

/** The heading that is nearest above a passage, or its page; empty where there is neither. */
export function sectionOf(passage) {
  return passage.page_name || (passage.page ? `page ${passage.page}` : (passage.title_path?.at(-1) ?? ""));
}

/** The beginning of a text, for a glance: without headings, where there is more than these. */
export function glance(text, most = 260) {
  const flat = flattened(withoutRules(text).replace(/^\s{0,3}(#{1,6}\s.*|```.*)$/gm, "")) || flattened(text);
  return flat.length <= most ? flat : `${flat.slice(0, most).replace(/\s+\S*$/, "")}…`;
}

/** Lines of tables as their words: a card has no room for rows. */
function withoutRules(text) {
  const rows = text.replace(/^[ \t]*\|[ \t|:-]*$/gm, "");
  return rows.replace(/^[ \t]*\|(.*)$/gm, (_, cells) => cells.split("|").map((cell) => cell.trim()).filter(Boolean).join(", "));
}

/** A text without Markdown's marks; white space is one blank. */
export function flattened(text) {
  return text
    .replace(/^\s{0,3}#{1,6}\s+/gm, "")
    .replace(/^\s*[-*+]\s+/gm, "")
    .replace(/[*`]{1,3}(?=\S)|(?<=\S)[*`]{1,3}|\b_{1,2}|_{1,2}\b/g, "")
    .replace(/\s+/g, " ")
    .trim();
}

/** `1 passage`, `2 passages`. */
export function counted(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** Seconds as people read them: `12 ms`, `1.4 s`. */
export function duration(seconds) {
  if (seconds < 0.0005) return "0 ms";
  return seconds < 1 ? `${Math.max(1, Math.round(seconds * 1000))} ms` : `${seconds.toFixed(1)} s`;
}
