"""Question -> Ranking: the stages from the question to what was found and read, joined.

Takes the parts of a Rag, which are made when they are first touched. Knows nothing of answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict

from . import calibrating, conversation, diversity, expansion, likeness, loading, reranking, retrieval
from .errors import ModelError, UsageError, reason
from .punctual import PunctualIndex
from .timed import within
from .types import Candidate, Expansion, Ranking, Truncated, Turn, Where

if TYPE_CHECKING:
    from .config import RetrievalSettings
    from .parts import Finding

_PREPARING_SHARE = 0.5
"""Of the time that is left for finding passages: what a model may take to embed, rewrite or expand."""
_READING_SHARE = 0.9
"""Of the time that is left: when the reranker begins its last batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A question, ready to be searched for."""

    asked: str
    """As it came, cleaned."""
    question: str
    """With what it takes from earlier turns."""
    query: str
    """What is searched for: the question, condensed if it is too long."""
    truncated: Truncated | None = None
    degraded: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    seconds: float = 0.0


def prepare(
    parts: Finding, question: str, *, history: Sequence[Turn] = (), until: float | None = None
) -> Prepared:
    """Clean, complete by earlier turns, condense.

    Raises:
        UsageError: The question is empty.
    """
    started = time.perf_counter()
    settings = parts.settings
    asked = loading.clean_text(question).strip()
    if not asked:
        raise UsageError("The question is empty", hint="Write a question, or a few words to look for")
    alone = conversation.Standalone(asked)
    if history and settings.conversation.rewrite:
        alone = conversation.standalone(
            asked,
            history[-settings.conversation.turns :],
            is_content=lambda word: bool(_terms(parts, word)),
            complete=_completing(parts, until),
        )
    query, truncated = conversation.condense(
        alone.text,
        budget=settings.expansion.query_tokens,
        count_tokens=parts.count_tokens,
        terms=lambda text: _terms(parts, text),
    )
    notices = list(alone.notices)
    if truncated is not None:
        notices.append(
            f"The question was condensed to {truncated.kept} of its {truncated.query_tokens} tokens"
        )
    return Prepared(
        asked=asked,
        question=alone.text,
        query=query,
        truncated=truncated,
        degraded=alone.degraded,
        notices=tuple(notices),
        seconds=time.perf_counter() - started,
    )


def rank(  # noqa: PLR0913 - what a ranking depends on
    parts: Finding,
    prepared: Prepared,
    *,
    top_k: int | None = None,
    where: Where | None = None,
    until: float | None = None,
    end: float | None = None,
    collapse: bool = True,
    hurry: bool = True,
) -> Ranking:
    """Every candidate, reranked, those below the threshold too.

    Args:
        parts: What works on the question.
        prepared: The question.
        top_k: How many of the best matter; None for `reranking.top_k`, 0 for all of them.
        where: Keep only chunks whose metadata equals this.
        until: `time.monotonic()` value at which no model is waited for any more.
        end: The same for the store, without which there is nothing; None for `until`.
        collapse: Whether one passage may stand for its near-duplicates.
        hurry: Whether `reranking.deadline` counts.
    """
    settings = parts.settings
    clock = Clock({"prepare": prepared.seconds})
    index = PunctualIndex(parts.index, until if end is None else end, name=f"the index {settings.index.path}")
    found = _found(parts, index, prepared.query, where=where, until=until, clock=clock)
    wanted = settings.reranking.top_k if top_k is None else top_k
    found = _thinned(parts, found, wanted, collapse=collapse, until=_share(until, _PREPARING_SHARE))
    clock.lap("retrieve")
    reranked = reranking.Reranked(found.candidates)
    if parts.reranker is not None:
        reranked = reranking.rerank(
            prepared.query,
            found.candidates,
            reranker=parts.reranker,
            depth=max(settings.reranking.depth, wanted),
            top_k=wanted or None,
            deadline=_last_batch(settings.reranking.deadline if hurry else None, until),
            until=until,
            calibration=parts.calibrated.calibration if parts.calibrated else None,
        )
        clock.lap("rerank")
    relevances = [one.scores.relevance for one in reranked.candidates if one.scores.relevance is not None]
    threshold = _threshold(parts) if relevances and _threshold_is_known(parts) else None
    relevant = sum(threshold is None or relevance >= threshold for relevance in relevances)
    return Ranking(
        query=prepared.query,
        candidates=reranked.candidates,
        degraded=_once(prepared.degraded, found.degraded, reranked.degraded),
        notices=_once(prepared.notices, found.notices, reranked.notices, _emptied(found, where)),
        timings=clock.laps,
        expansions=found.expansions,
        counts=found.counts | {"read": len(relevances), "relevant": relevant},
        threshold=threshold,
        truncated=prepared.truncated,
    )


def read_whole(
    parts: Finding, questions: Sequence[str], *, progress: Callable[[int, int], None]
) -> dict[str, tuple[Candidate, ...]]:
    """Candidates per question as a calibration wants them.

    Each is read with all layers: a forecast is no score to calibrate on. And none is collapsed: the one that
    was judged may be the other.

    Raises:
        ModelError: The reranker failed on a question.
    """
    ranked = {}
    for done, question in enumerate(questions):
        progress(done, len(questions))
        ranking = rank(parts, prepare(parts, question), top_k=0, hurry=False, collapse=False)
        if ranking.degraded:
            raise ModelError(
                f"{question!r} could not be reranked: {'; '.join(ranking.notices)}",
                hint="Calibrate when the reranker works",
            )
        ranked[question] = ranking.candidates
    return ranked


def _emptied(found: _Found, where: Where | None) -> tuple[str, ...]:
    """A filter is the likely reason where nothing was found, and is easily forgotten."""
    return () if found.candidates or not where else ("Nothing was found that the filter lets through",)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The few that were chosen, and what went wrong on the way."""

    candidates: tuple[Candidate, ...]
    degraded: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def choose(
    parts: Finding, ranking: Ranking, *, top_k: int, relevant: bool, until: float | None = None
) -> Chosen:
    """The best `top_k`; with `search_type = "mmr"`, of the first `fetch_k` those unlike each other.

    Args:
        parts: What works on the question.
        ranking: From `rank`.
        top_k: How many.
        relevant: Whether only what reaches the threshold counts.
        until: `time.monotonic()` value at which the embedder is not waited for any more.

    Raises:
        ConfigError: The threshold is a wanted precision, and the index has no calibration.
    """
    settings = parts.settings.retrieval
    diverse = settings.search_type == "mmr" and settings.mmr == "reranked"
    count = max(top_k, settings.fetch_k) if diverse else top_k
    pool = ranking.candidates[:count]
    if relevant:
        scored = any(one.scores.relevance is not None for one in ranking.candidates)
        pool = reranking.relevant(
            ranking.candidates, threshold=_threshold(parts) if scored else 0.0, top_k=count
        )
    if not diverse:
        return Chosen(tuple(pool))
    # Cosines and probabilities do not compare: what was not read counts for less than all that was.
    read = any(one.scores.relevance is not None for one in pool)
    relevance = [(one.scores.relevance if read else one.scores.dense) or 0.0 for one in pool]
    return _diverse(parts, pool, relevance, top_k, until)


