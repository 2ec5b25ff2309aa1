"""Questions and a Rag -> records: one search per question, from which every stage can be measured.

What was searched before with the same documents, models and settings is taken from the journal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from crossrag import assembly, calibrating, searching
from crossrag.errors import GeneratorError

from .answers import answered
from .journal import Journal, key
from .records import Record, Seen, rounded

if TYPE_CHECKING:
    from crossrag.pipeline import Rag
    from crossrag.types import Candidate, Ranking

    from .dataset import Dataset, Question

WANTED = 10
"""Best passages that matter: measures look at ten."""
_SHOWN = 400
"""Characters of a passage that are kept for people."""
_FORMAT = 1
_RELEVANT_SETTINGS = (
    "chunking",
    "retrieval",
    "reranking",
    "context",
    "generator",
    "expansion",
    "verification",
)
_NO_MATTER = {"threads", "device", "cache", "deadline", "threshold"}
"""Settings that change no record; the threshold is applied to records afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is measured."""

    rag: Rag
    identity: Mapping[str, Any]
    """Everything that results depend on beside the questions: `corpus`, `chunking`, models, settings."""
    threshold: float
    top_k: int


def subject(rag: Rag, *, corpus: str = "") -> Subject:
    """A Rag with its identity.

    Args:
        rag: Over an index that exists, or over a corpus in memory.
        corpus: Digest of the corpus; that of the index's documents where it is empty.
    """
    settings = rag.settings
    made_with = {
        "embedder": rag.embedder.fingerprint,
        "sparse": rag.sparse_encoder.fingerprint,
        "reranker": rag.reranker.fingerprint if rag.reranker else "none",
        "calibration": str(rag.calibrated.calibration) if rag.calibrated else "",
    }
    chosen = {
        f"{section}.{name}": value
        for section, values in settings.model_dump(mode="json").items()
        if section in _RELEVANT_SETTINGS
        for name, value in values.items()
        if name not in _NO_MATTER
    }
    cutting = "one chunk per passage" if corpus else rag.index.fingerprint["chunking"]
    return Subject(
        rag=rag,
        identity={
            "corpus": corpus or _contents(rag),
            "chunking": cutting,
            "models": made_with,
            "settings": chosen,
        },
        threshold=0.0
        if rag.reranker is None
        else calibrating.resolve_threshold(settings.reranking.threshold, rag.calibrated),
        top_k=settings.reranking.top_k,
    )


def _contents(rag: Rag) -> str:
    if rag.settings.store == assembly.ADOPTED:
        return f"{assembly.place(rag.settings)}, {rag.index.count()} passages"
    return key(sorted((e.source, e.content_hash) for e in rag.documents()))


def conduct(
    dataset: Dataset,
    measured: Subject,
    *,
    journal: Journal,
    answers: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[Record]:
    """Search for every question; with `answers`, ask it too.

    Raises:
        CrossragError: The search failed. What was done until then is in the journal.
    """
    records = []
    for done, question in enumerate(dataset.questions):
        progress(done, len(dataset.questions))
        records.append(_record(dataset, question, measured, journal, answers=answers))
    progress(len(dataset.questions), len(dataset.questions))
    return records


def _record(
    dataset: Dataset, question: Question, measured: Subject, journal: Journal, *, answers: bool
) -> Record:
    settings = measured.identity
    extra = _answered_by(measured) if answers else ()
    judged = (question.text, [(p.sources, p.quote, p.grade) for p in question.places], dataset.by_document)
    name = key(_FORMAT, settings, judged, question.id, extra)
    if (kept := journal.get(name)) is not None:
        return Record.unpacked(kept)
    record = _searched(dataset, question, measured)
    if answers:
        record = _asked(dataset, question, measured, record)
    # What failed this time may work the next.
    if not (record.degraded or record.failed or (record.answered and record.answered.degraded)):
        journal.put([(name, record.packed())])
    return record


def _answered_by(measured: Subject) -> tuple[float, str, str]:
    """What an answer depends on beside what was found."""
    rag = measured.rag
    return measured.threshold, rag.generator.fingerprint, rag.grounder.fingerprint if rag.grounder else "none"


def whole_ranking(rag: Rag, question: str) -> Ranking:
    """Every candidate of a question with what every stage said, whatever time that takes."""
    prepared = searching.prepare(rag, question)
    return searching.rank(rag, prepared, top_k=max(WANTED, rag.settings.reranking.top_k), hurry=False)


def _searched(dataset: Dataset, question: Question, measured: Subject) -> Record:
    ranking = whole_ranking(measured.rag, question.text)
    return Record(
        id=question.id,
        seen=tuple(_seen(dataset, question, candidate) for candidate in ranking.candidates),
        degraded=tuple(ranking.degraded),
        seconds=dict(ranking.timings),
    )


def _asked(dataset: Dataset, question: Question, measured: Subject, record: Record) -> Record:
    begun = time.perf_counter()
    try:
        answer = measured.rag.ask(question.text)
    except GeneratorError as error:
        return replace(record, failed=error.message)
    seconds = {**record.seconds, "answer": time.perf_counter() - begun}
    return replace(
        record, answered=answered(dataset, question, answer, measured.rag.count_tokens), seconds=seconds
    )


def _seen(dataset: Dataset, question: Question, candidate: Candidate) -> Seen:
    scores, chunk = candidate.scores, candidate.chunk
    names = dataset.names(question, candidate)
    ranks = (scores.fused_rank, scores.rerank_rank)
    grade = dataset.grade(question, names)
    shown = grade is not None or any(rank is not None and rank <= WANTED for rank in ranks)
    return Seen(
        names=names,
        grade=grade,
        bm25=scores.sparse_rank,
        dense=scores.dense_rank,
        fused=scores.fused_rank,
        reranked=scores.rerank_rank,
        logit=rounded(scores.logit),
        relevance=rounded(scores.relevance),
        truncated=candidate.truncated,
        characters=len(chunk.text),
        where=chunk.location,
        text=chunk.text[:_SHOWN] if shown else "",
    )
