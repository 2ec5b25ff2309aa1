"""`[2]` in generated text -> Citation with offsets, while the text streams; unknown numbers are removed.

Pure. Knows nothing of who wrote the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .types import WORD_JOINER, Citation, Context, Source

_RANGE = r"[0-9]+(?: ?[-\u2010-\u2015] ?[0-9]+)?"
_MARK = rf" ?\[ ?{_RANGE}(?: ?[,;] ?{_RANGE})* ?\]"
_TOKEN = re.compile(rf"(?P<ticks>`+)|(?P<mark>{_MARK})")
_NUMBERS = re.compile(_RANGE)
_NOT_A_DIGIT = re.compile(r"[^0-9]+")
_OF_A_MARK = "[0123456789,;-\u2010\u2011\u2012\u2013\u2014\u2015 "
"""What stands in a mark before its last bracket."""
_FENCE = re.compile(f"`{{3,}}(?![`{WORD_JOINER}])")
_FENCE_LENGTH = 3
_LONGEST_NUMBER = 9
"""Digits; no context has as many sources."""
_LONGEST_MARK, _LONGEST_CODE = 400, 2_000
"""Characters that are held back at most. What is longer is text."""
_STEP = re.compile(f"[^\\[\\]`\n ,;0-9\u2010-\u2015{WORD_JOINER}-]+|.", re.DOTALL)
"""Text is read by what may decide something: so nothing depends on how it came, or on what is too long."""


class CitationReader:
    """Takes text in pieces, gives back clean text and the citations in it.

    `[1, 2]`, `[1-2]` and `[ 1 ]` are citations too, and come as `[1][2]` and `[1]`. A number that no source
    has is removed with the space before it, and counted; so is a range of which one is missing. A range from
    0 or backwards is none, and stays. Code, between backticks on a line or between fences, stays as it is.
    Backticks with `WORD_JOINER` behind them belong to a document and begin none. Little is held back: a mark
    of more than 400 characters, or inline code of more than 2000, is text.
    """

    def __init__(self, context: Context) -> None:
        self._sources = {source.number: source for source in context.sources}
        self._held = ""
        self._length = 0
        self._fence = 0
        self.unknown = 0
        """Citations removed because no source has their number."""

    def feed(self, piece: str) -> Iterator[tuple[str, Citation | None]]:
        """Text that is certain by now, with the citation where the text is one."""
        plain = ""
        for step in _STEP.findall(piece):
            self._held += step
            for text, citation in self._read(whole=False):
                if citation is None:
                    plain += text
                    continue
                if plain:
                    yield plain, None
                plain = ""
                yield text, citation
        if plain:
            yield plain, None

    def finish(self) -> Iterator[tuple[str, Citation | None]]:
        """What was held back in case it became a citation."""
        yield from self._read(whole=True)

    def _read(self, *, whole: bool) -> Iterator[tuple[str, Citation | None]]:
        done = 0
        while True:
            if self._fence:
                match = _FENCE.search(self._held, done)
                if match is None or (match.end() == len(self._held) and not whole):
                    yield from self._upto(done + len(self._held[done:].rstrip("`")))
                    break
                done = match.end()
                self._fence = 0 if len(match[0]) >= self._fence else self._fence
                continue
            match = _TOKEN.search(self._held, done)
            if match is None:
                yield from self._upto(len(self._held) if whole else self._begun(done))
                break
            if match["ticks"]:
                end = self._code_end(match, whole=whole)
                if end is None:
                    yield from self._upto(match.start())
                    break
                done = end
                continue
            known = self._numbers(match[0])
            if known is None:
                done = match.end()
            elif known:
                yield from self._upto(match.start())
                yield from self._cited(match[0], known)
                self._held, done = self._held[len(match[0]) :], 0
            else:
                # As if it had never been written: what it parted may be a mark now.
                before = self._held[done : match.start()]
                self._held = self._held[: match.start()] + self._held[match.end() :]
                done += len(before.rstrip(_OF_A_MARK))
        if whole:
            yield from self._upto(len(self._held))

    def _code_end(self, ticks: re.Match[str], *, whole: bool) -> int | None:
        """Where to read on behind backticks; None where that is not known yet."""
        length, end = len(ticks[0]), ticks.end()
        if end == len(self._held) and not whole:
            return None
        if self._held.startswith(WORD_JOINER, end):
            return end
        if length >= _FENCE_LENGTH:
            self._fence = length
            return end
        line = self._held.find("\n", end)
        for other in re.finditer("`+", self._held[end : None if line < 0 else line]):
            closed = end + other.end()
            if closed == len(self._held) and not whole:
                return None
            if len(other[0]) == length and not self._held.startswith(WORD_JOINER, closed):
                return closed
        # A backtick that nothing closes on its line is none.
        known = whole or line >= 0 or len(self._held) - end > _LONGEST_CODE
        return end if known else None

    def _begun(self, done: int) -> int:
        """Where a mark begins that may go on with the next piece, and the space before it."""
        text = self._held[done:]
        start = text.find("[", max(len(text.rstrip(_OF_A_MARK)), len(text) - _LONGEST_MARK))
        begun = len((text if start < 0 else text[:start]).rstrip(" "))
        return done + max(begun, len(text) - _LONGEST_MARK)

    def _numbers(self, mark: str) -> list[int] | None:
        """The sources that it names, without those that are not there; None where it names none at all."""
        found: list[int] = []
        unknown = 0
        for part in _NUMBERS.findall(mark):
            first, *rest = (_number(digits) for digits in _NOT_A_DIGIT.split(part))
            last = rest[0] if rest else first
            if rest and (first == 0 or last < first):
                return None
            if last - first < len(self._sources) and all(n in self._sources for n in range(first, last + 1)):
                found += range(first, last + 1)
            else:
                unknown += 1
        self.unknown += unknown
        return list(dict.fromkeys(found))

    def _cited(self, mark: str, numbers: list[int]) -> Iterator[tuple[str, Citation | None]]:
        if mark.startswith(" "):
            yield from self._plain(" ")
        for number in numbers:
            yield self._citation(self._sources[number])

    def _upto(self, end: int) -> Iterator[tuple[str, Citation | None]]:
        text, self._held = self._held[:end], self._held[end:]
        yield from self._plain(text)

    def _plain(self, text: str) -> Iterator[tuple[str, Citation | None]]:
        if text := text.replace(WORD_JOINER, ""):
            self._length += len(text)
            yield text, None

    def _citation(self, source: Source) -> tuple[str, Citation]:
        mark = f"[{source.number}]"
        start = self._length
        self._length += len(mark)
        return mark, Citation(
            number=source.number,
            start=start,
            end=self._length,
            source=source.chunk.location,
            document_id=source.chunk.document_id,
            passage_start=source.chunk.start,
            passage_end=source.chunk.end,
        )


def _number(digits: str) -> int:
    return int(digits) if len(digits) <= _LONGEST_NUMBER else 10**_LONGEST_NUMBER
