// The order before the reranker read and the one after it, side by side, with an arrow for each passage; what the
// threshold cut; how long each stage took.

import { element, shape } from "./dom.js";
import { counted, duration, nameOf, percent, relevanceBar, sectionOf } from "./passages.js";

const MOST_SHOWN = 10;
const STAGES = {
  embed: "embed the question",
  expand: "reword",
  expansion: "reword",
  retrieve: "search",
  retrieval: "search",
  search: "search",
  dense: "search by meaning",
  sparse: "search by words",
  fuse: "fuse",
  likeness: "near-duplicates",
  rerank: "rerank",
  context: "context",
  generate: "write",
  answer: "write",
  ground: "check",
  grounding: "check",
};

/** The view as a `<details>`. `open(passage)` shows a document; `timings` are the whole answer's. */
export function rankingView(ranking, { open, timings = ranking.timings, isOpen = true }) {
  const { before, after } = ordersOf(ranking);
  const board = boardOf(before, after, ranking.threshold, open);
  const whole = element("details", { class: "ranking", open: isOpen },
    element("summary", {},
      element("span", { class: "summary-title" }, "Before and after reranking"),
      element("span", { class: "muted" }, summaryOf(before, after, ranking.threshold)),
    ),
    board,
    timingStrip(timings),
  );
  whole.addEventListener("toggle", () => drawLinks(board));
  new ResizeObserver(() => drawLinks(board)).observe(board);
  return whole;
}

/** Rows of both columns: `{passage, from, to}`, ranks from 1; `to` is null for what the reranker moved out of sight. */
function ordersOf(ranking) {
  const after = ranking.candidates.slice(0, MOST_SHOWN).map((passage, index) => row(passage, passage.rank ?? index + 1));
  const shown = new Map(after.map((each) => [each.passage.id, each]));
  const others = (ranking.first_stage ?? []).filter((passage) => !shown.has(passage.id)).map((passage) => row(passage, null));
  const near = others.filter((each) => each.from !== null && each.from <= Math.max(MOST_SHOWN, after.length));
  const before = [...after.filter((each) => each.from !== null), ...near].sort((a, b) => a.from - b.from);
  return { before, after };
}

function row(passage, to) {
  return { passage, from: passage.scores.fused_rank, to };
}

function summaryOf(before, after, threshold) {
  const moved = after.filter((each) => each.from !== null && each.from !== each.to).length;
  const cut = after.filter(({ passage }) => !passage.kept && isBelow(passage, threshold)).length;
  const out = before.filter((each) => each.to === null).length;
  const parts = [moved > 0 ? `${moved} of ${counted(after.length, "passage")} moved` : "the order stayed"];
  if (out > 0) parts.push(`${out} left the list`);
  if (cut > 0) parts.push(`${cut} below the threshold`);
  return parts.join(", ");
}

/** Where nothing was scored there is no threshold, and nothing below it. */
function isBelow(passage, threshold) {
  return typeof threshold === "number" && (passage.scores.relevance ?? 0) < threshold;
}

function boardOf(before, after, threshold, open) {
  const board = element("div", { class: "board" },
    columnHead("before", "First search", "Places by meaning and by words", ["meaning", "words"]),
    columnHead("after", "After reading", "Question and passage read together", ["moved", "relevance"]),
    element("ol", { class: "column before" }, withGaps(before, open)),
    element("div", { class: "links", "aria-hidden": "true" }, shape("svg")),
    element("ol", { class: "column after" }, withThreshold(after, threshold, open)),
  );
  for (const [enter, leave] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
    board.addEventListener(enter, (event) => single(board, event.target.closest("[data-passage]")?.dataset.passage));
    board.addEventListener(leave, () => single(board, undefined));
  }
  return board;
}

function columnHead(name, title, explanation, labels) {
  return element("div", { class: `head ${name}-head` },
    element("h4", { title: explanation }, title), labels.map((label) => element("span", { class: "muted label" }, label)));
}

/** One passage stands out in both columns, the others step back. */
function single(board, id) {
  board.classList.toggle("has-single", id !== undefined);
  for (const node of board.querySelectorAll("[data-passage]")) node.classList.toggle("is-single", node.dataset.passage === id);
}

function withGaps(rows, open) {
  let last = 0;
  return rows.flatMap((each) => {
    const missing = each.from - last - 1;
    last = each.from;
    const gap = missing > 0 && element("li", { class: "gap" }, `${missing} more`);
    return [gap, beforeRow(each, open)];
  });
}

function beforeRow({ passage, from, to }, open) {
  const { dense_rank: dense, sparse_rank: sparse } = passage.scores;
  return element("li", { class: to === null ? "row is-out" : "row", data: { passage: passage.id } },
    element("span", { class: "rank" }, element("span", { class: "hidden" }, "Rank "), String(from)),
    placeButton(passage, open),
    leg(dense, "meaning"),
    leg(sparse, "words"),
    to === null && element("span", { class: "hidden" }, "left the list"),
  );
}

