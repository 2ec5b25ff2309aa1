"""Records and judgements -> what they come to: stages, depths, calibration, abstention, harm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossrag.calibration import Bin, calibration_error, reliability

from .dataset import order
from .harm import Harmed, harmed
from .measures import DEFAULT, MAIN, Values, mean, measured
from .records import STAGES
from .statistics import Difference, Interval, compared, interval

if TYPE_CHECKING:
    from .dataset import Dataset
    from .experiment import Subject
    from .records import Record
    from .trec import Qrels

DEPTHS = (0, 5, 10, 20, 30, 50, 75, 100, 150, 200)
_BEST = 10
"""Passages of a question that calibration looks at: those that a user may see."""


@dataclass(frozen=True, slots=True)
class Depth:
    """What reading so many candidates comes to."""

    depth: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """How far relevance can be believed, over the ten best passages of each question."""

    pairs: int
    relevant: int
    error: float
    """Expected calibration error, in [0, 1]."""
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Operating:
    """Answering only where the best passage is at least so relevant."""

    threshold: float
    coverage: float
    """Share of all questions that are answered."""
    risk: float
    """Share of those whose first passage is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abstention:
    """Risk against coverage (El-Yaniv and Wiener, 2010), questions in order of their best relevance."""

    questions: int
    unanswerable: int
    area: float
    """Under the curve; smaller is better."""
    at_threshold: Operating
    refused_unanswerable: float | None
    """Share of the unanswerable questions that the threshold refuses; None where there are none."""
    points: tuple[Operating, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All of it, for one dataset."""

    values: dict[str, Values]
    """Stage -> measure -> question -> value."""
    stages: dict[str, dict[str, Interval]]
    """Stage -> measure -> mean over questions."""
    gain: dict[str, Difference] | None
    """Measure -> what reranking is better than fusion; None without a reranker."""
    sweep: tuple[Depth, ...]
    trust: Trust | None
    abstention: Abstention | None
    harmed: tuple[Harmed, ...]

    @property
    def verdict(self) -> str:
        """Whether reranking helps here, in one sentence."""
        if not self.values["fused"][MAIN]:
            return "Nothing was measured: for no question is a place judged relevant."
        if self.gain is None:
            return "There is no reranker to judge."
        found = self.gain[MAIN]
        amount = (
            f"{found.difference.mean * 100:+.1f} points of {MAIN} "
            f"[{found.difference.low * 100:+.1f}, {found.difference.high * 100:+.1f}], p = {found.p:.3f}"
        )
        if found.verdict == "better":
            return f"Reranking helps here: {amount}."
        if found.verdict == "worse":
            return f"Reranking does NOT help here, it makes results worse: {amount}."
        return f"Reranking is not shown to help here: {amount}."


def qrels(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Judgements of the questions that a ranking can be measured by."""
    judged = {question.id: dataset.judgements(question) for question in dataset.questions if question.judged}
    least = dataset.relevant_from
    return {query: rows for query, rows in judged.items() if any(grade >= least for grade in rows.values())}


def runs(records: Sequence[Record], *, threshold: float, top_k: int) -> dict[str, dict[str, list[str]]]:
    """Stage -> question -> names, best first. `reranked` and `kept` only where something was reranked."""
    reranked = any(seen.reranked is not None for record in records for seen in record.seen)
    return {
        stage: {record.id: record.ranked(stage, threshold=threshold, top_k=top_k) for record in records}
        for stage in STAGES
        if reranked or stage in STAGES[:3]
    }


def outcome(
    dataset: Dataset, records: Sequence[Record], subject: Subject, *, measures: Sequence[str] = DEFAULT
) -> Outcome:
    """Measure everything that the records allow.

    Raises:
        ModelError: A relevance is no number; the message names the reranker.
    """
    truth, names = qrels(dataset), tuple(dict.fromkeys((MAIN, *measures)))
    least = dataset.relevant_from
    orders = runs(records, threshold=subject.threshold, top_k=subject.top_k)
    values = {stage: measured(run, truth, names, relevant_from=least) for stage, run in orders.items()}
    stages = {
        stage: {name: interval(list(by_query.values())) for name, by_query in of.items()}
        for stage, of in values.items()
    }
    reranked = "reranked" in values
    return Outcome(
        values=values,
        stages=stages,
        gain={name: _gain(values, name) for name in names} if reranked else None,
        sweep=tuple(_sweep(records, truth, least)) if reranked else (),
        trust=_trust(records, truth, least, subject) if reranked else None,
        abstention=_abstention(dataset, records, truth, subject.threshold) if reranked else None,
        harmed=tuple(harmed(dataset, records, truth)) if reranked else (),
    )


def _gain(values: dict[str, Values], name: str) -> Difference:
    before, after = values["fused"][name], values["reranked"][name]
    return compared([before[query] for query in before], [after[query] for query in before])


def _sweep(records: Sequence[Record], truth: Qrels, least: int) -> list[Depth]:
    deepest = max((len(record.in_order("fused")) for record in records), default=0)
    read = max((s.fused or 0 for r in records for s in r.seen if s.reranked is not None), default=0)
    found = []
    for depth in (*(d for d in DEPTHS if d < min(deepest, read)), read):
        run = {r.id: order(s.names for s in r.in_order("reranked", depth=depth)) for r in records}
        values = measured(run, truth, (MAIN,), relevant_from=least)[MAIN]
        found.append(Depth(depth, mean(list(values.values()))))
    return found


def _trust(records: Sequence[Record], truth: Qrels, least: int, subject: Subject) -> Trust | None:
    pairs = [
        (seen.relevance, (seen.grade or 0) >= least)
        for record in records
        if record.id in truth
        for seen in record.in_order("reranked")[:_BEST]
        if seen.relevance is not None
    ]
    if not pairs:
        return None
    reranker = subject.identity.get("models", {}).get("reranker", "the reranker")
    said, relevant = [said for said, _ in pairs], [right for _, right in pairs]
    return Trust(
        pairs=len(pairs),
        relevant=sum(relevant),
        error=calibration_error(said, relevant, of=reranker),
        bins=tuple(reliability(said, relevant, of=reranker)),
    )


def _abstention(
    dataset: Dataset, records: Sequence[Record], truth: Qrels, threshold: float
) -> Abstention | None:
    known = {question.id for question in dataset.questions if question.answerable is False}
    rows = sorted(
        (
            (first.relevance, first.grade or 0)
            for record in records
            if record.id in known | truth.keys()
            for first in record.in_order("reranked")[:1]
            if first.relevance is not None
        ),
        key=lambda row: -row[0],
    )
    if not rows:
        return None
    points = _operating(rows, dataset.relevant_from)
    kept = [point for point in points if point.threshold >= threshold]
    best = {r.id: max((s.relevance or 0.0 for s in r.seen), default=0.0) for r in records if r.id in known}
    return Abstention(
        questions=len(rows),
        unanswerable=len(known),
        area=_area(points),
        at_threshold=Operating(threshold, kept[-1].coverage, kept[-1].risk)
        if kept
        else Operating(threshold, 0.0, 0.0),
        refused_unanswerable=mean([value < threshold for value in best.values()]) if best else None,
        points=tuple(points),
    )


def _operating(rows: Sequence[tuple[float, int]], least: int) -> list[Operating]:
    """One point per threshold that can be told from others, from strict to lax."""
    points, wrong = [], 0
    for done, (said, grade) in enumerate(rows, start=1):
        wrong += grade < least
        if done == len(rows) or rows[done][0] < said:
            points.append(Operating(said, done / len(rows), wrong / done))
    return points


def _area(points: Sequence[Operating]) -> float:
    """Mean risk over all coverages: each question counts with the risk of the threshold that lets it in."""
    before = [0.0, *(point.coverage for point in points)]
    return sum(point.risk * (point.coverage - start) for point, start in zip(points, before, strict=False))
