"""Question -> ranking -> context -> events of an answer: the stages from the question on, joined.

Takes the parts of a Rag, which are made when they are first touched. Knows nothing of how they are made.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from . import answering, calibrating, context, likeness, loading, reranking, retrieval
from .errors import UsageError
from .types import Event, Ranking, Turn, Where

if TYPE_CHECKING:
    from .config import Settings
    from .index import Index
    from .protocols import Embedder, Generator, Reranker, SparseEncoder


class Parts(Protocol):
    """What answering a question takes; a `Rag` is one."""

    @property
    def settings(self) -> Settings:
        """All of them."""
        ...

    @property
    def index(self) -> Index:
        """Where passages are searched."""
        ...

    @property
    def embedder(self) -> Embedder:
        """For the dense leg."""
        ...

    @property
    def sparse_encoder(self) -> SparseEncoder:
        """For the sparse leg."""
        ...

    @property
    def reranker(self) -> Reranker | None:
        """None where first-stage order is wanted."""
        ...

    @property
    def generator(self) -> Generator:
        """Writes the answer."""
        ...

    @property
    def calibrated(self) -> calibrating.Calibrated | None:
        """What relevance means for this index, where that was found out."""
        ...


def rank(
    parts: Parts,
    query: str,
    *,
    top_k: int | None = None,
    where: Where | None,
    deadline: float | None = None,
    collapse: bool = True,
) -> Ranking:
    """Every candidate, reranked, those below the threshold too; see `Rag.search`.

    Args:
        parts: What works on the question.
        query: As it was asked.
        top_k: How many of the best matter; None for `reranking.top_k`, 0 for all of them.
        where: Keep only chunks whose metadata equals this.
        deadline: Seconds for reranking; None for `reranking.deadline`.
        collapse: Whether one passage may stand for its near-duplicates.
    """
    settings = parts.settings
    query = loading.clean_text(query).strip()
    if not query:
        raise UsageError("The question is empty", hint="Write a question, or a few words to look for")
    clock = _Clock()
    with parts.index.reading():
        candidates = retrieval.retrieve(
            query,
            embedder=parts.embedder,
            sparse_encoder=parts.sparse_encoder,
            store=parts.index,
            fetch_k=settings.retrieval.fetch_k,
            rrf_k=settings.retrieval.rrf_k,
            where=where,
        )
    if collapse and settings.retrieval.duplicates:
        candidates = likeness.collapse(candidates, threshold=settings.retrieval.duplicates)
    clock.lap("retrieve")
    reranker = parts.reranker
    if reranker is None:
        return Ranking(query=query, candidates=tuple(candidates), timings=clock.laps)
    seconds = settings.reranking.deadline if deadline is None else deadline
    wanted = settings.reranking.top_k if top_k is None else top_k
    reranked = reranking.rerank(
        query,
        candidates,
        reranker=reranker,
        depth=max(settings.reranking.depth, wanted),
        top_k=wanted or None,
        deadline=None if seconds is None else time.monotonic() + seconds,
        calibration=parts.calibrated.calibration if parts.calibrated else None,
    )
    clock.lap("rerank")
    return Ranking(
        query=query,
        candidates=reranked.candidates,
        degraded=reranked.degraded,
        notices=reranked.notices,
        timings=clock.laps,
    )


def answer(
    parts: Parts, question: str, *, history: Sequence[Turn] = (), where: Where | None = None
) -> Iterator[Event]:
    """The events of `Rag.stream`."""
    settings = parts.settings
    ranking = rank(parts, question, where=where)
    kept = reranking.relevant(
        ranking.candidates,
        threshold=_threshold(parts),
        top_k=settings.reranking.top_k,
    )
    assembled = context.assemble(kept, token_budget=settings.context.token_budget)
    yield from answering.stream_answer(
        ranking.query,
        assembled,
        generator=parts.generator,
        ranking=first(ranking, settings.reranking.top_k),
        history=history,
    )


def first(ranking: Ranking, count: int) -> Ranking:
    """The same with its best candidates alone."""
    return replace(ranking, candidates=ranking.candidates[:count])


def _threshold(parts: Parts) -> float:
    if parts.reranker is None:
        return 0.0
    return calibrating.resolve_threshold(parts.settings.reranking.threshold, parts.calibrated)


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage], self._last = now - self._last, now
