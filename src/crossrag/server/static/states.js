// What must be said about an answer, in words: what was not found, not checked, left out, replaced, or went wrong.

import { element, icon } from "./dom.js";
import { counted } from "./passages.js";

const DEGRADED = {
  dense: "The search by meaning did not work: passages were found by their words alone.",
  sparse: "The search by words did not work: passages were found by meaning alone.",
  rerank: "The reranker did not work: passages are in the order of the first search, and none was cut.",
  llm: "The language model did not answer: these are sentences of the sources.",
  grounding: "The check of the sentences did not work: what is marked as cited was not checked.",
  expansion: "The question was searched as it stands, without rewording.",
  diversity: "Passages are the most relevant ones, also where they are alike.",
  neighbours: "Passages come without what stands beside them in their documents.",
  answer: "The time ran out before the answer was complete.",
};

/** A box with a heading and lines below it. `kind` is `calm`, `warning` or `error`. */
export function note(kind, heading, lines = [], ...more) {
  return element("div", { class: `note is-${kind}` },
    icon(kind === "calm" ? "info" : "warning"),
    element("div", {}, element("p", { class: "note-heading" }, heading), lines.map((line) => element("p", {}, line)), more),
  );
}

/** The boxes that belong to a whole answer. */
export function notesOf(answer) {
  const notes = [];
  if (answer.status === "partial") notes.push(note("warning", "Not all of this is in the documents", answer.reasons));
  const degraded = [...new Set([...answer.degraded, ...answer.ranking.degraded])];
  if (degraded.length > 0) notes.push(note("warning", "With less than the usual means", degraded.map(degradedLine)));
  const notices = [...new Set([...answer.notices, ...answer.ranking.notices])];
  if (notices.length > 0) notes.push(note("calm", "Good to know", notices));
  return notes;
}

/** In place of an answer where the documents hold none. */
export function noAnswer(answer, hasNearest, isNarrowed) {
  const lines = answer.reasons.length > 0 ? answer.reasons : ["No passage is relevant enough to answer from."];
  const hint = hasNearest ? "The nearest passages are listed, so that you can judge for yourself." : "Add documents, or ask in other words.";
  const narrowed = isNarrowed && "Only documents for which the filter holds were searched: without it, there may be an answer.";
  return note("calm", "The documents do not say", [...lines.map(sentence), narrowed, hint].filter(Boolean));
}

function sentence(words) {
  return /[.!?…]$/.test(words) ? words : `${words}.`;
}

/** A failure, with its hint and a way on. `again` asks once more; the wait that the service asks for is kept. */
export function failure(problem, again) {
  const lines = [problem.detail, problem.hint].filter((line) => line && line !== problem.title);
  const button = element("button", { type: "button", class: "secondary", on: { click: again } }, "Try again");
  if (problem.retryAfter) waitFor(button, Math.min(600, Math.ceil(problem.retryAfter)));
  return element("div", { role: "alert" }, note("error", problem.title, lines, button));
}

function waitFor(button, seconds) {
  button.disabled = seconds > 0;
  button.textContent = seconds > 0 ? `Try again in ${seconds} s` : "Try again";
  if (seconds > 0) setTimeout(() => waitFor(button, seconds - 1), 1000);
}

/** How many sentences rest on their sources, in one line; null where there are none. */
export function checkedLine(claims) {
  const checked = claims.filter((claim) => claim.supported !== null || claim.verbatim);
  if (claims.length === 0) return null;
  if (checked.length === 0) return { text: "Not checked against the sources", isGood: false };
  const good = claims.filter((claim) => claim.supported || claim.verbatim).length;
  const isAll = good === claims.length;
  if (isAll && claims.every((claim) => claim.verbatim)) {
    return { text: good === 1 ? "Word for word from its source" : "Word for word from the sources", isGood: true };
  }
  const sentences = counted(claims.length, "sentence");
  if (isAll) return { text: `${claims.length === 1 ? "The sentence is" : `All ${sentences} are`} supported by the sources`, isGood: true };
  return { text: `${good} of ${sentences} supported by the sources`, isGood: false };
}

function degradedLine(stage) {
  return DEGRADED[stage] ?? `The stage “${stage}” did not do its work.`;
}
