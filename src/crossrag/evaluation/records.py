"""One question's search as it is kept: every candidate with the rank and score of every stage, and its names.

Everything that is measured comes from records, so that a run can be cut short, gone on with, and measured
again without searching. Times are kept apart: nothing else in a record differs between two runs.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .dataset import order

STAGES = ("BM25", "dense", "fused", "reranked", "kept")
"""`kept`: what is left after the threshold, at most `top_k`."""
_DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A candidate. Ranks count from 1; None means that the stage did not rank it."""

    names: tuple[str, ...]
    """Places that it holds, or itself."""
    grade: int | None
    """What people said of it; None where nobody did."""
    bm25: int | None
    dense: int | None
    fused: int | None
    reranked: int | None
    logit: float | None
    relevance: float | None
    truncated: bool
    characters: int
    where: str
    """For people: file and page or heading."""
    text: str = ""
    """Its beginning, where somebody may want to see it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What was said to a question, for judges and for people."""

    text: str
    status: str
    claims: tuple[tuple[str, tuple[int, ...]], ...]
    """Sentences without their marks, and the numbers of the sources that each cites."""
    sources: tuple[str, ...]
    """Texts of the context, in order of their numbers from 1."""
    grades: tuple[int | None, ...] = ()
    """Of each source, what people said of it."""
    degraded: tuple[str, ...] = ()
    tokens: tuple[int, int] | None = None
    """Of the sources that a generator was given, and of the answer, by the counter of `context.tokenizer`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A question as it was searched."""

    id: str
    seen: tuple[Seen, ...]
    """Every candidate, in the order of the last stage."""
    degraded: tuple[str, ...] = ()
    answered: Answered | None = None
    failed: str = ""
    """Why there is no answer, though one was asked for."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time per stage."""

    def ranked(self, stage: str, *, threshold: float = 0.0, top_k: int = 10) -> list[str]:
        """Names in the order of a stage, each once."""
        if stage == "kept":
            return order(seen.names for seen in self.kept(threshold, top_k))
        return order(seen.names for seen in self.in_order(stage))

    def in_order(self, stage: str, *, depth: int | None = None) -> list[Seen]:
        """Candidates in the order of a stage.

        Args:
            stage: `BM25`, `dense`, `fused` or `reranked`.
            depth: As if the reranker had read so many. All but exact: a score does not depend on what else is
                read, but who leaves early, with a forecast for a score, does.
        """
        if stage != "reranked":
            rank = {"BM25": "bm25", "dense": "dense", "fused": "fused"}[stage]
            return sorted(
                (s for s in self.seen if getattr(s, rank) is not None), key=lambda s: getattr(s, rank)
            )
        first = self.in_order("fused")
        return reread(first, len(first) if depth is None else depth)

    def kept(self, threshold: float, top_k: int) -> list[Seen]:
        """What goes into the context."""
        if all(seen.relevance is None for seen in self.seen):
            return list(self.in_order("fused")[:top_k])
        return [s for s in self.in_order("reranked") if (s.relevance or 0.0) >= threshold][:top_k]

    def packed(self) -> bytes:
        """As bytes for a cache."""
        return zlib.compress(json.dumps(asdict(self), ensure_ascii=False).encode("utf-8", "surrogatepass"))

    @classmethod
    def unpacked(cls, data: bytes) -> Record:
        """The inverse of `packed`."""
        row: dict[str, Any] = json.loads(zlib.decompress(data).decode("utf-8", "surrogatepass"))
        answered = row.pop("answered")
        return cls(
            seen=tuple(Seen(**{**seen, "names": tuple(seen["names"])}) for seen in row.pop("seen")),
            degraded=tuple(row.pop("degraded")),
            answered=None if answered is None else _answered(answered),
            **row,
        )


def reread(first: Sequence[Seen], depth: int) -> list[Seen]:
    """The first `depth` in the reranker's order, then what it did not read."""
    read = [seen for seen in first[:depth] if seen.reranked is not None]
    unread = [seen for place, seen in enumerate(first) if place >= depth or seen.reranked is None]
    return sorted(read, key=lambda seen: seen.reranked or 0) + unread


def rounded(value: float | None) -> float | None:
    """Six decimals: what is behind them differs between machines."""
    return None if value is None else round(value, _DIGITS)


def _answered(row: dict[str, Any]) -> Answered:
    return Answered(
        text=row["text"],
        status=row["status"],
        claims=tuple((text, tuple(numbers)) for text, numbers in row["claims"]),
        sources=tuple(row["sources"]),
        grades=tuple(row["grades"]),
        degraded=tuple(row["degraded"]),
        tokens=tuple(row["tokens"]) if row.get("tokens") else None,
    )
