"""Document -> chunks with exact character offsets: `document.text[chunk.start:chunk.end] == chunk.text`.

Splits on paragraph, line, sentence and word boundaries by `semantic-text-splitter`. Knows nothing of files.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args
from uuid import UUID, uuid5

from .errors import UsageError, did_you_mean
from .types import Chunk, Document

if TYPE_CHECKING:
    from semantic_text_splitter import MarkdownSplitter, TextSplitter
    from tokenizers import Tokenizer

Unit = Literal["characters", "tokens"]

_NAMESPACE = UUID("5b1d9f0e-6c0b-5d7e-9c57-0f3f2a8f6f11")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*")
_FENCE = re.compile(r"\s*(`{3,}(?=[^`]*$)|~{3,})")
# Lists, quotes, tables, rules and HTML: a line of dashes below them underlines nothing.
_NO_PARAGRAPH = re.compile(r"\s*(?:[-*+>|<]|\d{1,9}[.)](?:\s|$)|\[\^)| {4}|\t")
_RAW = {"<!--": "-->", "<pre": "</pre>", "<script": "</script>", "<style": "</style>"}
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)")
_EMPHASIS = re.compile(r"(\*{1,3})(?=\S)([^*]+)(?<=\S)\1")
_DECORATION = re.compile(r"</?(?:a|b|i|em|strong|code|span|br|sub|sup)\b[^<>]*>|[ \t]*\{[#.:][^{}]*\}$|`")
_HEADING_LENGTH = 200
"""A heading goes with every chunk below it; a longer one is no heading."""


def split(
    document: Document,
    *,
    size: int = 800,
    overlap: int = 150,
    unit: Unit = "characters",
    tokenizer_file: Path | str | None = None,
    generation: str = "",
) -> list[Chunk]:
    """Chunks in order of reading; none where the document has no text.

    Every character but white space is in a chunk, no chunk lies within another, none begins or ends with
    white space. A chunk may be longer than `size` only where a single character is, as it can be in tokens.

    Args:
        document: Its text must have been repaired at entry.
        size: Longest chunk, in `unit`.
        overlap: Units that neighbours share at most, whole sentences or words of them.
        unit: `characters`, or `tokens` of the tokenizer in `tokenizer_file`, special tokens not counted.
        tokenizer_file: A `tokenizer.json`.
        generation: Which state of the document this is; a part of every chunk's id.

    Raises:
        UsageError: The overlap is not smaller than the size, or there is no such unit or tokenizer.
    """
    splitter = _splitter(document.markdown, size, overlap, unit, tokenizer_file)
    headings = list(_headings(document.text)) if document.markdown else []
    chunks = []
    for position, (start, end) in enumerate(_trimmed(document, splitter, size)):
        text = document.text[start:end]
        page = bisect_right(document.page_starts, start)
        chunk = Chunk(
            id=identify(document.id, generation, position, text),
            document_id=document.id,
            source=document.source,
            text=text,
            start=start,
            end=end,
            position=position,
            title=document.title,
            title_path=_path_at(headings, start),
            page=page or None,
            page_name=document.page_names[page - 1] if page and document.page_names else "",
            generation=generation,
            metadata=document.metadata,
        )
        chunks.append(chunk)
    return chunks


def identify(document_id: str, generation: str, position: int, text: str) -> str:
    """Id of a chunk: the same for the same passage of the same state of a document, another for any other."""
    # Surrogates can only come from a file's name, and must not break its chunks.
    identity = document_id.encode("utf-8", "backslashreplace").decode("utf-8")
    return str(uuid5(_NAMESPACE, f"{identity}\0{generation}\0{position}\0{text}"))


def fingerprint(
    size: int, overlap: int, unit: Unit = "characters", tokenizer_file: Path | str | None = None
) -> str:
    """Changes whenever the same document would be cut in other places: `characters:800:150:v1`."""
    if unit == "tokens" and tokenizer_file is not None:
        return f"{unit}:{size}:{overlap}:{sha256(Path(tokenizer_file).read_bytes()).hexdigest()[:12]}:v1"
    return f"{unit}:{size}:{overlap}:v1"


# --- where to cut -----------------------------------------------------------------------------------------


def _splitter(
    markdown: bool,  # noqa: FBT001 - a document's own field
    size: int,
    overlap: int,
    unit: Unit,
    tokenizer_file: Path | str | None,
) -> MarkdownSplitter | TextSplitter:
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    if not 0 <= overlap < size:
        raise UsageError(
            f"chunking.overlap is {overlap} and chunking.size {size}",
            hint="Choose a size of at least 1 and an overlap from 0 to below the size",
        )
    kind = MarkdownSplitter if markdown else TextSplitter
    # Not trimmed by the library: with an overlap, its trimming of Markdown can repeat a start, or panic.
    if unit == "characters":
        return kind(size, overlap=overlap, trim=False)
    if unit not in get_args(Unit):
        raise UsageError(f"chunking.unit is {unit!r}", hint=did_you_mean(unit, get_args(Unit)))
    if tokenizer_file is None:
        raise UsageError("Chunks are counted in tokens and there is no tokenizer", hint="Give tokenizer_file")
    tokenizer = _tokenizer(str(tokenizer_file))
    return kind.from_huggingface_tokenizer(tokenizer, size, overlap=overlap, trim=False)


@lru_cache(maxsize=2)
def _tokenizer(path: str) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(path)
    except Exception as error:  # noqa: BLE001 - the library raises nothing more precise
        raise UsageError(
            f"{path} is no tokenizer: {str(error)[:120]}", hint="Give the path of a tokenizer.json"
        ) from None
    # Cut to a model's length, every longer text would seem to fit.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _trimmed(
    document: Document, splitter: MarkdownSplitter | TextSplitter, size: int
) -> list[tuple[int, int]]:
    """Start and end of each chunk without the white space around it; both ascend strictly."""
    spans: list[tuple[int, int]] = []
    for offset, piece in _all_pieces(document, splitter, size):
        start = offset + len(piece) - len(piece.lstrip())
        end = offset + len(piece.rstrip())
        if start >= end or (spans and end <= spans[-1][1]):
            continue  # blank, or nothing but the overlap
        if spans and start == spans[-1][0]:
            spans.pop()
        spans.append((start, end))
    return spans


def _all_pieces(
    document: Document, splitter: MarkdownSplitter | TextSplitter, size: int
) -> Iterator[tuple[int, str]]:
    """Text flows from page to page, but no chunk is of two slides or sheets: a citation names only one."""
    begins = document.page_starts if document.page_names else (0,)
    for begin, end in pairwise((*begins, len(document.text))):
        for offset, piece in _pieces(document.text[begin:end], splitter, size):
            yield begin + offset, piece


def _pieces(text: str, splitter: MarkdownSplitter | TextSplitter, size: int) -> Iterator[tuple[int, str]]:
    """Offsets and texts of the library's chunks, found window by window.

    The library looks ahead to the end of a word, a sentence, a block: without windows, a few megabytes of
    unbroken text take it hours. A window's last chunk begins the next window: no cut is made at its edge.
    """
    window, offset = max(16_384, 16 * size), 0
    while offset < len(text):
        pieces = splitter.chunk_indices(text[offset : offset + window])
        following = offset + window
        if following < len(text) and len(pieces) > 1:
            following = offset + pieces.pop()[0]
        for start, piece in pieces:
            yield offset + start, piece
        offset = following


# --- headings above ---------------------------------------------------------------------------------------


def _path_at(headings: list[tuple[int, tuple[str, ...]]], start: int) -> tuple[str, ...]:
    index = bisect_right(headings, start, key=lambda heading: heading[0])
    return headings[index - 1][1] if index else ()


def _headings(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Offset of each heading and the path that holds from there on, outermost first."""
    path: list[tuple[int, str]] = []
    for offset, level, line in _heading_lines(text):
        path = [above for above in path if above[0] < level]
        if title := _plain(line):
            path.append((level, title))
        yield offset, tuple(title for _, title in path)