/** The place in one of the two searches that were fused; a dash where it was not found. */
function leg(rank, name) {
  const words = rank === null ? `Not found by ${name}` : `Place ${rank} by ${name}`;
  return element("span", { class: "muted leg", title: words }, element("span", { class: "hidden" }, `${name} `), rank === null ? "–" : String(rank));
}

function withThreshold(rows, threshold, open) {
  const first = rows.findIndex((each) => !each.passage.kept);
  return rows.map((each, index) => [index === first && thresholdLine(threshold, rows[first].passage), afterRow(each, open)]);
}

function thresholdLine(threshold, passage) {
  return element("li", { class: "threshold" }, isBelow(passage, threshold) ? `Below the threshold of ${percent(threshold)}: not used` : "Not used");
}

function afterRow({ passage, from, to }, open) {
  const { relevance } = passage.scores;
  return element("li", { class: passage.kept ? "row" : "row is-cut", data: { passage: passage.id } },
    element("span", { class: "rank" }, element("span", { class: "hidden" }, "Rank "), String(to)),
    placeButton(passage, open),
    movement(from, to),
    element("span", { class: "score" }, relevanceBar(relevance, passage.kept), element("span", { class: "percent" }, percent(relevance))),
    tags(passage),
  );
}

function tags(passage) {
  const words = [
    passage.truncated && "only its beginning was read",
    passage.duplicates?.length > 0 && `stands for ${counted(passage.duplicates.length, "near-duplicate")}`,
  ].filter(Boolean);
  return words.length > 0 && element("span", { class: "muted tags" }, words.join(", "));
}

function movement(from, to) {
  if (from === null) return element("span", { class: "movement" }, "new");
  const places = from - to;
  if (places === 0) return element("span", { class: "movement", title: "Same place" }, "=");
  const [sign, word] = places > 0 ? ["▲", "up"] : ["▼", "down"];
  return element("span", { class: `movement is-${word}`, title: `${counted(Math.abs(places), "place")} ${word}` },
    element("span", { class: "hidden" }, `${word} `), element("span", { "aria-hidden": "true" }, sign), String(Math.abs(places)));
}

function placeButton(passage, open) {
  const { name } = nameOf(passage);
  const section = sectionOf(passage);
  return element("button", { type: "button", class: "place", title: passage.location, on: { click: () => open(passage) } },
    element("span", { class: "place-name" }, name), section && element("span", { class: "muted" }, ` ${section}`));
}

/** Arrows from each row on the left to the same passage on the right, drawn where the rows are now. */
function drawLinks(board) {
  const svg = board.querySelector(".links svg");
  const frame = svg.getBoundingClientRect();
  if (frame.width === 0) return;
  const middles = (name) => new Map([...board.querySelectorAll(`.${name} .row`)].map((node) => [node.dataset.passage, middleOf(node, frame)]));
  const left = middles("before");
  const right = middles("after");
  svg.replaceChildren(...[...left].flatMap(([id, from]) => {
    const to = right.get(id);
    return to === undefined ? [] : [link(id, from, to, frame.width, board)];
  }));
}

function middleOf(node, frame) {
  const box = node.getBoundingClientRect();
  return box.top + box.height / 2 - frame.top;
}

function link(id, from, to, width, board) {
  const isCut = board.querySelector(`.after [data-passage="${CSS.escape(id)}"]`).classList.contains("is-cut");
  const kind = isCut ? "is-cut" : to < from - 2 ? "is-up" : "is-level";
  const end = width - 7;
  const bend = width * 0.45;
  return shape("g", { class: `link ${kind}`, "data-passage": id },
    shape("path", { d: `M2 ${from}C${bend} ${from} ${width - bend} ${to} ${end} ${to}` }),
    shape("path", { class: "head", d: `M${end - 1} ${to - 4}L${width - 1} ${to}L${end - 1} ${to + 4}Z` }),
  );
}

function timingStrip(timings) {
  const stages = Object.entries(timings ?? {}).filter(([name, seconds]) => name !== "total" && seconds > 0);
  if (stages.length === 0) return null;
  const total = timings.total ?? stages.reduce((sum, [, seconds]) => sum + seconds, 0);
  const segments = stages.map(([, seconds]) => {
    const segment = element("span", {});
    segment.style.flexGrow = String(seconds * 1000); // Grow factors that add up to less than 1 leave room.
    return segment;
  });
  const legend = stages.map(([name, seconds]) => element("li", {}, `${STAGES[name] ?? name} `, element("span", { class: "figure" }, duration(seconds))));
  return element("div", { class: "timing" },
    element("div", { class: "strip", "aria-hidden": "true" }, segments),
    element("ul", { class: "legend", "aria-label": `Time per stage, ${duration(total)} in all` }, legend),
  );
}
