// One run of Markdown without blocks -> tokens, each with the offset in the source at which it stands. Text that is no
// construct of this small language stays text: HTML, references, entities. Knows no DOM.

const MOST_NESTED = 6;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const BARE_ADDRESS = /^https?:\/\/[^\s<>"'`|\\^{}]+/i;
const EMPHASES = [
  ["**", "strong"],
  ["__", "strong"],
  ["~~", "del"],
  ["*", "em"],
  ["_", "em"],
];

/**
 * Tokens of `lines`, which are `{text, start}`, `start` being the offset in the source.
 *
 * Kinds: `text` and `code` {text, start}; `break` {hard}; `strong`, `em`, `del` and `link` {children, href};
 * `image` {text, start}, its alternative text; `citation` {number, start, end}.
 *
 * `citationAt(offset)` says which citation begins at an offset of the source: `{number, start, end}`, or undefined.
 */
export function parseInline(lines, citationAt = () => undefined) {
  const starts = [];
  let length = 0;
  for (const line of lines) {
    starts.push({ from: length, start: line.start });
    length += line.text.length + 1;
  }
  const run = { text: lines.map((line) => line.text).join("\n"), starts, citationAt };
  return parse(run, 0, run.text.length, 0);
}

function parse(run, from, to, depth) {
  const tokens = [];
  const hopeless = new Set(); // Delimiters that have no end in this run: looked for once, not from every place.
  let plain = from;
  let at = from;
  const take = (token, end) => {
    addText(run, tokens, plain, at);
    if (token) tokens.push(token);
    at = plain = end;
  };
  while (at < to) {
    const found = tokenAt(run, at, to, depth, hopeless);
    if (found) take(found.token, found.end);
    else at += 1;
  }
  take(null, to);
  return tokens;
}

function tokenAt(run, at, to, depth, hopeless) {
  const character = run.text[at];
  if (character === "\n") return lineBreak(run, at);
  if (character === "\\") return escaped(run, at, to);
  if (character === "`") return codeSpan(run, at, to);
  if (character === "[") return citation(run, at) ?? link(run, at, to, depth);
  if (character === "!" && run.text[at + 1] === "[") return image(run, at, to);
  if (character === "h" || character === "H") return bareAddress(run, at, to);
  if (character === "<") return bracketedAddress(run, at, to);
  if ("*_~".includes(character)) return emphasis(run, at, to, depth, hopeless);
  return null;
}

/** Where the character at `index` of the run stands in the source. */
function sourceOffset(run, index) {
  const segment = segmentAt(run, index);
  return segment.start + (index - segment.from);
}

/** The line of the run that holds the character at `index`. */
function segmentAt(run, index) {
  let low = 0;
  for (let high = run.starts.length; high - low > 1; ) {
    const middle = (low + high) >> 1;
    if (run.starts[middle].from > index) high = middle;
    else low = middle;
  }
  return run.starts[low];
}

/** Text from `from` to `to`, which lies within one line. */
function addText(run, tokens, from, to) {
  if (from < to) tokens.push({ kind: "text", text: run.text.slice(from, to), start: sourceOffset(run, from) });
}

function lineBreak(run, at) {
  const hard = run.text.slice(Math.max(0, at - 2), at) === "  ";
  return { token: { kind: "break", hard }, end: at + 1 };
}

function escaped(run, at, to) {
  if (run.text[at + 1] === "\n") return { token: { kind: "break", hard: true }, end: at + 2 };
  if (at + 1 >= to || !PUNCTUATION.test(run.text[at + 1])) return null;
  return { token: { kind: "text", text: run.text[at + 1], start: sourceOffset(run, at + 1) }, end: at + 2 };
}

/** Ends where the next run of exactly as many backticks begins, within the line. */
function codeSpan(run, at, to) {
  const { ends, starts } = (run.backticks ??= backticks(run.text));
  const length = ends[firstFrom(ends, at + 1)] - at;
  const same = starts.get(length) ?? [];
  const end = same[firstFrom(same, at + length)];
  if (end === undefined || end + length > to || segmentAt(run, at) !== segmentAt(run, end)) return null;
  const start = at + length;
  const token = { kind: "code", text: run.text.slice(start, end), start: sourceOffset(run, start) };
  return { token, end: end + length };
}

/** Where runs of backticks end, in order; and where those of a length begin. */
function backticks(text) {
  const ends = [];
  const starts = new Map();
  for (const { index, 0: { length } } of text.matchAll(/`+/g)) {
    ends.push(index + length);
    if (!starts.has(length)) starts.set(length, []);
    starts.get(length).push(index);
  }
  return { ends, starts };
}

/** The index of the first of the sorted numbers that is `least` or more. */
function firstFrom(sorted, least) {
  let low = 0;
  for (let high = sorted.length; low < high; ) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < least) low = middle + 1;
    else high = middle;
  }
  return low;
}

function citation(run, at) {
  const found = run.citationAt(sourceOffset(run, at));
  if (!found) return null;
  return { token: { kind: "citation", ...found }, end: at + (found.end - found.start) };
}

function link(run, at, to, depth) {
  const parts = linkParts(run, at, to);
  const href = parts && safeAddress(parts.address);
  if (!href || depth >= MOST_NESTED) return null;
  const children = parse(run, at + 1, parts.middle, depth + 1);
  return { token: { kind: "link", href, children }, end: parts.end };
}

function image(run, at, to) {
  const parts = linkParts(run, at + 1, to);
  if (!parts) return null;
  const text = run.text.slice(at + 2, parts.middle);
  return { token: { kind: "image", text, start: sourceOffset(run, at + 2) }, end: parts.end };
}

/** `[text](address "title")` that begins at `at`: where the text ends, the address, where all ends. */
function linkParts(run, at, to) {
  // All counts are bounded, so that no text takes longer than a constant time for each of its characters.
  const pattern = /\[([^[\]\n]{0,500})\]\(\s{0,9}<?([^\s()<>]{0,2000}(?:\([^\s()<>]{0,200}\)[^\s()<>]{0,200})?)>?(?:\s{1,9}["'(][^"')\n]{0,300}["')])?\s{0,9}\)/y;
  pattern.lastIndex = at;
  const match = pattern.exec(run.text);
  if (!match || match.index + match[0].length > to) return null;
  return { middle: at + 1 + match[1].length, address: match[2], end: at + match[0].length };
}

function bareAddress(run, at, to) {
  if (at > 0 && /[\p{L}\p{N}_]/u.test(run.text[at - 1])) return null;
  const match = BARE_ADDRESS.exec(run.text.slice(at, Math.min(to, at + 2000)));
  if (!match) return null;
  let end = match[0].length;
  while (".,;:!?*_~)]".includes(match[0][end - 1])) end -= 1;
  const shown = match[0].slice(0, end);
  return addressToken(run, at, shown, at + shown.length);
}

function bracketedAddress(run, at, to) {
  const match = /^<(https?:\/\/[^\s<>]{1,2000})>/i.exec(run.text.slice(at, Math.min(to, at + 2010)));
  return match && addressToken(run, at + 1, match[1], at + match[0].length);
}

function addressToken(run, at, shown, end) {
  const href = safeAddress(shown);
  const children = [{ kind: "text", text: shown, start: sourceOffset(run, at) }];
  return href && { token: { kind: "link", href, children }, end };
}

/** The address as the browser understands it, if it is http or https and hides nobody's name; else null. */
export function safeAddress(address) {
  try {
    const url = new URL(address);
    const isPlain = (url.protocol === "http:" || url.protocol === "https:") && !url.username && !url.password;
    return isPlain && /^https?:\/\//i.test(address) ? url.href : null;
  } catch {
    return null;
  }
}

function emphasis(run, at, to, depth, hopeless) {
  const [mark, kind] = EMPHASES.find(([each]) => run.text.startsWith(each, at)) ?? [];
  if (!mark || depth >= MOST_NESTED || hopeless.has(mark) || !opens(run.text, at, mark)) return null;
  const end = closer(run.text, at + mark.length, to, mark);
  if (end < 0) {
    hopeless.add(mark);
    return null;
  }
  const children = parse(run, at + mark.length, end, depth + 1);
  return { token: { kind, children }, end: end + mark.length };
}

/** An underscore within a word is part of the word. */
function opens(text, at, mark) {
  const next = text[at + mark.length];
  if (next === undefined || /\s/.test(next)) return false;
  return mark[0] !== "_" || at === 0 || !/[\p{L}\p{N}]/u.test(text[at - 1]);
}

function closer(text, from, to, mark) {
  for (let end = text.indexOf(mark, from); end >= 0 && end + mark.length <= to; end = text.indexOf(mark, end + 1)) {
    if (end === from || /[\s\\]/.test(text[end - 1])) continue;
    if (mark.length === 1 && end + 1 < to && text[end + 1] === mark) {
      end += 1; // The first half of a double mark closes nothing.
      continue;
    }
    while (mark.length === 2 && text[end + 2] === mark[0] && end + 2 < to) end += 1; // The last two of three close.
    if (mark[0] !== "_" || !/[\p{L}\p{N}]/u.test(text[end + mark.length] ?? "")) return end;
  }
  return -1;
}
