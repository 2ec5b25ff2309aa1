"""Runs and judgements -> values per question, by ir-measures. A question without results counts as 0.

nDCG@10    Järvelin and Kekäläinen (2002), grades as gains
RR@10      reciprocal rank of the first relevant one
R@k, P@k   share of the relevant that was found, share of the found that is relevant
AP         average precision
Judged@10  share of the first ten that somebody has judged: where it is low, trust the others little
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from crossrag.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from .trec import Qrels, Run

MAIN = "nDCG@10"
DEFAULT = (MAIN, "RR@10", "R@10", "R@100", "P@5", "AP", "Judged@10")
Values = dict[str, dict[str, float]]
"""Measure -> query -> value."""


def measured(run: Run, qrels: Qrels, measures: Sequence[str] = DEFAULT, *, relevant_from: int = 1) -> Values:
    """Measure a run.

    Args:
        run: Query -> documents, best first.
        qrels: Query -> document -> grade. Queries without a relevant document are not measured.
        measures: Names as ir-measures knows them.
        relevant_from: Least grade that is relevant, for the measures that know only yes and no.

    Raises:
        UsageError: A name is unknown, or ir-measures cannot compute it here.
        MissingExtraError: ir-measures is not installed.
    """
    ir_measures = _library()
    known = {name: _parsed(ir_measures, name, relevant_from) for name in measures}
    judged = {
        q: dict(rows) for q, rows in qrels.items() if any(grade >= relevant_from for grade in rows.values())
    }
    # What found nothing is left out, as Judged divides by the number found; it stays at 0.
    ranked = {
        query: {document: float(-rank) for rank, document in enumerate(run[query])}
        for query in judged
        if run.get(query)
    }
    values: Values = {name: dict.fromkeys(judged, 0.0) for name in measures}
    # Several names may mean the same, such as RR and MRR.
    names: dict[Any, list[str]] = {}
    for name, measure in known.items():
        names.setdefault(measure, []).append(name)
    for row in _calculated(ir_measures, list(names), judged, ranked) if ranked else ():
        for name in names[row.measure]:
            values[name][row.query_id] = float(row.value)
    return values


def check(measures: Sequence[str]) -> None:
    """Find out before a long run whether these can be measured.

    Raises:
        UsageError: A name is unknown, or needs what is not here.
        MissingExtraError: ir-measures is not installed.
    """
    ir_measures = _library()
    for name in measures:
        _parsed(ir_measures, name, 1)


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def _parsed(ir_measures: Any, name: str, relevant_from: int) -> Any:
    try:
        measure = ir_measures.parse_measure(name)
        there = ir_measures.DefaultPipeline.supports(measure)
    except (NameError, ValueError, TypeError, AssertionError):
        raise UsageError(f"There is no measure {name!r}", hint=f"Such as {', '.join(DEFAULT)}") from None
    # A cutoff of 0 would not be an error, but the end of the process.
    if measure.params.get("cutoff", 1) < 1 or not there:
        raise UsageError(
            f"The measure {name!r} cannot be computed here", hint=f"Take others, such as {', '.join(DEFAULT)}"
        )
    if relevant_from != 1 and "rel" in measure.SUPPORTED_PARAMS and "rel" not in measure.params:
        return measure(rel=relevant_from)
    return measure


def _calculated(ir_measures: Any, measures: Sequence[Any], qrels: Any, run: Any) -> list[Any]:
    try:
        return list(ir_measures.iter_calc(measures, qrels, run))
    except Exception as error:  # each of its tools fails in its own way
        names = ", ".join(map(str, measures))
        raise UsageError(
            f"ir-measures failed at {names}: {error}", hint=f"Take others, such as {', '.join(DEFAULT)}"
        ) from error


def _library() -> Any:
    if find_spec("ir_measures") is None:
        raise MissingExtraError(
            "Measuring needs the package ir-measures", hint="pip install 'crossrag[eval]'"
        )
    import ir_measures

    return ir_measures
