"""`[2]` in generated text -> Citation with offsets, while the text streams; unknown numbers are removed.

Pure. Knows nothing of who wrote the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .types import WORD_JOINER, Citation, Context, Source

_CITATION = re.compile(r" ?\[(\d{1,4}(?: ?, ?\d{1,4}){0,9})\]")
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