class Clock:
    """Seconds per stage."""

    def __init__(self, laps: dict[str, float] | None = None) -> None:
        self.laps = dict(laps or {})
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Since the last one."""
        now = time.perf_counter()
        self.laps[stage], self._last = self.laps.get(stage, 0.0) + now - self._last, now


@dataclass(frozen=True, slots=True)
class _Found:
    candidates: tuple[Candidate, ...]
    expansions: tuple[Expansion, ...]
    counts: dict[str, int]
    degraded: tuple[str, ...]
    notices: tuple[str, ...]


class _Fusion(TypedDict):
    rrf_k: int
    dense_weight: float


def _fusion(settings: RetrievalSettings) -> _Fusion:
    return {"rrf_k": settings.rrf_k, "dense_weight": settings.dense_weight}


def _found(
    parts: Finding,
    index: PunctualIndex,
    query: str,
    *,
    where: Where | None,
    until: float | None,
    clock: Clock,
) -> _Found:
    settings = parts.settings
    fetch_k, fusion = settings.retrieval.fetch_k, _fusion(settings.retrieval)
    with index.reading():
        first = retrieval.first_pass(
            query,
            embedder=parts.embedder,
            sparse_encoder=parts.sparse_encoder,
            store=index,
            fetch_k=fetch_k,
            where=where,
            until=_share(until, _PREPARING_SHARE),
        )
        pooled = retrieval.pool(first, (), store=index, **fusion)
    expanded = expansion.Expanded()
    # A language model may take its time: the index is not held meanwhile.
    if settings.expansion.methods:
        expanded = expansion.expand(
            query,
            settings.expansion.methods,
            passages=[candidate.chunk.described for candidate in pooled.candidates[:fetch_k]],
            sparse_encoder=parts.sparse_encoder,
            complete=_completing(parts, until),
        )
        clock.lap("expand")
    notices = [*expanded.notices]
    if expanded.expansions:
        with index.reading():
            further = retrieval.search_expansions(
                expanded.expansions,
                embedder=None if first.dense is None else parts.embedder,
                sparse_encoder=parts.sparse_encoder,
                store=index,
                fetch_k=fetch_k,
                where=where,
                until=_share(until, _PREPARING_SHARE),
            )
            weighted = [(settings.expansion.weight, rankings) for rankings in further.rankings]
            pooled = retrieval.pool(first, weighted, store=index, **fusion)
        notices += further.notices
    counts = {
        "dense": len(first.rankings.dense),
        "sparse": len(first.rankings.sparse),
        "fused": len(pooled.candidates),
    }
    return _Found(
        pooled.candidates,
        expanded.expansions,
        counts,
        (*pooled.degraded, *(("expansion",) if notices else ())),
        (*pooled.notices, *notices),
    )


def _thinned(parts: Finding, found: _Found, wanted: int, *, collapse: bool, until: float | None) -> _Found:
    """Without near-duplicates; by maximal marginal relevance where that is wanted before reranking."""
    settings = parts.settings.retrieval
    candidates: Sequence[Candidate] = found.candidates
    if collapse and settings.duplicates:
        candidates = likeness.collapse(candidates, threshold=settings.duplicates)
    found = replace(found, counts=found.counts | {"distinct": len(candidates)})
    if settings.search_type != "mmr" or settings.mmr != "fetched" or not wanted:
        return replace(found, candidates=tuple(candidates))
    pool = candidates[: settings.fetch_k]
    picked = _diverse(parts, pool, [candidate.scores.dense or 0.0 for candidate in pool], wanted, until)
    return replace(
        found,
        candidates=picked.candidates,
        degraded=found.degraded + picked.degraded,
        notices=found.notices + picked.notices,
    )


def _diverse(
    parts: Finding,
    pool: Sequence[Candidate],
    relevance: Sequence[float],
    count: int,
    until: float | None,
) -> Chosen:
    """By vectors made anew: equal to those in the store, and no store has to hand them out."""
    if len(pool) < 2:
        return Chosen(tuple(pool[:count]))
    try:
        embedder = parts.embedder
        texts = [candidate.chunk.described for candidate in pool]
        vectors = within(lambda: embedder.embed_documents(texts), until, of=embedder.fingerprint)
        lambda_mult = parts.settings.retrieval.lambda_mult
        return Chosen(diversity.diversify(pool, relevance, vectors, lambda_mult=lambda_mult, count=count))
    except Exception as error:  # noqa: BLE001 - anybody's embedder raises what it likes
        why = f"Passages are the most relevant, not the most different: {reason(error)}"
        return Chosen(tuple(pool[:count]), ("diversity",), (why,))


def _completing(parts: Finding, until: float | None) -> Callable[[str], str] | None:
    """The language model, given up when half of the time for finding passages is over."""
    complete = parts.complete
    if complete is None or until is None:
        return complete
    asked = complete
    limit = _share(until, _PREPARING_SHARE)
    return lambda prompt: within(lambda: asked(prompt), limit, of="the model that rewrites questions")


def _terms(parts: Finding, text: str) -> tuple[int, ...]:
    """Of a text; none where the encoder fails, which the search itself will say."""
    try:
        return parts.sparse_encoder.encode_query(text).indices
    except Exception:  # noqa: BLE001 - anybody's encoder raises what it likes
        return ()


def _last_batch(own: float | None, until: float | None) -> float | None:
    """No batch is begun after this; one that is may still end before `until`, when nobody waits for it."""
    limits = (None if own is None else time.monotonic() + own, _share(until, _READING_SHARE))
    return min((limit for limit in limits if limit is not None), default=None)


def _share(until: float | None, share: float) -> float | None:
    """The moment at which that share of the time that is left has passed."""
    now = time.monotonic()
    return None if until is None else now + share * (until - now)


def _threshold_is_known(parts: Finding) -> bool:
    """A search needs no threshold, so a wish that nothing fulfils yet is no error there."""
    return not isinstance(parts.settings.reranking.threshold, str) or parts.calibrated is not None


def _threshold(parts: Finding) -> float:
    return calibrating.resolve_threshold(parts.settings.reranking.threshold, parts.calibrated)


def _once(*many: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for texts in many for text in texts))
