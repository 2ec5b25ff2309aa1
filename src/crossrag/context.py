"""Reranked candidates -> Context: neighbours merged, sources numbered from 1, token budget kept.

Knows nothing of models; whoever calls says how tokens are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from .types import Candidate, Chunk, Context, Source


def estimate_tokens(text: str) -> int:
    """UTF-8 bytes divided by four, rounded up: near the truth for English, generous for other scripts."""
    return -(-len(text.encode()) // 4)


def assemble(
    candidates: Sequence[Candidate],
    *,
    token_budget: int = 2_000,
    count_tokens: Callable[[str], int] = estimate_tokens,
) -> Context:
    """Pack passages best first into the budget; the best one always goes in.

    Chunks of one document that overlap or touch become one passage with exact offsets, in the place of the
    better one.
    """
    groups = _merged(candidates)
    sources: list[Source] = []
    tokens = 0
    for chunk, members in groups:
        cost = count_tokens(chunk.text)
        if sources and tokens + cost > token_budget:
            continue
        tokens += cost
        sources.append(
            Source(
                number=len(sources) + 1,
                chunk=chunk,
                relevance=max((member.scores.relevance or 0.0 for member in members), default=None)
                if any(member.scores.relevance is not None for member in members)
                else None,
                chunk_ids=tuple(member.chunk.id for member in members),
            )
        )
    return Context(sources=tuple(sources), tokens=tokens, dropped=len(groups) - len(sources))


def _merged(candidates: Sequence[Candidate]) -> list[tuple[Chunk, list[Candidate]]]:
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
    return [(_joined([member.chunk for member in group]), group) for group in ordered]


def _touch(one: Chunk, other: Chunk) -> bool:
    return one.document_id == other.document_id and one.start <= other.end and other.start <= one.end


def _joined(chunks: Sequence[Chunk]) -> Chunk:
    joined = chunks[0]
    for chunk in chunks[1:]:
        if chunk.end > joined.end:
            joined = replace(joined, text=joined.text + chunk.text[joined.end - chunk.start :], end=chunk.end)
    return joined
