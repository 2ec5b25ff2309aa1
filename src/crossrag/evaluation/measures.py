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
        UsageError: A name is unknown.
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
    names = {measure: name for name, measure in known.items()}
    if ranked:
        for row in ir_measures.iter_calc(list(names), judged, ranked):
            values[names[row.measure]][row.query_id] = float(row.value)
    return values


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def _parsed(ir_measures: Any, name: str, relevant_from: int) -> Any:
    try:
        measure = ir_measures.parse_measure(name)
    except (NameError, ValueError, TypeError, AssertionError):
        raise UsageError(f"There is no measure {name!r}", hint=f"Such as {', '.join(DEFAULT)}") from None
    if relevant_from != 1 and "rel" in measure.SUPPORTED_PARAMS and "rel" not in measure.params:
        return measure(rel=relevant_from)
    return measure


def _library() -> Any:
    if find_spec("ir_measures") is None:
        raise MissingExtraError(
            "Measuring needs the package ir-measures", hint="pip install 'crossrag[eval]'"
        )
    import ir_measures

    return ir_measures
