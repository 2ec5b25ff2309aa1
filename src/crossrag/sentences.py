"""Text -> sentences with exact offsets; headings, list items and table rows stand alone.

Knows nothing of documents, questions or models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"^\s{0,3}(```|~~~)")
_ITEM = re.compile(r"^\s*(?:[-*+•]|\d{1,3}[.)])\s+")
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s+")
_ROW = re.compile(r"^\s*\|")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A stretch of a text without surrounding space: `text[start:end]`."""

    start: int
    end: int
    heading: bool = False


def split_sentences(text: str) -> list[Sentence]:
    """Sentences of a text in order of reading, by sentencex's rules within each block of prose."""
    return [sentence for start, end, kind in _blocks(text) for sentence in _within(text, start, end, kind)]


def _within(text: str, start: int, end: int, kind: str) -> Iterator[Sentence]:
    if kind == "heading":
        yield _trimmed(text, start + len(_HEADING.match(text[start:end])[0]), end, heading=True)  # type: ignore[index]
    elif kind == "code":
        yield _trimmed(text, start, end)
    else:
        from sentencex import get_sentence_boundaries

        if kind == "item" and (marker := _ITEM.match(text[start:end])):
            start += marker.end()
        for boundary in get_sentence_boundaries("en", text[start:end]):
            sentence = _trimmed(text, start + boundary["start_index"], start + boundary["end_index"])
            if sentence.start < sentence.end:
                yield sentence


def _trimmed(text: str, start: int, end: int, *, heading: bool = False) -> Sentence:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return Sentence(start, end, heading)


def _blocks(text: str) -> Iterator[tuple[int, int, str]]:
    """Runs of lines that belong together: a paragraph, a heading, a list item, a table row, fenced code."""
    start, kind, offset = 0, "", 0
    for line in text.splitlines(keepends=True):
        here = _line_kind(line, within=kind)
        continues = (here == kind and kind in {"prose", "code"}) or (kind == "item" and here == "prose")
        if not continues:
            if kind:
                yield start, offset, kind
            start, kind = offset, here
        offset += len(line)
        if kind == "code" and here == "code" and offset - len(line) > start and _FENCE.match(line):
            yield start, offset, kind
            kind = ""
    if kind:
        yield start, offset, kind


def _line_kind(line: str, *, within: str) -> str:
    if within == "code" or _FENCE.match(line):
        return "code"
    if not line.strip():
        return ""
    for kind, pattern in (("heading", _HEADING), ("item", _ITEM), ("row", _ROW)):
        if pattern.match(line):
            return kind
    return "prose"
