"""Document -> chunks with exact character offsets: `document.text[chunk.start:chunk.end] == chunk.text`.

Splits on paragraph, line, sentence and word boundaries by `semantic-text-splitter`. Knows nothing of files.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import UUID, uuid5

from .errors import UsageError
from .types import Chunk, Document

if TYPE_CHECKING:
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

Unit = Literal["characters", "tokens"]

_NAMESPACE = UUID("5b1d9f0e-6c0b-5d7e-9c57-0f3f2a8f6f11")
_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
_ATX = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
_SETEXT = re.compile(r"^ {0,3}(=+|-+)[ \t]*$")


def split(
    document: Document,
    *,
    size: int = 800,
    overlap: int = 150,
    unit: Unit = "characters",
    tokenizer_file: Path | None = None,
) -> list[Chunk]:
    """Chunks in order of reading; none where the document has no text.

    Args:
        document: Its text must have been repaired at entry.
        size: Longest chunk, in `unit`.
        overlap: Units that neighbours share at most, whole sentences or words of them.
        unit: `characters`, or `tokens` of the tokenizer in `tokenizer_file`.
        tokenizer_file: A `tokenizer.json`.

    Raises:
        UsageError: The overlap is not smaller than the size, or tokens are asked for without a tokenizer.
    """
    splitter = _splitter(document, size, overlap, unit, tokenizer_file)
    headings = list(_headings(document.text)) if document.markdown else []
    pieces = splitter.chunk_indices(document.text)
    return [
        Chunk(
            id=str(uuid5(_NAMESPACE, f"{document.id}\0{position}\0{text}")),
            document_id=document.id,
            source=document.source,
            text=text,
            start=start,
            end=start + len(text),
            position=position,
            title=document.title,
            title_path=_path_at(headings, start),
            page=bisect_right(document.page_starts, start) or None,
            metadata=document.metadata,
        )
        for position, (start, text) in enumerate(pieces)
    ]


def fingerprint(size: int, overlap: int, unit: Unit) -> str:
    """Changes whenever the same document would be cut in other places."""
    return f"{unit}:{size}:{overlap}:v1"


def _splitter(
    document: Document,
    size: int,
    overlap: int,
    unit: Unit,
    tokenizer_file: Path | None,
) -> MarkdownSplitter | TextSplitter:
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    if not 0 <= overlap < size:
        raise UsageError(
            f"chunking.overlap is {overlap} and chunking.size {size}",
            hint="Choose an overlap from 0 to below the size",
        )
    kind = MarkdownSplitter if document.markdown else TextSplitter
    if unit == "characters":
        return kind(size, overlap=overlap)
    if tokenizer_file is None:
        raise UsageError("Chunks are counted in tokens and there is no tokenizer", hint="Give tokenizer_file")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return kind.from_huggingface_tokenizer(tokenizer, size, overlap=overlap)


def _path_at(headings: list[tuple[int, tuple[str, ...]]], start: int) -> tuple[str, ...]:
    index = bisect_right(headings, start, key=lambda heading: heading[0])
    return headings[index - 1][1] if index else ()


def _headings(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Offset of each heading and the path that holds from there on; fenced code is passed over."""
    path: list[tuple[int, str]] = []
    fence, before, offset = "", "", 0
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1][:3]
        elif not fence and (found := _heading(line, before)):
            level, title, back = found
            path = [*((depth, name) for depth, name in path if depth < level), (level, title)]
            yield offset - back, tuple(name for _, name in path)
        before = "" if fence or mark else line
        offset += len(line)


def _heading(line: str, before: str) -> tuple[int, str, int] | None:
    """Level, title and how far before this line the heading began."""
    if atx := _ATX.match(line.rstrip("\n")):
        return len(atx[1]), atx[2], 0
    title = before.strip()
    if (
        (underline := _SETEXT.match(line.rstrip("\n")))
        and title
        and not title.startswith(("#", "-", "*", ">", "|"))
    ):
        return 1 if underline[1].startswith("=") else 2, title, len(before)
    return None
