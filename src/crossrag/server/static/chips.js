// Numbered citations in an answer, and the card that shows, on hover and on focus, what each rests on.

import { addressOf } from "./address.js";
import { byId, element, fill, icon } from "./dom.js";
import { flattened, glance, nameOf, percent } from "./passages.js";

const DELAY = 120;
const AROUND = 90;

/**
 * A chip for source `source`, and, where it is known, what was checked about this one citation. `open(source, citation)`
 * shows the document.
 */
export function citationChip(source, citation, open) {
  const { supported = null } = citation ?? {};
  const state = supported === false ? "is-unsupported" : supported ? "is-supported" : "";
  const chip = element("a", {
    class: `chip ${state}`,
    href: addressOf(source, highlighted(source, citation)),
    "aria-label": `Source ${source.number}: ${source.location}${saidOf(supported)}`,
    on: {
      click: (event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey) return;
        event.preventDefault();
        hideCard();
        open(source, citation);
      },
    },
  }, String(source.number));
  showCardOver(chip, () => cardContent(source, citation));
  return chip;
}

/** A chip whose sentence is still being written: no claim is made about it yet. */
export function pendingChip(number) {
  return element("span", { class: "chip is-pending", role: "img", "aria-label": `Source ${number}` }, String(number));
}

/** The range of the document that a citation shows: the quote, or else the passage. */
export function highlighted(source, citation) {
  if (citation?.quote && citation.quote_start !== null) {
    return [citation.quote_start, citation.quote_start + [...citation.quote].length];
  }
  return citation ? [citation.passage_start, citation.passage_end] : [source.start, source.end];
}

function saidOf(supported) {
  if (supported === null) return "";
  return supported ? ". It supports the sentence" : ". It does not support the sentence";
}

/** What the card says of a source, and of the citation that led to it, if there is one. */
export function cardContent(source, citation) {
  const { name, place } = nameOf(source);
  return [
    element("p", { class: "card-place" },
      source.number && element("span", { class: "number" }, String(source.number)),
      element("span", {}, element("strong", {}, name), place && element("span", { class: "muted" }, ` ${place}`)),
    ),
    element("p", { class: "card-text" }, excerpt(source, citation)),
    support(citation),
  ];
}

/** The quote within the words around it; without a quote, how the passage begins. */
function excerpt(source, citation) {
  const quote = citation?.quote;
  const at = quote ? source.text.indexOf(quote) : -1;
  if (at < 0) return quote ? element("mark", {}, glance(quote)) : glance(source.text);
  const before = flattened(source.text.slice(0, at)).slice(-AROUND).replace(/^\S*\s/, "");
  const after = flattened(source.text.slice(at + quote.length)).slice(0, AROUND).replace(/\s\S*$/, "");
  return [before && `… ${before} `, element("mark", {}, flattened(quote)), after && `${/^[.,;:!?)]/.test(after) ? "" : " "}${after} …`];
}

function support(citation) {
  if (!citation || citation.supported === null) return null;
  const part = citation.support === null ? "" : ` (${percent(citation.support)})`;
  return citation.supported
    ? element("p", { class: "card-support is-good" }, icon("check"), `Supports the sentence${part}`)
    : element("p", { class: "card-support is-bad" }, icon("warning"), `Does not support the sentence${part}`);
}

let timer = 0;
let described = null; // What the card says something of.

/** Shows `content()` in the one card beside `anchor` while it is hovered or focused. */
export function showCardOver(anchor, content) {
  const show = () => {
    clearTimeout(timer);
    timer = setTimeout(() => placeCard(anchor, content()), DELAY);
  };
  anchor.addEventListener("mouseenter", show);
  anchor.addEventListener("focus", () => {
    // At once, since what describes an element is read out when it gets the focus.
    if (anchor.matches(":focus-visible")) placeCard(anchor, content());
  });
  anchor.addEventListener("mouseleave", () => hideCard(DELAY));
  anchor.addEventListener("blur", () => hideCard());
}

/** Hides the card, after a moment in which the pointer may move onto it. */
export function hideCard(delay = 0) {
  clearTimeout(timer);
  const hide = () => {
    byId("card").hidden = true;
    described?.removeAttribute("aria-describedby");
  };
  if (delay) timer = setTimeout(hide, delay);
  else hide();
}

/** The card stays while the pointer is on it, and goes with Escape or a scroll. */
export function watchCard() {
  const card = byId("card");
  card.addEventListener("mouseenter", () => clearTimeout(timer));
  card.addEventListener("mouseleave", () => hideCard(DELAY));
  addEventListener("scroll", () => hideCard(), { passive: true });
}

function placeCard(anchor, content) {
  if (!anchor.isConnected) return;
  clearTimeout(timer);
  described?.removeAttribute("aria-describedby");
  described = anchor;
  anchor.setAttribute("aria-describedby", "card");
  const card = fill(byId("card"), content);
  card.hidden = false;
  const at = anchor.getBoundingClientRect();
  const size = card.getBoundingClientRect();
  const left = Math.min(Math.max(12, at.left + at.width / 2 - size.width / 2), innerWidth - size.width - 12);
  const isAbove = at.top > size.height + 16;
  card.style.left = `${left}px`;
  card.style.top = `${isAbove ? at.top - size.height - 8 : at.bottom + 8}px`;
}
