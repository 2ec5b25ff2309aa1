"""Candidates -> the same candidates in the reranker's order, then the few that are relevant.

Asks any Reranker; falls back to the first-stage order when it fails, and says so. Knows nothing of models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .errors import ModelError, reason
from .timed import within

if TYPE_CHECKING:
    from .calibration import Calibration
    from .protocols import Reranker
    from .types import Candidate, Chunk, Relevance


@dataclass(frozen=True, slots=True)
class Reranked:
    """Candidates in their new order and what went wrong on the way."""

    candidates: tuple[Candidate, ...]
    degraded: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def rerank(  # noqa: PLR0913 - what the order depends on
    query: str,
    candidates: Sequence[Candidate],
    *,
    reranker: Reranker,
    depth: int = 50,
    top_k: int | None = None,
    deadline: float | None = None,
    until: float | None = None,
    calibration: Calibration | None = None,
) -> Reranked:
    """Let the reranker read the first `depth` candidates and order them by what it says.

    A candidate without a finite score, whether not read or answered with NaN, keeps its first-stage order
    behind all that have one.

    Args:
        query: The question.
        candidates: In first-stage order.
        reranker: Asked once.
        depth: How many it reads.
        top_k: How many of the best matter to the caller.
        deadline: `time.monotonic()` value after which it starts no further batch.
        until: `time.monotonic()` value at which it is no longer waited for, whatever it does.
        calibration: Makes relevance out of logits in place of the reranker's own.
    """
    read = list(candidates[:depth])
    try:
        said = within(
            lambda: reranker.score(
                query,
                [candidate.chunk.described for candidate in read],
                first_stage=[candidate.scores for candidate in read],
                top_k=top_k,
                deadline=deadline,
            ),
            until,
            of=reranker.fingerprint,
        )
        if not len(said.relevance) == len(said.logit) == len(read):
            raise ModelError(f"{len(said.relevance)} scores for {len(read)} passages")
    except Exception as error:  # noqa: BLE001 - anybody's reranker raises what it likes
        return Reranked(
            tuple(candidates), ("rerank",), (f"Passages are in first-stage order: {reason(error)}",)
        )
    if calibration is not None:
        said = replace(said, relevance=tuple(map(calibration.probability, said.logit)))
    scored = [_with_relevance(candidate, said, position) for position, candidate in enumerate(read)]
    ordered = sorted(
        (candidate for candidate in scored if candidate.scores.relevance is not None),
        key=lambda candidate: (-(candidate.scores.logit or 0.0), candidate.scores.fused_rank or 0),
    )
    ranked = [
        replace(candidate, scores=replace(candidate.scores, rerank_rank=rank))
        for rank, candidate in enumerate(ordered, start=1)
    ]
    unscored = [candidate for candidate in scored if candidate.scores.relevance is None]
    degraded = ("rerank",) if any(said.unread) or said.hurried else ()
    return Reranked((*ranked, *unscored, *candidates[depth:]), degraded, tuple(_notices(said)))


def relevant(candidates: Sequence[Candidate], *, threshold: float, top_k: int) -> tuple[Candidate, ...]:
    """The first `top_k` candidates whose relevance reaches the threshold.

    When no candidate was scored at all, the reranker was off or failed: then the first `top_k` as they stand.
    """
    if all(candidate.scores.relevance is None for candidate in candidates):
        return tuple(candidates[:top_k])
    kept = [candidate for candidate in candidates if (candidate.scores.relevance or 0.0) >= threshold]
    return tuple(kept[:top_k])


def _with_relevance(candidate: Candidate, said: Relevance, position: int) -> Candidate:
    relevance, logit = said.relevance[position], said.logit[position]
    if not (math.isfinite(relevance) and math.isfinite(logit)):
        return candidate
    scores = replace(candidate.scores, relevance=relevance, logit=logit)
    return replace(
        candidate,
        scores=scores,
        truncated=said.truncated[position],
        window=_window(candidate.chunk, said, position),
    )


def _window(chunk: Chunk, said: Relevance, position: int) -> tuple[int, int] | None:
    """From offsets in what was read, headings first, to offsets in the text."""
    window = said.windows[position] if said.windows else None
    if window is None:
        return None
    before = len(chunk.described) - len(chunk.text)
    return max(0, window[0] - before), max(0, window[1] - before)


def _notices(said: Relevance) -> list[str]:
    total = len(said.relevance)
    unread = sum(said.unread)
    broken = sum(not math.isfinite(value) for value in said.relevance) - unread
    counts = (
        (said.query_truncated, "The question was cut to the reranker's length"),
        (sum(said.truncated), f"{sum(said.truncated)} of {total} passages were cut to the reranker's length"),
        (unread, f"Time was up: {unread} of {total} passages were not read and keep their first-stage order"),
        (
            said.hurried and not unread,
            "Time was up: some passages were read with fewer layers and their scores are estimates",
        ),
        (broken, f"{broken} of {total} passages got no finite score and rank last"),
    )
    return [text for happened, text in counts if happened]
