// One question on the page: asked, answered piece by piece, stopped, or failed; with its sources and its ranking.

import { addressOf, pageAddress } from "./address.js";
import { search, streamAnswer } from "./api.js";
import { asMarkdown, copy } from "./clipboard.js";
import { element, fill, icon, iconButton } from "./dom.js";
import { thumbs } from "./feedback.js";
import { wordsOf } from "./filters.js";
import { counted, duration } from "./passages.js";
import { rankingView } from "./ranking.js";
import { nearestList, sourceList } from "./sources.js";
import { checkedLine, failure, noAnswer, note, notesOf } from "./states.js";
import { Writing } from "./writing.js";

const LONGEST_REFUSAL = 160; // A longer one says more than the note that stands in its place.

/**
 * `request` is what is asked: question, collection, history, where; `conditions` are those that `where` is made of.
 * `page` has `open(passage, citation)`, `say(text)` and `again(turn)`.
 * `element` is what stands on the page; `run()` asks and resolves, never rejects, with the answer or null; `stop()` ends it.
 */
export class Turn {
  constructor(request, conditions, page) {
    this.request = request;
    this.conditions = conditions;
    this.page = page;
    this.answer = null;
    this.writing = null;
    this.aborting = new AbortController();
    this.progress = element("p", { class: "progress" });
    this.prose = element("div", { class: "prose answer" });
    this.notes = element("div", { class: "notes" });
    this.foot = element("div", { class: "answer-foot" });
    this.sources = element("aside", { class: "sources", "aria-label": "Sources" });
    this.ranking = element("div", { class: "ranking-place" });
    this.heading = element("h2", { class: "question", tabindex: -1 }, request.question);
    this.element = element("article", { class: "turn", "aria-busy": "true" },
      this.heading,
      conditions.length > 0 && element("p", { class: "muted small-text narrowed" }, `Only where ${conditions.map(wordsOf).join(", ")}`),
      element("div", { class: "turn-body" },
        element("div", { class: "answer-column" }, this.progress, this.prose, this.notes, this.foot), this.sources),
      this.ranking,
    );
  }

  async run() {
    this.tell("Searching the documents");
    try {
      for await (const event of streamAnswer({ ...this.request, explain: true }, this.aborting.signal)) this.take(event);
    } catch (error) {
      if (error.name === "AbortError") this.stopped();
      else this.failed(error);
    }
    this.element.removeAttribute("aria-busy");
    return this.answer;
  }

  stop() {
    this.aborting.abort();
  }

  /** Only the newest turn shows its ranking opened. */
  stepBack() {
    this.ranking.querySelector("details")?.removeAttribute("open");
  }

  take({ name, data }) {
    switch (name) {
      case "retrieved":
        return this.retrieved(data);
      case "delta":
        this.writing.add(data.text);
        return this.redraw();
      case "claimed":
        this.writing.claim(data.claim);
        this.page.say(data.claim.text.replace(/\s*\[\d+\]/g, ""));
        return this.redraw();
      case "cited":
        this.writing.cite(data.citation);
        return this.redraw();
      case "unsupported":
        this.writing.unsupported(data.claim);
        this.page.say("This sentence is not supported by its sources.");
        return this.redraw();
      case "done":
        return this.done(data.answer);
      case "error":
        return this.failed(data);
      default:
        return undefined; // A newer service may say more than this page knows.
    }
  }

  retrieved({ id, sources: found, ranking, dropped }) {
    this.id = id;
    const sources = this.placed(found);
    this.writing = new Writing(sources, (source, citation) => this.page.open(source, citation));
    if (sources.length > 0) {
      fill(this.sources, sourceList(sources, { ...this.cards(), dropped }));
      this.tell(`Reading ${counted(sources.length, "source")}`);
    }
    this.showRanking(ranking, ranking.timings);
  }

  done(answer) {
    this.answer = answer;
    this.writing.finish(answer);
    this.tell("");
    this.draw();
    const isEmpty = answer.status === "no_answer";
    const nearest = isEmpty ? nearestList(this.placed(answer.ranking.candidates), this.cards()) : [];
    if (isEmpty) fill(this.sources, nearest);
    this.prose.hidden = isEmpty && answer.text.length < LONGEST_REFUSAL;
    fill(this.notes, isEmpty && noAnswer(answer, nearest.length > 0, this.conditions.length > 0), notesOf(answer));
    this.showRanking(answer.ranking, answer.timings);
    this.completeRanking(answer);
    this.showFoot(answer);
    this.page.say(isEmpty ? "The documents do not say." : `The answer is complete, with ${counted(answer.citations.length, "citation")}.`);
  }

