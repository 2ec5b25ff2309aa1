// Markdown -> blocks with offsets: paragraphs, headings, lists, quotes, code, tables, rules. A subset that answers and
// documents use; what is not in it is a paragraph. Knows no DOM.

const MOST_NESTED = 5;
const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])([ \t]+)/;
const DIVIDER = /^:?-+:?$/;

/**
 * Blocks of a text. Each has `kind`, `start` and `end`, offsets in the text, and
 * `lines` (paragraph, code), `level` and `lines` (heading), `blocks` (quote), `ordered`, `first` and `items`, lists of
 * blocks (list), or `rows` of cells, which are lists of lines (table).
 */
export function parseBlocks(text) {
  const lines = [];
  let start = 0;
  for (const line of text.split("\n")) {
    lines.push({ text: line, start });
    start += line.length + 1;
  }
  return blocksOf(lines, 0);
}

function blocksOf(lines, depth) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (isBlank(lines[at])) {
      at += 1;
      continue;
    }
    const [block, next] = blockAt(lines, at, depth);
    const last = lines[next - 1];
    blocks.push({ ...block, start: lines[at].start, end: last.start + last.text.length });
    at = next;
  }
  return blocks;
}

function blockAt(lines, at, depth) {
  const { text } = lines[at];
  if (FENCE.test(text)) return fenced(lines, at);
  if (RULE.test(text)) return [{ kind: "rule" }, at + 1];
  if (HEADING.test(text)) return [heading(lines[at]), at + 1];
  if (isTable(lines, at)) return table(lines, at);
  if (depth < MOST_NESTED && QUOTE.test(text)) return quote(lines, at, depth);
  if (depth < MOST_NESTED && ITEM.test(text)) return list(lines, at, depth);
  return paragraph(lines, at, depth);
}

function isBlank(line) {
  return /^\s*$/.test(line.text);
}

/** The line without its first `count` characters. */
function cut(line, count) {
  return { text: line.text.slice(count), start: line.start + Math.min(count, line.text.length) };
}

function fenced(lines, at) {
  const fence = FENCE.exec(lines[at].text)[1];
  let next = at + 1;
  while (next < lines.length && !isFenceEnd(lines[next].text, fence)) next += 1;
  return [{ kind: "code", lines: lines.slice(at + 1, next) }, Math.min(next + 1, lines.length)];
}

function isFenceEnd(text, fence) {
  const trimmed = text.trim();
  return trimmed.length >= fence.length && trimmed.split("").every((character) => character === fence[0]);
}

function heading(line) {
  const [opening, marks] = HEADING.exec(line.text);
  const rest = cut(line, opening.length);
  return { kind: "heading", level: marks.length, lines: [{ ...rest, text: withoutMarks(rest.text) }] };
}

/** A heading's text without the number signs that may follow it, after a blank. */
function withoutMarks(text) {
  let end = text.length;
  while (end > 0 && isSpace(text[end - 1])) end -= 1;
  let marks = end;
  while (marks > 0 && text[marks - 1] === "#") marks -= 1;
  if (marks === end || !isSpace(text[marks - 1])) return text;
  while (marks > 0 && isSpace(text[marks - 1])) marks -= 1;
  return text.slice(0, marks);
}

function isSpace(character) {
  return character === " " || character === "\t";
}

function quote(lines, at, depth) {
  let next = at;
  const inner = [];
  while (next < lines.length && QUOTE.test(lines[next].text)) {
    inner.push(cut(lines[next], QUOTE.exec(lines[next].text)[0].length));
    next += 1;
  }
  return [{ kind: "quote", blocks: blocksOf(inner, depth + 1) }, next];
}