def _heading_lines(text: str) -> Iterator[tuple[int, int, str]]:
    """Offset, level and text of each heading of either style, as CommonMark has them."""
    paragraph: list[str] | None = []  # its lines so far; None within a list, a quote, a table
    begin = 0
    for offset, line in _prose_lines(text):
        if atx := _ATX.fullmatch(line):
            yield offset, len(atx[1]), _unclosed(atx[2] or "")
            paragraph = []
        elif not line.strip():
            paragraph = []
        elif paragraph and (underline := _SETEXT.fullmatch(line)):
            yield begin, 1 if underline[1][0] == "=" else 2, " ".join(paragraph)
            paragraph = []
        elif not paragraph and _NO_PARAGRAPH.match(line):
            paragraph = None
        elif paragraph is not None:
            begin = begin if paragraph else offset
            paragraph.append(line.strip())


def _prose_lines(text: str) -> Iterator[tuple[int, str]]:
    """Offset and text of each line outside fenced code, comments and raw HTML; one blank line for each."""
    offset, closing = 0, ""
    for line in text.split("\n"):
        if closing:
            closing = "" if _closes(line, closing) else closing
        elif closing := _opens(line):
            yield offset, ""
        else:
            yield offset, line
        offset += len(line) + 1


def _opens(line: str) -> str:
    """What closes the fence, comment or raw HTML that this line opens, if it does."""
    # Indented as deep as may be: fences within lists are. Most lines need no regular expression.
    start = line.lstrip()[:8].lower()
    if start.startswith(("```", "~~~")):
        fence = _FENCE.match(line)
        return fence[1] if fence else ""
    if start.startswith("<"):
        for opening, closing in _RAW.items():
            if start.startswith(opening) and closing not in line.lower():
                return closing
    return ""


def _closes(line: str, closing: str) -> bool:
    if closing[0] in "`~":
        mark = line.strip()
        return mark.startswith(closing) and not mark.strip(closing[0])
    return closing in line.lower()


def _unclosed(title: str) -> str:
    """A heading's text without the number signs that may close it."""
    stripped = title.rstrip()
    bare = stripped.rstrip("#")
    return bare if not bare or bare[-1] in " \t" else stripped


def _plain(title: str) -> str:
    """As a reader sees it: no link targets, no emphasis, no anchors."""
    title = _LINK.sub(r"\1", title[: 4 * _HEADING_LENGTH])
    title = _EMPHASIS.sub(r"\2", _DECORATION.sub("", title))
    return " ".join(title.split())[:_HEADING_LENGTH].rstrip()
