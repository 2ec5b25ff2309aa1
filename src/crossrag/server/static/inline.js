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
  if (character === "`") return codeSpan(run, at, to, hopeless);
  if (character === "[") return citation(run, at) ?? link(run, at, to, depth);
  if (character === "!" && run.text[at + 1] === "[") return image(run, at, to);
  if (character === "h" || character === "H") return bareAddress(run, at, to);
  if (character === "<") return bracketedAddress(run, at, to);
  if ("*_~".includes(character)) return emphasis(run, at, to, depth, hopeless);
  return null;
}

/** Where the character at `index` of the run stands in the source. */
function sourceOffset(run, index) {
  let segment = run.starts[0];
  for (const next of run.starts) {
    if (next.from > index) break;
    segment = next;
  }
  return segment.start + (index - segment.from);
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

function codeSpan(run, at, to, hopeless) {
  const fence = /^`+/.exec(run.text.slice(at, Math.min(to, at + 16)))[0];
  if (hopeless.has(fence)) return null;
  let end = run.text.indexOf(fence, at + fence.length);
  while (end >= 0 && end < to && run.text[end + fence.length] === "`") {
    end = run.text.indexOf(fence, run.text.slice(end).match(/^`+/)[0].length + end);
  }
  if (end < 0 || end + fence.length > to || run.text.slice(at, end).includes("\n")) {
    if (end < 0) hopeless.add(fence);
    return null;
  }
  const start = at + fence.length;
  const token = { kind: "code", text: run.text.slice(start, end), start: sourceOffset(run, start) };
  return { token, end: end + fence.length };
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
  const pattern = /\[([^[\]\n]{0,500})\]\(\s*<?([^\s()<>]{0,2000}(?:\([^\s()<>]{0,200}\)[^\s()<>]{0,200})?)>?(?:\s+["'(][^"')\n]{0,300}["')])?\s*\)/y;
  pattern.lastIndex = at;
  const match = pattern.exec(run.text);
  if (!match || match.index + match[0].length > to) return null;
  return { middle: at + 1 + match[1].length, address: match[2], end: at + match[0].length };
}

function bareAddress(run, at, to) {
  if (at > 0 && /[\p{L}\p{N}_]/u.test(run.text[at - 1])) return null;
  const match = BARE_ADDRESS.exec(run.text.slice(at, Math.min(to, at + 2000)));
  if (!match) return null;
  const shown = match[0].replace(/[.,;:!?*_~)\]]+$/, "");
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
