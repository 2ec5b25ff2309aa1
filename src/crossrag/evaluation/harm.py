"""Where reranking moved a relevant passage out of the first ten, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .dataset import order

if TYPE_CHECKING:
    from .dataset import Dataset
    from .records import Record, Seen
    from .trec import Qrels

FIRST = 10
_LONG = 3_000
"""Characters from which a passage is read in windows, or cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Harmed:
    """A relevant passage that left the first ten."""

    question: str
    """Its id."""
    name: str
    where: str
    grade: int
    before: int
    """Rank after fusion."""
    after: int
    relevance: float | None
    tenth: float | None
    """Relevance of what is tenth now."""
    truncated: bool
    characters: int
    reasons: tuple[str, ...]


def harmed(dataset: Dataset, records: Sequence[Record], truth: Qrels) -> Iterator[Harmed]:
    """Every such passage, question by question, best fused rank first."""
    for record in records:
        grades = truth.get(record.id, {})
        fused, reranked = record.ranked("fused"), record.ranked("reranked")
        now = {name: rank for rank, name in enumerate(reranked, start=1)}
        for before, name in enumerate(fused[:FIRST], start=1):
            if grades.get(name, 0) >= dataset.relevant_from and now[name] > FIRST:
                yield _harmed(record, name, grades[name], before, now[name])


def _harmed(record: Record, name: str, grade: int, before: int, after: int) -> Harmed:
    ordered = record.in_order("reranked")
    seen = next(seen for seen in ordered if name in seen.names)
    tenth = _tenth(ordered)
    return Harmed(
        question=record.id,
        name=name,
        where=seen.where,
        grade=grade,
        before=before,
        after=after,
        relevance=seen.relevance,
        tenth=tenth.relevance if tenth else None,
        truncated=seen.truncated,
        characters=seen.characters,
        reasons=tuple(_reasons(seen, tenth)),
    )


def _tenth(ordered: Sequence[Seen]) -> Seen | None:
    names: list[tuple[str, ...]] = []
    for seen in ordered:
        names.append(seen.names)
        if len(order(names)) >= FIRST:
            return seen
    return None


def _reasons(seen: Seen, tenth: Seen | None) -> Iterator[str]:
    if seen.relevance is None:
        yield "not read: beyond reranking.depth, out of time, or without a finite score"
        return
    if tenth is not None and tenth.relevance is not None:
        gap = tenth.relevance - seen.relevance
        near = "nearly the same score as" if gap < 0.02 else "a lower score than"
        yield f"score: {near} the tenth ({seen.relevance:.3f} against {tenth.relevance:.3f})"
    if seen.truncated:
        yield "truncation: only its beginning was read"
    if seen.characters > _LONG:
        yield f"length: {seen.characters} characters"
