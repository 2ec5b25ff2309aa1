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
    """Pack passages best first into the budget; the best one always goes in.

    Chunks of one document that overlap or touch become one passage with exact offsets, in the place of the
    better one. What a passage holds already is dropped. When all have their place, the better ones take in
    their neighbours of the same section, as long as there is room.

    Args:
        candidates: Best first.
        token_budget: Most tokens of all passages together.
        count_tokens: The model's own way to count, or an estimate.
        neighbours: Chunks of the same document beside one, in any order.
        order: `best-first`, or `both-ends`: the best first, the second best last, the worst in the middle
            (Liu et al., 2023, "Lost in the middle"). Numbers follow the rank in either case.
    """
    passages = _distinct(_merged(candidates))
    packed: list[_Passage] = []
    tokens = 0
    for passage in passages:
        cost = count_tokens(passage.chunk.text)
        if packed and tokens + cost > token_budget:
            continue
        tokens += cost
        packed.append(passage)
    dropped = len(passages) - len(packed)
    packed, tokens = _grown(packed, tokens, token_budget, count_tokens, neighbours)
    sources = [passage.source(number) for number, passage in enumerate(packed, start=1)]
    if order == "both-ends":
        sources = sources[::2] + sources[1::2][::-1]
    return Context(sources=tuple(sources), tokens=tokens, dropped=dropped)


@dataclass(frozen=True, slots=True)
class _Passage:
    chunk: Chunk
    """All members in one, with the neighbours that it took in."""
    members: tuple[Candidate, ...]
    """In order of reading."""

    def source(self, number: int) -> Source:
        known = [m.scores.relevance for m in self.members if m.scores.relevance is not None]
        return Source(
            number=number,
            chunk=self.chunk,
            relevance=max(known, default=None),
            chunk_ids=tuple(member.chunk.id for member in self.members),
        )


def _grown(
    packed: list[_Passage],
    tokens: int,
    budget: int,
    count_tokens: Callable[[str], int],
    neighbours: Callable[[Chunk], Sequence[Chunk]],
) -> tuple[list[_Passage], int]:
    """Each passage with its neighbours if they fit; those that meet become one, in the place of the best."""
    place = 0
    while place < len(packed):
        passage = packed[place]
        wide = _widened(passage, neighbours)
        place += 1
        if wide is passage.chunk:
            continue
        parts = [one for one in packed if one is passage or _touch(wide, one.chunk)]
        whole = _joined(sorted([wide, *(one.chunk for one in parts)], key=lambda chunk: chunk.start))
        grown = tokens + count_tokens(whole.text) - sum(count_tokens(one.chunk.text) for one in parts)
        if grown > budget:
            continue
        best = packed.index(parts[0])
        members = sorted((m for one in parts for m in one.members), key=lambda member: member.chunk.start)
        # A citation leads to what was found, not to what stands around it.
        headed = replace(whole, title=parts[0].chunk.title, title_path=parts[0].chunk.title_path)
        packed = [one for one in packed if not any(one is part for part in parts)]
        packed.insert(best, _Passage(headed, tuple(members)))
        tokens, place = grown, best + 1
    return packed, tokens


def _widened(passage: _Passage, neighbours: Callable[[Chunk], Sequence[Chunk]]) -> Chunk:
    """The passage with all chunks beside its members that belong to the same section and join on."""
    own = {member.chunk.id for member in passage.members}
    around: dict[str, Chunk] = {}
    for member in passage.members:
        around |= {chunk.id: chunk for chunk in neighbours(member.chunk) if chunk.id not in own}
    wide = passage.chunk
    beside = [chunk for chunk in around.values() if _same_section(chunk, passage.chunk)]
    for chunk in sorted(beside, key=lambda chunk: chunk.start):
        if chunk.start >= wide.start and chunk.start - wide.end <= _LONGEST_GAP:
            wide = _joined([wide, chunk])
    for chunk in sorted(beside, key=lambda chunk: -chunk.end):
        if chunk.start < wide.start and wide.start - chunk.end <= _LONGEST_GAP:
            wide = _joined([chunk, wide])
    return wide


def _same_section(one: Chunk, other: Chunk) -> bool:
    """Whether one stands in the section of the other or below it; sections side by side are apart."""
    depth = min(len(one.title_path), len(other.title_path))
    return (one.document_id, one.generation, one.title_path[:depth], one.page_name) == (
        other.document_id,
        other.generation,
        other.title_path[:depth],
        other.page_name,
    )


def _distinct(passages: Sequence[_Passage]) -> list[_Passage]:
    """Without those whose words stand in a better one: copies of a document, and parts of one."""
    kept: list[tuple[str, _Passage]] = []
    for passage in passages:
        words = " ".join(passage.chunk.text.split())
        if not any(words in other for other, _ in kept):
            kept.append((words, passage))
    return [passage for _, passage in kept]


def _merged(candidates: Sequence[Candidate]) -> list[_Passage]:
    """Groups in order of their best member; members of a group in order of reading."""
    groups: list[list[Candidate]] = []
    for candidate in candidates:
        touching = [
            group for group in groups if any(_touch(candidate.chunk, member.chunk) for member in group)
        ]
        if not touching:
            groups.append([candidate])
            continue
        first, *others = touching
        first.append(candidate)
        for other in others:
            first.extend(other)
            groups.remove(other)
    ordered = [sorted(group, key=lambda member: member.chunk.start) for group in groups]
    return [_Passage(_joined([member.chunk for member in group]), tuple(group)) for group in ordered]


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
