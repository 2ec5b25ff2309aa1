// The text of an answer while it comes: pieces, sentences with what was checked, citations; and its elements at any moment.

import { element, icon } from "./dom.js";
import { citationChip, pendingChip } from "./chips.js";
import { unitsOf } from "./offsets.js";
import { renderProse } from "./prose.js";

/** An answer that grows. `sources` are those of the `retrieved` event; `open(source, citation)` shows a document. */
export class Writing {
  constructor(sources, open) {
    this.text = "";
    this.claims = [];
    this.citations = [];
    this.isWhole = false;
    this.numbered = new Map(sources.map((source) => [source.number, source]));
    this.open = open;
    this.reuse = new Map();
  }

  add(piece) {
    this.text += piece;
  }

  claim(claim) {
    this.claims.push(claim);
  }

  unsupported(claim) {
    this.claims = this.claims.map((each) => (each.start === claim.start ? { ...claim, supported: false } : each));
  }

  cite(citation) {
    this.citations.push(citation);
  }

  /** Takes what the service says in the end in place of what came piece by piece. */
  finish(answer) {
    this.text = answer.text;
    this.citations = answer.citations;
    const flagged = new Set(this.claims.filter((claim) => claim.supported === false).map((claim) => claim.start));
    this.claims = answer.claims.map((claim) => (flagged.has(claim.start) ? { ...claim, supported: false } : claim));
    this.isWhole = true;
  }

  /** The elements of all that is there. */
  elements() {
    const units = unitsOf(this.text);
    return renderProse(this.text, {
      marks: this.claims.filter((claim) => claim.supported === false).map((claim) => unsupportedMark(claim, units)),
      citationAt: this.citationFinder(units),
      chip: (token) => this.chip(token),
      reuse: this.reuse,
    });
  }

  /** Checked citations by offset; in the sentence being written, numbers in brackets that a source has. */
  citationFinder(units) {
    const found = new Map();
    for (const citation of this.citations) {
      const start = units(citation.start);
      found.set(start, { number: citation.number, start, end: units(citation.end), citation, state: citation.supported });
    }
    const checked = Math.max(0, ...this.claims.map((claim) => units(claim.end)));
    const pending = /\[(\d{1,3})\]/g;
    pending.lastIndex = checked;
    for (let match = pending.exec(this.text); match && !this.isWhole; match = pending.exec(this.text)) {
      const number = Number(match[1]);
      if (!this.numbered.has(number) || found.has(match.index)) continue;
      found.set(match.index, { number, start: match.index, end: match.index + match[0].length, state: "pending" });
    }
    return (offset) => found.get(offset);
  }

  chip(token) {
    const source = this.numbered.get(token.number);
    return source && token.citation ? citationChip(source, token.citation, this.open) : pendingChip(token.number);
  }
}

function unsupportedMark(claim, units) {
  return {
    start: units(claim.start),
    end: units(claim.end),
    className: "unsupported",
    title: "The cited sources do not support this sentence",
    after: () => element("span", { class: "flag" }, icon("warning"), "not supported"),
  };
}
