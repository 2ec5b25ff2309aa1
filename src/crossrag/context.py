"""Reranked candidates -> Context: neighbours merged, sources numbered from 1, token budget kept.

Knows nothing of models and stores; whoever calls says how tokens are counted and where neighbours are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from .types import Candidate, Chunk, Context, Source

Order = Literal["best-first", "both-ends"]
_LONGEST_GAP = 8
"""Characters of white space that may lie between neighbours."""


def estimate_tokens(text: str) -> int:
    """UTF-8 bytes divided by four, rounded up: near the truth for English, generous for other scripts."""
    return -(-len(text.encode()) // 4)


def no_neighbours(chunk: Chunk) -> Sequence[Chunk]:  # noqa: ARG001 - a place where others ask a store
    """For contexts of what was found alone."""
    return ()


def assemble(
    candidates: Sequence[Candidate],
    *,
    token_budget: int = 2_000,
    count_tokens: Callable[[str], int] = estimate_tokens,
    neighbours: Callable[[Chunk], Sequence[Chunk]] = no_neighbours,
    order: Order = "best-first",
) -> Context:
    """Pack what was found best first into the budget; the best one always goes in.

    Chunks of one document that overlap or touch become one passage with exact offsets, in the place of the
    better one. What a passage holds already is dropped. When all have their place, the better ones take in
    their neighbours of the same section, the nearest first, as many as there is room for.

    Args:
        candidates: Best first.
        token_budget: Most tokens of all passages together.
        count_tokens: The model's own way to count, or an estimate.
        neighbours: Chunks of the same document beside one, in any order.
        order: `best-first`, or `both-ends`: the best first, the second best last, the worst in the middle
            (Liu et al., 2023, "Lost in the middle"). Numbers follow the rank in either case.
    """
    packing = _Packing(token_budget, count_tokens, neighbours)
    for candidate in candidates:
        packing.add(candidate)
    packing.grow()
    sources = [passage.source(number) for number, passage in enumerate(packing.passages, start=1)]
    if order == "both-ends":
        sources = sources[::2] + sources[1::2][::-1]
    return Context(sources=tuple(sources), tokens=packing.tokens, dropped=packing.dropped)


@dataclass(frozen=True, slots=True, eq=False)
class _Passage:
    chunk: Chunk
    """All members in one, with the neighbours that it took in."""
    members: tuple[Candidate, ...]
    """In order of reading."""
    positions: tuple[int, int]
    """Of the first and the last chunk in it."""
    tokens: int

    @property
    def words(self) -> str:
        return " ".join(self.chunk.text.split())

    def source(self, number: int) -> Source:
        known = [m.scores.relevance for m in self.members if m.scores.relevance is not None]
        return Source(
            number=number,
            chunk=self.chunk,
            relevance=max(known, default=None),
            chunk_ids=tuple(member.chunk.id for member in self.members),
        )


class _Packing:
    """Passages in order of their best member, none touching another, within a budget."""

    def __init__(
        self,
        budget: int,
        count_tokens: Callable[[str], int],
        neighbours: Callable[[Chunk], Sequence[Chunk]],
    ) -> None:
        self._budget = budget
        self._count_tokens = count_tokens
        self._neighbours = neighbours
        self._around: dict[str, Sequence[Chunk]] = {}
        """Neighbours, by the id of the member that they are beside."""
        self._refused: set[str] = set()
        """Ids of neighbours for which there was no room."""
        self.passages: list[_Passage] = []
        self.tokens = 0
        self.dropped = 0

    def add(self, candidate: Candidate) -> None:
        """One more, no better than those before: into the passages that it touches, or one of its own."""
        chunk = candidate.chunk
        touched = [passage for passage in self.passages if _touch(chunk, passage.chunk)]
        words = " ".join(chunk.text.split())
        if not touched and any(words in passage.words for passage in self.passages):
            return
        if self._taken(chunk, touched, (candidate,)) is None:
            self.dropped += 1

    def grow(self) -> None:
        """The best passage first, each with its neighbours one by one."""
        place = 0
        while place < len(self.passages):
            passage = self.passages[place]
            beside = self._next_neighbour(passage) if self.tokens < self._budget else None
            if beside is None:
                place += 1
                continue
            pair = sorted([passage.chunk, beside], key=lambda chunk: chunk.start)
            wide = replace(_joined(pair), position=beside.position)
            touched = [one for one in self.passages if one is passage or _touch(wide, one.chunk)]
            taken = self._taken(wide, touched, ())
            if taken is None:
                self._refused.add(beside.id)
            else:
                place = min(place, self.passages.index(taken))

    def _taken(
        self, chunk: Chunk, touched: Sequence[_Passage], found: Sequence[Candidate]
    ) -> _Passage | None:
        """One passage made of all, in the place of the best of them; None where there is no room for it."""
        whole = _joined(sorted([chunk, *(one.chunk for one in touched)], key=lambda one: one.start))
        tokens = self._count_tokens(whole.text)
        total = self.tokens + tokens - sum(one.tokens for one in touched)
        if self.passages and total > max(self._budget, self.tokens):
            return None
        members = [*(member for one in touched for member in one.members), *found]
        places = [chunk.position, *(place for one in touched for place in one.positions)]
        # A citation leads to what was found, not to what stands around it.
        best = touched[0].chunk if touched else chunk
        taken = _Passage(
            replace(
                whole,
                title=best.title,
                title_path=best.title_path,
                page=best.page,
                page_name=best.page_name,
            ),
            tuple(sorted(members, key=lambda member: member.chunk.start)),
            (min(places), max(places)),
            tokens,
        )
        at = self.passages.index(touched[0]) if touched else len(self.passages)
        self.passages = [one for one in self.passages if one not in touched]
        self.passages.insert(at, taken)
        self.tokens = total
        return taken

    def _next_neighbour(self, passage: _Passage) -> Chunk | None:
        """The nearest one that joins on; of two as near, the one behind."""
        for member in passage.members:
            if member.chunk.id not in self._around:
                self._around[member.chunk.id] = self._neighbours(member.chunk)
        places = [member.chunk.position for member in passage.members]
        beside = [
            chunk
            for member in passage.members
            for chunk in self._around[member.chunk.id]
            if chunk.id not in self._refused and _joins_on(chunk, passage)
        ]
        return min(
            beside,
            key=lambda chunk: (min(abs(chunk.position - place) for place in places), -chunk.position),
            default=None,
        )


def _joins_on(chunk: Chunk, passage: _Passage) -> bool:
    """Whether a chunk is of the same section, and only white space lies between."""
    whole = passage.chunk
    if not _same_section(chunk, whole):
        return False
    first, last = passage.positions
    if chunk.start < whole.start:
        return chunk.position == first - 1 and whole.start - chunk.end <= _LONGEST_GAP
    return chunk.end > whole.end and chunk.position == last + 1 and chunk.start - whole.end <= _LONGEST_GAP


def _same_section(one: Chunk, other: Chunk) -> bool:
    """Whether one stands in the section of the other or below it; sections side by side are apart."""
    depth = min(len(one.title_path), len(other.title_path))
    return (one.document_id, one.generation, one.title_path[:depth], one.page_name) == (
        other.document_id,
        other.generation,
        other.title_path[:depth],
        other.page_name,
    )


def _touch(one: Chunk, other: Chunk) -> bool:
    return one.document_id == other.document_id and one.start <= other.end and other.start <= one.end


def _joined(chunks: Sequence[Chunk]) -> Chunk:
    """One passage of chunks in order of reading.

    What lies between neighbours is white space that the cutting left out: line breaks stand for it, so that
    every offset behind them is exact.
    """
    joined = chunks[0]
    for chunk in chunks[1:]:
        if chunk.end > joined.end:
            gap = "\n" * max(0, chunk.start - joined.end)
            text = joined.text + gap + chunk.text[max(0, joined.end - chunk.start) :]
            joined = replace(joined, text=text, end=chunk.end)
    return joined