function list(lines, at, depth) {
  const first = ITEM.exec(lines[at].text);
  const ordered = /\d/.test(first[2]);
  const items = [];
  let next = at;
  while (next < lines.length) {
    const opening = ITEM.exec(lines[next].text);
    if (!opening || /\d/.test(opening[2]) !== ordered || RULE.test(lines[next].text)) break;
    const [inner, end] = itemLines(lines, next, opening);
    items.push(blocksOf(inner, depth + 1));
    next = end;
  }
  return [{ kind: "list", ordered, first: ordered ? Number.parseInt(first[2], 10) : null, items }, next];
}

/** The lines of the item that begins at `at`, without its indentation, and where the next one may begin. */
function itemLines(lines, at, opening) {
  const indent = opening[0].length;
  const inner = [cut(lines[at], indent)];
  let next = at + 1;
  while (next < lines.length) {
    const line = lines[next];
    const isIndented = line.text.slice(0, 2).trim() === "";
    if (isBlank(line)) {
      const after = afterBlanks(lines, next);
      if (!isContinued(lines, after)) break;
      for (; next < after; next += 1) inner.push(cut(lines[next], lines[next].text.length));
      continue;
    }
    if (!isIndented && !isLazy(lines, next)) break;
    inner.push(cut(line, Math.min(indent, line.text.length - line.text.trimStart().length)));
    next += 1;
  }
  while (isBlank(inner.at(-1)) && inner.length > 1) inner.pop();
  return [inner, next];
}

/** The first line from `at` on that is not blank. */
function afterBlanks(lines, at) {
  let next = at;
  while (next < lines.length && isBlank(lines[next])) next += 1;
  return next;
}

/** Blank lines belong to an item whose text goes on, indented, at `after`; or the next item follows. */
function isContinued(lines, after) {
  return after < lines.length && !ITEM.test(lines[after].text) && lines[after].text.startsWith("  ");
}

/** A line of plain text right below text is more of it, indented or not. */
function isLazy(lines, at) {
  return !isBlank(lines[at - 1]) && !startsBlock(lines, at);
}

function startsBlock(lines, at) {
  const { text } = lines[at];
  return [FENCE, RULE, HEADING, QUOTE, ITEM].some((pattern) => pattern.test(text)) || isTable(lines, at);
}

function isTable(lines, at) {
  const next = lines[at + 1];
  if (!next || !lines[at].text.includes("|") || !next.text.includes("-") || next.text.startsWith("    ")) return false;
  const cells = cellsOf(next);
  return cells.every(([cell]) => DIVIDER.test(cell.text)) && cells.length === cellsOf(lines[at]).length;
}

function table(lines, at) {
  const rows = [cellsOf(lines[at])];
  let next = at + 2;
  while (next < lines.length && !isBlank(lines[next]) && lines[next].text.includes("|")) {
    rows.push(cellsOf(lines[next]));
    next += 1;
  }
  return [{ kind: "table", rows }, next];
}

function cellsOf(line) {
  const cells = [];
  let from = /^\s*\|?/.exec(line.text)[0].length;
  for (let at = from; at <= line.text.length; at += 1) {
    if (at < line.text.length && (line.text[at] !== "|" || line.text[at - 1] === "\\")) continue;
    if (at < line.text.length || line.text.slice(from).trim()) cells.push([trimmed(line, from, at)]);
    from = at + 1;
  }
  return cells;
}

function trimmed(line, from, to) {
  const text = line.text.slice(from, to);
  return { text: text.trim(), start: line.start + from + (text.length - text.trimStart().length) };
}

function paragraph(lines, at) {
  let next = at + 1;
  while (next < lines.length && !isBlank(lines[next]) && !interrupts(lines, next)) next += 1;
  const own = lines.slice(at, next).map((line) => cut(line, line.text.length - line.text.trimStart().length));
  return [{ kind: "paragraph", lines: own }, next];
}

/** Of lists, only one that begins with a bullet or 1 interrupts: a line may begin with a year. */
function interrupts(lines, at) {
  const item = ITEM.exec(lines[at].text);
  return startsBlock(lines, at) && (!item || !/\d/.test(item[2]) || /^1[.)]/.test(item[2]));
}