  stopped() {
    this.tell("");
    this.draw();
    fill(this.notes, note("calm", "Stopped", ["The answer ends here because you stopped it; its last sentence was not checked."]));
    fill(this.foot, this.againButton());
    this.page.say("Stopped.");
  }

  failed(problem) {
    this.tell("");
    this.draw();
    fill(this.notes, failure(problem, () => this.page.again(this)));
  }

  /** Passages with the collection that they are in, which their addresses need. */
  placed(passages) {
    return passages.map((passage) => ({ ...passage, collection: this.request.collection }));
  }

  cards() {
    return {
      open: (passage) => this.page.open(passage, null),
      verdictOn: (passage) => this.verdict("passage", [rangeOf(passage)]),
      say: this.page.say,
    };
  }

  verdict(kind, passages) {
    return { question: this.request.question, kind, collection: this.request.collection, answer_id: this.id, passages };
  }

  showRanking(ranking, timings) {
    if (ranking.candidates.length === 0) return;
    const isOpen = this.ranking.querySelector("details")?.open ?? true;
    fill(this.ranking, rankingView(ranking, { open: (passage) => this.page.open(passage, null), timings, isOpen }));
  }

  /** Asks for what the reranker moved out of sight; the service remembers the scores. Kept only if it is the same order. */
  async completeRanking(answer) {
    const { collection, where } = this.request;
    const { candidates, query, first_stage: first } = answer.ranking;
    if (candidates.length === 0 || (first ?? []).length > candidates.length) return;
    try {
      const whole = await search({ query, collection, where, top_k: candidates.length, explain: true });
      const isSame = whole.candidates.every((each, index) => each.id === candidates[index]?.id);
      if (isSame) this.showRanking(whole, answer.timings);
    } catch {
      // The view stays as it is: it shows less, and nothing that is wrong.
    }
  }

  showFoot(answer) {
    const checked = checkedLine(answer.claims);
    const total = answer.timings.total ?? Object.values(answer.timings).reduce((sum, seconds) => sum + seconds, 0);
    fill(this.foot,
      checked && element("p", { class: checked.isGood ? "checked is-good" : "checked" }, icon(checked.isGood ? "check" : "warning"), checked.text),
      element("div", { class: "actions" },
        answer.text && iconButton("copy", "Copy with citations", () => this.copy()),
        iconButton("link", "Copy a link to this question", () => this.copyLink()),
        this.againButton(),
        thumbs({ what: "Answer", verdictOn: () => this.verdict("answer", citedRanges(answer)), say: this.page.say, asksWhy: true }),
        element("span", { class: "muted small-text took" }, duration(total)),
      ),
    );
  }

  againButton() {
    return iconButton("again", "Ask again", () => this.page.again(this));
  }

  async copy() {
    const sources = this.placed(this.answer.sources);
    const text = asMarkdown({ ...this.answer, sources }, (source) => location.origin + addressOf(source));
    await copy(text, "Copied, with citations.", this.page.say);
  }

  async copyLink() {
    const { question, collection } = this.request;
    const address = pageAddress({ question, collection, conditions: this.conditions });
    await copy(location.origin + address, "Link copied.", this.page.say);
  }

  tell(words) {
    this.progress.textContent = words;
    this.progress.hidden = words === "";
    if (words) this.page.say(words);
  }

  /** At most once per frame, however many pieces come. */
  redraw() {
    this.frame ??= requestAnimationFrame(() => {
      if (!this.answer) this.draw();
    });
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = undefined;
    if (!this.writing) return;
    if (this.writing.text) this.progress.hidden = true;
    updateChildren(this.prose, this.writing.elements());
  }
}

/** Puts `nodes` in, leaving those alone that are there already: focus and selection in them stay. */
function updateChildren(parent, nodes) {
  nodes.forEach((node, index) => {
    if (parent.childNodes[index] !== node) parent.insertBefore(node, parent.childNodes[index] ?? null);
  });
  while (parent.childNodes.length > nodes.length) parent.lastChild.remove();
}

function rangeOf(passage) {
  return { document_id: passage.document_id, start: passage.start, end: passage.end };
}

function citedRanges(answer) {
  const ranges = new Map();
  for (const citation of answer.citations) {
    const { document_id, passage_start: start, passage_end: end } = citation;
    ranges.set(`${document_id} ${start} ${end}`, { document_id, start, end });
  }
  return [...ranges.values()];
}
