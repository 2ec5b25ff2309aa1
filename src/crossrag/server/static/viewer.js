// A document beside the answer, with the cited passage marked and the quoted words marked more strongly.

import { addressOf } from "./address.js";
import { documentText } from "./api.js";
import { copy } from "./clipboard.js";
import { byId, element, fill } from "./dom.js";
import { unitsOf } from "./offsets.js";
import { openPanel } from "./panels.js";
import { counted } from "./passages.js";
import { renderPlain, renderProse } from "./prose.js";
import { failure } from "./states.js";

const MARKDOWN = /\.(md|markdown|html?|docx)$/i;
const LEAD_IN = 20_000;
const FIRST_WINDOW = 150_000;

let shown = null;

/**
 * Opens a document. `passage` is the range to mark and `quote` the range within it to mark more strongly, both in code
 * points of its text, or null; `place` is what the range is called.
 */
export async function openDocument({ documentId, source = "", place = "", passage = null, quote = null, collection = null }) {
  const target = { documentId, source, place, passage, quote, collection, parts: [], isPlain: false };
  shown = target;
  byId("viewer-title").textContent = source || "Document";
  byId("viewer-place").textContent = place;
  byId("viewer-plain").hidden = true;
  fill(byId("viewer-text"), element("p", { class: "muted" }, "Loading…"));
  openPanel(byId("viewer"));
  const first = quote ?? passage;
  await load(target, !first || first[1] < FIRST_WINDOW ? 0 : Math.max(0, passage[0] - LEAD_IN), "end");
  if (shown === target) toMark();
}

/** The buttons of the panel. */
export function watchViewer(say) {
  byId("viewer-plain").addEventListener("click", () => {
    shown.isPlain = !shown.isPlain;
    draw(shown);
    toMark();
  });
  byId("viewer-link").addEventListener("click", async () => {
    const { documentId, collection } = shown;
    const address = addressOf({ document_id: documentId, collection }, shown.quote ?? shown.passage);
    await copy(location.origin + address, "Link copied.", say);
  });
}

async function load(target, start, where) {
  const end = where === "start" ? target.parts[0].start : null; // What follows is there.
  try {
    const part = await documentText(target.documentId, { collection: target.collection, start, end });
    if (where === "end") target.parts.push(part);
    else target.parts.unshift(part);
    if (shown === target) draw(target);
  } catch (problem) {
    if (shown === target) fill(byId("viewer-text"), failure(problem, () => openDocument(target)));
  }
}

function draw(target) {
  const { source, title, length } = target.parts[0];
  const isMarkdown = MARKDOWN.test(source);
  byId("viewer-title").textContent = title || source;
  byId("viewer-place").textContent = [title && source, target.place].filter(Boolean).join(" · ");
  const toggle = byId("viewer-plain");
  toggle.hidden = !isMarkdown;
  toggle.setAttribute("aria-pressed", String(target.isPlain));
  const isProse = isMarkdown && !target.isPlain;
  const body = element("div", { class: isProse ? "prose" : "prose plain" }, target.parts.map((part) => drawPart(part, target, isProse)));
  fill(byId("viewer-text"), moreBefore(target), body, moreAfter(target, length));
}

function drawPart(part, target, isProse) {
  const { text } = part;
  const units = unitsOf(text);
  const marks = [
    [target.passage, "passage"],
    [target.quote, "quote"],
  ].flatMap(([range, className]) => (range ? [{ start: units(range[0] - part.start), end: units(range[1] - part.start), className }] : []));
  if (isProse) return renderProse(text, { marks, headingLevel: 3 });
  return pagesOf(part, units, text).map(({ label, from, to }) => [
    label && element("h3", { class: "page-label" }, label),
    element("div", { class: "plain-text" }, renderPlain({ text: text.slice(from, to), start: from }, marks)),
  ]);
}

/** The stretches of text that are on one page each. */
function pagesOf(part, units, text) {
  const pages = [{ label: "", from: 0, to: text.length }];
  for (const passage of part.passages) {
    const label = passage.page === null ? "" : passage.page_name || `Page ${passage.page}`;
    if (!label || label === pages.at(-1).label) continue;
    const from = units(passage.start - part.start);
    if (from === 0 && pages.length === 1) pages[0].label = label;
    else {
      pages.at(-1).to = from;
      pages.push({ label, from, to: text.length });
    }
  }
  return pages;
}

function moreBefore(target) {
  const { start } = target.parts[0];
  if (start === 0) return null;
  return more(`${counted(start, "character")} before this`, () => load(target, Math.max(0, start - FIRST_WINDOW), "start"));
}

function moreAfter(target, length) {
  const { end } = target.parts.at(-1);
  if (end >= length) return null;
  return more(`${counted(length - end, "more character")}`, () => load(target, end, "end"));
}

function more(label, onClick) {
  const click = (event) => {
    event.currentTarget.disabled = true; // A second click would bring the same again.
    onClick();
  };
  return element("button", { type: "button", class: "secondary more", on: { click } }, `Show ${label}`);
}

function toMark() {
  const text = byId("viewer-text");
  const mark = text.querySelector("mark.quote") ?? text.querySelector("mark");
  if (mark) mark.scrollIntoView({ block: "center" });
  else text.scrollTop = 0;
}
