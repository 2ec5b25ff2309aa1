"""Streamed text with its citations -> sentences, each with the citations that belong to it.

Pure. Where the text is cut does not depend on how it came. Knows nothing of sources.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .types import Citation

_WIDE = "\u3002\uff01\uff1f\uff61"
"""Stops of scripts that put no space between sentences."""
_STOP = re.compile(
    f"(?:[.!?\u2026]|[{_WIDE}]+)(?:[\"'\u201d\u2019\u00bb)\\]*_\uff09\u300d\u300f\u3011\u300b]|`(?!``))*|\n"
)
_SAID = re.compile(f"[{_WIDE}][^{_WIDE}]+$")
_GOES_ON = re.compile("[\u3040-\u309f\u3001\uff0c,]")
_FENCE = re.compile("`{3,}")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Z]|Dr|Mr|Mrs|Ms|Prof|St|Jr|Sr|Inc|Ltd|Co|Corp|No|Nr|Fig|Figs|Eq|Sec|Ch|Vol|Art|pp?|vs|cf|ca|"
    r"approx|est|al|etc|e\.g|i\.e|U\.S|U\.K|a\.m|p\.m|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.$"
)
_NUMBERING = re.compile(r"^\s*\d{1,3}\.$")
_NEW_LINE = re.compile(r"[-*+\u2022] |#{1,6} |\||```|\d{1,3}[.)] ")
_LOOK_AHEAD = 8
"""Characters after a break by which it is known what begins there."""
_EMPTY = re.compile(
    r"(?:here (?:is|are)|below|the following|based on (?:the|these)|i (?:hope|found|looked|can)|let me know|"
    r"in summary|to summari[sz]e|sure|certainly|of course|overall|thank|feel free|"
    r"if you (?:have|need|want)|note that the (?:sources|documents))\b",
    re.IGNORECASE,
)
_MARK = re.compile(r" ?\[\d{1,4}\]")
_CONTENT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]{3,}|\d+")
"""Words of three letters or more, numbers, and characters of scripts that write words without spaces."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of an answer with the space before it."""

    gap: str
    text: str
    """With its citation marks."""
    start: int
    """Offset of `text` in all that was read."""
    citations: tuple[Citation, ...]

    @property
    def bare(self) -> str:
        """Without the marks."""
        parts, done = [], 0
        for citation in self.citations:
            parts.append(self.text[done : citation.start - self.start].rstrip(" "))
            done = citation.end - self.start
        return " ".join("".join([*parts, self.text[done:]]).split())


class ClaimReader:
    """Takes what a `CitationReader` gives, in order, and gives back whole sentences.

    A sentence ends with a stop and the marks behind it, with a blank line, or where a list item, a heading or
    a row of a table begins. What stands between fences of code stays together, with the line before it.
    """

    def __init__(self) -> None:
        self._held = ""
        self._start = 0
        self._citations: list[Citation] = []
        self._begin()

    def _begin(self) -> None:
        # Of what is held: no sentence ends before `_searched`; `_fence` is open at `_fenced`. What is
        # known is not looked at again, since long code comes in many pieces.
        self._searched = self._fenced = self._fence = 0

    def feed(self, text: str, citation: Citation | None) -> Iterator[Sentence]:
        """The sentences that are certain to have ended by now."""
        self._held += text
        if citation is not None:
            self._citations.append(citation)
        yield from self._cut(whole=False)

    def finish(self) -> Iterator[Sentence]:
        """What is left when the text is over."""
        yield from self._cut(whole=True)
        if self._held.strip():
            yield self._taken(len(self._held.rstrip()))

    def _cut(self, *, whole: bool) -> Iterator[Sentence]:
        while (match := _STOP.search(self._held, self._searched)) is not None:
            if self._is_code(match.start()):
                self._searched = match.end()
                continue
            end = self._end(match.end() if match[0] != "\n" else match.start())
            behind = end + len(self._held[end:]) - len(self._held[end:].lstrip())
            if not whole and len(self._held) - behind < _LOOK_AHEAD:
                return
            if self._ends(match, end, behind):
                yield self._taken(end)
            else:
                self._searched = match.end()

    def _is_code(self, place: int) -> bool:
        """Whether a fence is open there; asked in order of the places."""
        for match in _FENCE.finditer(self._held, self._fenced, place):
            if not self._fence:
                self._fence = len(match[0])
            elif len(match[0]) >= self._fence:
                self._fence = 0
        self._fenced = place
        return self._fence > 0

    def _end(self, end: int) -> int:
        """Behind the marks that follow, whatever space is before them."""
        for citation in self._citations:
            start = citation.start - self._start
            if start >= end and not self._held[end:start].strip():
                end = citation.end - self._start
        return end

    def _ends(self, match: re.Match[str], end: int, behind: int) -> bool:
        before, gap, after = self._held[:end], self._held[end:behind], self._held[behind:]
        if not before.strip() or not after:
            return False
        if "\n" in gap and not (before.rstrip().endswith(":") and after.startswith("`")):
            begins = bool(_NEW_LINE.match(after)) or before.lstrip().startswith(("#", "|"))
            if begins or gap.count("\n") > 1:
                return True
        if match[0][0] in _WIDE:
            # What somebody says in brackets goes on with a particle or a comma, where the sentence goes on.
            return not (_SAID.search(match[0]) and _GOES_ON.match(after))
        if end == behind or after[0].islower() or (match[0] == "\n" and end == match.start()):
            return False
        stop = self._held[: match.start() + 1]
        return not (_ABBREVIATION.search(stop) or _NUMBERING.match(stop))

    def _taken(self, end: int) -> Sentence:
        text = self._held[:end]
        gap = text[: len(text) - len(text.lstrip())]
        start, stop = self._start + len(gap), self._start + end
        own = tuple(citation for citation in self._citations if citation.start < stop)
        self._citations = self._citations[len(own) :]
        self._held, self._start = self._held[end:], stop
        self._begin()
        return Sentence(gap, text[len(gap) :], start, own)


def states_something(text: str) -> bool:
    """Whether there is anything to check: not for headings, questions, and phrases that lead in or out."""
    bare = _MARK.sub("", text).strip()
    if bare.startswith(("#", "|--", "| --", "---")) or bare.endswith(("?", ":")):
        return False
    words = _CONTENT.findall(bare)
    if bare != text.strip():
        return bool(words)  # what cites a source states something, however short it is
    return len(words) >= (6 if _EMPTY.match(bare) else 2)


def split(text: str) -> list[str]:
    """The sentences of a text without citations."""
    reader = ClaimReader()
    return [sentence.text for part in (reader.feed(text, None), reader.finish()) for sentence in part]
