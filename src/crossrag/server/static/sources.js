// The passages that an answer rests on, or the nearest ones where there is no answer, as a list of cards.

import { addressOf } from "./address.js";
import { cardContent, showCardOver } from "./chips.js";
import { element } from "./dom.js";
import { thumbs } from "./feedback.js";
import { counted, glance, nameOf, percent, relevanceBar, sectionOf } from "./passages.js";

const LONG_ONES = 3; // The others show their text on hover and focus, so that the list stays beside its answer.

/**
 * The list of `sources`. `open(source)` shows the document; `verdictOn(source)` is what a thumb is about;
 * `dropped` counts relevant passages that did not fit.
 */
export function sourceList(sources, { open, verdictOn, say, dropped = 0 }) {
  const items = sources.map((source) => sourceCard(source, { number: source.number, open, verdictOn, say }));
  return [
    element("h3", {}, "Sources"),
    sources.length > 0 ? element("ol", { class: "cards" }, items) : element("p", { class: "muted" }, "None"),
    dropped > 0 && element("p", { class: "muted small-text" }, `${counted(dropped, "more relevant passage")} did not fit beside these.`),
  ];
}

/** What came nearest where nothing was relevant enough: not numbered, since nothing cites them. */
export function nearestList(candidates, { open, verdictOn, say }) {
  if (candidates.length === 0) return [];
  const items = candidates.slice(0, 4).map((each) => sourceCard(each, { isNearest: true, open, verdictOn, say }));
  return [element("h3", {}, "Nearest passages"), element("ol", { class: "cards is-nearest" }, items)];
}

function sourceCard(passage, { number, isNearest = false, open, verdictOn, say }) {
  const { name } = nameOf(passage);
  const section = sectionOf(passage);
  const relevance = passage.relevance ?? passage.scores?.relevance ?? null;
  const link = element("a", {
    class: "card-link",
    href: addressOf(passage),
    on: {
      click: (event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey) return;
        event.preventDefault();
        open(passage);
      },
    },
  }, name);
  const isShort = number > LONG_ONES;
  if (isShort) showCardOver(link, () => cardContent(passage, null));
  return element("li", { class: "source", data: number ? { number } : {} },
    element("div", { class: "source-head" },
      number && element("span", { class: "number", "aria-hidden": "true" }, String(number)),
      element("div", { class: "source-name" }, link, section && element("span", { class: "muted source-place" }, section)),
    ),
    !isShort && element("p", { class: "source-text" }, glance(passage.text)),
    element("div", { class: "source-foot" },
      relevanceBar(relevance, !isNearest),
      element("span", { class: "muted small-text" }, relevance === null ? "not read" : `${percent(relevance)} relevant`),
      thumbs({ what: `Passage of ${name}`, verdictOn: () => verdictOn(passage), say }),
    ),
  );
}
