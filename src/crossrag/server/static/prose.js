// Blocks of Markdown -> elements, with marks on exact ranges of the source. Makes text nodes and a fixed set of
// elements, nothing else: no HTML of a text becomes HTML of the page, and no image is fetched.

import { element } from "./dom.js";
import { parseInline } from "./inline.js";
import { parseBlocks } from "./markdown.js";

/**
 * The elements of `text`, one per block.
 *
 * `marks` are `{start, end, className, title, after}`, `start` and `end` being offsets in `text`: what is shown of such a
 * range stands in `mark.className` elements; `after()` makes what follows it. `citationAt(offset)` is that of
 * `parseInline`, and `chip(token)` makes its element. `reuse` is a Map that is kept between calls for a text that grows:
 * blocks that did not change keep their elements, and with them focus and selection.
 */
export function renderProse(text, { marks = [], citationAt, chip, reuse = new Map(), headingLevel = 3 } = {}) {
  const kept = new Map();
  const made = parseBlocks(text).map((block) => {
    const inside = marks.filter((mark) => mark.start < block.end && mark.end > block.start);
    const key = keyOf(text, block, inside, citationAt);
    const context = { marks: inside, citationAt, chip, headingLevel, lastOf: new Map() };
    const node = reuse.get(key) ?? withTails(renderBlock(block, context), context);
    kept.set(key, node);
    return node;
  });
  reuse.clear();
  for (const [key, node] of kept) reuse.set(key, node);
  return made;
}

/** Text without Markdown, `{text, start}`, as pieces in `<mark>` and outside: for documents that are no Markdown. */
export function renderPlain(leaf, marks) {
  return marked(leaf, { marks, lastOf: new Map() });
}

function keyOf(text, block, marks, citationAt) {
  const ranges = marks.map((mark) => `${mark.start}-${mark.end}-${mark.className}`).join();
  const cited = [];
  const own = text.slice(block.start, block.end);
  for (let at = own.indexOf("["); at >= 0; at = own.indexOf("[", at + 1)) {
    const found = citationAt?.(block.start + at);
    if (found) cited.push(`${found.start}:${found.number}:${found.state ?? ""}`);
  }
  return `${block.start}\n${own}\n${ranges}\n${cited.join()}`;
}

function withTails(node, context) {
  for (const [mark, last] of context.lastOf) if (mark.after) last.after(mark.after());
  return node;
}

function renderBlock(block, context) {
  switch (block.kind) {
    case "heading":
      return element(`h${Math.min(6, context.headingLevel - 1 + block.level)}`, {}, inline(block.lines, context));
    case "code":
      return element("pre", { tabindex: 0 }, element("code", {}, codeLines(block.lines, context)));
    case "quote":
      return element("blockquote", {}, block.blocks.map((inner) => renderBlock(inner, context)));
    case "list":
      return renderList(block, context);
    case "table":
      return renderTable(block, context);
    case "rule":
      return element("hr");
    default:
      return element("p", {}, inline(block.lines, context));
  }
}

function renderList(block, context) {
  const items = block.items.map((blocks) => element("li", {}, blocks.map((inner) => itemBlock(inner, context))));
  const start = block.ordered && block.first !== 1 ? block.first : null;
  return element(block.ordered ? "ol" : "ul", { start }, items);
}

/** The text of an item stands in it without a paragraph around it. */
function itemBlock(block, context) {
  return block.kind === "paragraph" ? inline(block.lines, context) : renderBlock(block, context);
}

function renderTable(block, context) {
  const [head, ...body] = block.rows;
  const row = (cells, name) => element("tr", {}, cells.map((cell) => element(name, {}, inline(cell, context))));
  const rows = body.map((cells) => row(cells, "td"));
  const whole = element("table", {}, element("thead", {}, row(head, "th")), element("tbody", {}, rows));
  return element("div", { class: "wide", tabindex: 0, role: "group", "aria-label": "Table" }, whole);
}

function codeLines(lines, context) {
  return lines.flatMap((line, index) => [index > 0 && "\n", ...marked(line, context)]);
}

function inline(lines, context) {
  return parseInline(lines, context.citationAt).map((token) => renderToken(token, context));
}

function renderToken(token, context) {
  switch (token.kind) {
    case "text":
      return marked(token, context);
    case "code":
      return element("code", {}, marked(token, context));
    case "break":
      return token.hard ? element("br") : " ";
    case "image":
      return element("span", { class: "image" }, "Image", token.text && ": ", marked(token, context));
    case "citation":
      return citation(token, context);
    case "link":
      return element("a", linkProperties(token.href), token.children.map((child) => renderToken(child, context)));
    default:
      return element(token.kind, {}, token.children.map((child) => renderToken(child, context)));
  }
}

function linkProperties(href) {
  return { href, title: href, target: "_blank", rel: "noopener noreferrer nofollow", referrerpolicy: "no-referrer" };
}

function citation(token, context) {
  const made = context.chip ? context.chip(token) : document.createTextNode(`[${token.number}]`);
  for (const mark of context.marks) if (overlaps(mark, token.start, token.end)) context.lastOf.set(mark, made);
  return made;
}

/** A leaf of text in pieces: those within marks in an element, the rest as they are. */
function marked(leaf, context) {
  const end = leaf.start + leaf.text.length;
  const inside = context.marks.filter((mark) => overlaps(mark, leaf.start, end));
  const edges = new Set([leaf.start, end]);
  for (const mark of inside) for (const edge of [mark.start, mark.end]) if (edge > leaf.start && edge < end) edges.add(edge);
  const sorted = [...edges].sort((a, b) => a - b);
  return sorted.slice(0, -1).map((from, index) => {
    const piece = leaf.text.slice(from - leaf.start, sorted[index + 1] - leaf.start);
    return wrapped(piece, inside.filter((mark) => overlaps(mark, from, sorted[index + 1])), context);
  });
}

function wrapped(piece, marks, context) {
  if (marks.length === 0) return document.createTextNode(piece);
  const made = element("mark", { class: marks.map((mark) => mark.className).join(" "), title: marks.at(-1).title }, piece);
  for (const mark of marks) context.lastOf.set(mark, made);
  return made;
}

function overlaps(mark, start, end) {
  return mark.start < end && mark.end > start;
}
