"""`[2]` in generated text -> Citation with offsets, while it streams; words of a claim -> where they stand.

Pure. Knows nothing of who wrote the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .types import WORD_JOINER, Citation, Context, Source

_CITATION = re.compile(r" ?\[(\d{1,4}(?: ?, ?\d{1,4}){0,9})\]")
_WORDS = re.compile(r"[^\W_]+")
_MAYBE_BEGUN = re.compile(r"(?: ?\[[\d, ]{0,60}| )$")


class CitationReader:
    """Takes text in pieces, gives back clean text and the citations in it.

    `[1, 2]` becomes `[1][2]`; a number that no source has is removed with the space before it, and counted.
    """

    def __init__(self, context: Context) -> None:
        self._sources = {source.number: source for source in context.sources}
        self._held = ""
        self._length = 0
        self.unknown = 0
        """Citations removed because no source has their number."""

    def feed(self, piece: str) -> Iterator[tuple[str, Citation | None]]:
        """Text that is certain by now, with the citation where the text is one."""
        text = self._held + piece
        begun = _MAYBE_BEGUN.search(text)
        self._held = text[begun.start() :] if begun else ""
        yield from self._read(text[: begun.start()] if begun else text)

    def finish(self) -> Iterator[tuple[str, Citation | None]]:
        """What was held back in case it became a citation."""
        text, self._held = self._held, ""
        yield from self._read(text)

    def _read(self, text: str) -> Iterator[tuple[str, Citation | None]]:
        done = 0
        for match in _CITATION.finditer(text):
            yield from self._plain(text[done : match.start()])
            done = match.end()
            numbers = [int(number) for number in match[1].split(",")]
            known = list(dict.fromkeys(number for number in numbers if number in self._sources))
            self.unknown += sum(number not in self._sources for number in numbers)
            if known and match[0].startswith(" "):
                yield from self._plain(" ")
            for number in known:
                yield self._cited(self._sources[number])
        yield from self._plain(text[done:])

    def _plain(self, text: str) -> Iterator[tuple[str, Citation | None]]:
        if text := text.replace(WORD_JOINER, ""):
            self._length += len(text)
            yield text, None

    def _cited(self, source: Source) -> tuple[str, Citation]:
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


def find_words(words: str, text: str) -> tuple[int, int] | None:
    """Where the words stand one after the other in a text, whatever the case, space and marks between them.

    Returns offsets in the text, from the first letter of the first word to the last of the last; None where
    they do not stand there, and for no words at all.
    """
    wanted = [match[0].casefold() for match in _WORDS.finditer(words)]
    there = list(_WORDS.finditer(text))
    found = [match[0].casefold() for match in there]
    for start in range(len(found) - len(wanted) + 1) if wanted else ():
        if found[start] == wanted[0] and found[start : start + len(wanted)] == wanted:
            return there[start].start(), there[start + len(wanted) - 1].end()
    return None


def find_run(words: str, text: str, *, least: int) -> tuple[int, int] | None:
    """The longest run of words that both have, as offsets in the text; the first of several.

    Args:
        words: A claim.
        text: A passage.
        least: Fewest words of a run.
    """
    places: dict[str, list[int]] = {}
    for number, match in enumerate(_WORDS.finditer(words)):
        places.setdefault(match[0].casefold(), []).append(number)
    there = list(_WORDS.finditer(text))
    best = last = 0
    # How long the run is that ends with the word before, by the number of the claim's word that it ends with.
    before: dict[int, int] = {}
    for position, match in enumerate(there):
        before = {number: before.get(number - 1, 0) + 1 for number in places.get(match[0].casefold(), ())}
        longest = max(before.values(), default=0)
        if longest > best:
            best, last = longest, position
    return (there[last - best + 1].start(), there[last].end()) if best >= max(1, least) else None
