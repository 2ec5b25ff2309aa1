"""A trained model and held-out questions -> how good it is, and the numbers that serving needs.

Asks the exported model through the same seam as the pipeline does, so what is measured is what is shipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from crossrag.calibration import Calibration, calibration_error, fit
from crossrag.errors import UsageError
from crossrag.residual import comparable
from crossrag.types import Scores

from .export import Fitted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crossrag.protocols import Reranker

    from .mining import Mined, Question

    Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model says of one question's candidates, which stand in first-stage order."""

    collection: str
    relevant: NDArray[np.bool_]
    grades: NDArray[np.int8]
    logits: Floats
    """float64[n, k]: after each of k exits; one column where a model has no exits."""
    first_stage: Floats
    """float64[n, 2]: cosine and BM25, as `residual.comparable` gives them."""


@dataclass(frozen=True, slots=True)
class Quality:
    """nDCG@10 over the candidates, each collection counting the same. In [0, 1]."""

    fused: float
    """By reciprocal rank fusion, the order in which the candidates came."""
    reranked: float
    exits: tuple[float, ...]
    """After each exit."""
    calibration_error: float
    """Of the ten best passages of each question."""
    by_collection: Mapping[str, tuple[float, float]]
    """Fused and reranked."""


def read(
    reranker: Reranker,
    mined: Sequence[Mined],
    *,
    most: int = 40,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Reading]:
    """Let a model read the first `most` candidates of every question, with all its layers."""
    readings = []
    for part in mined:
        for question in part.questions:
            readings.append(_reading(reranker, part, question, most))
            progress(1)
    return readings


def quality(readings: Sequence[Reading], calibration: Calibration) -> Quality:
    """Mean over collections of the means over questions; one without a relevant candidate counts 0."""
    collections = sorted({reading.collection for reading in readings})
    rows: dict[str, list[list[float]]] = {name: [] for name in collections}
    for reading in readings:
        orders = [-np.arange(len(reading.grades), dtype=np.float64), *reading.logits.T]
        rows[reading.collection].append([ndcg(order, reading.grades) for order in orders])
    means = {name: np.mean(values, axis=0) for name, values in rows.items()}
    overall = np.mean(list(means.values()), axis=0)
    shown = [_shown(reading, 10) for reading in readings]
    said = [calibration.probability(logit) for reading in shown for logit in reading.logits[:, -1]]
    labels = [bool(label) for reading in shown for label in reading.relevant]
    return Quality(
        fused=float(overall[0]),
        reranked=float(overall[-1]),
        exits=tuple(map(float, overall[1:])),
        calibration_error=calibration_error(said, labels),
        by_collection={name: (float(values[0]), float(values[-1])) for name, values in means.items()},
    )


def ndcg(scores: Floats, grades: NDArray[np.int8], cut: int = 10) -> float:
    """Normalised discounted cumulative gain, gains linear in the grade (Järvelin and Kekäläinen, 2002).

    Ties keep their order. 0 where nothing is relevant.
    """
    gains = np.maximum(grades, 0).astype(np.float64)
    discount = 1.0 / np.log2(np.arange(2, cut + 2))
    best = np.sort(gains)[::-1][:cut]
    ideal = float((best * discount[: len(best)]).sum())
    got = gains[np.argsort(-scores, kind="stable")[:cut]]
    return float((got * discount[: len(got)]).sum()) / ideal if ideal else 0.0


def fitted(
    readings: Sequence[Reading],
    weights: tuple[float, float],
    *,
    top_k: int = 10,
    kept: float = 0.97,
    otherwise: tuple[Calibration, Calibration] | None = None,
) -> Fitted:
    """Calibrations, forecasts and margins.

    Args:
        readings: Of held-out questions.
        weights: Of cosine and BM25 in the logit.
        top_k: The margins are for this many wanted passages.
        kept: Share of the final best `top_k` that must survive each exit.
        otherwise: Calibrations of the logit and of the correction alone to keep where none can be fitted.

    Raises:
        UsageError: No calibration can be fitted, and there is no other.
    """
    mass, logits = _mass(readings), np.concatenate([reading.logits for reading in readings])
    features = np.concatenate([reading.first_stage for reading in readings])
    forecasts = tuple(_line(logits[:, exit_], logits[:, -1], mass) for exit_ in range(logits.shape[1] - 1))
    typical = np.average(features, axis=0, weights=mass)
    # A probability is wanted of the passages that can be shown: the best of each question.
    shown = [_shown(reading, top_k) for reading in readings]
    seen = _mass(shown)
    labels = np.concatenate([reading.relevant for reading in shown]).tolist()
    last = np.concatenate([reading.logits[:, -1] for reading in shown])
    # Among the best few, a high correction makes up for a low first stage: alone it is judged over all.
    alone = logits[:, -1] - features @ np.asarray(weights)
    relevant = np.concatenate([reading.relevant for reading in readings])
    whole, part = otherwise or (None, None)
    return Fitted(
        typical=(round(float(typical[0]), 4), round(float(typical[1]), 4)),
        margins=tuple(_margin(readings, exit_, top_k, kept) for exit_ in range(logits.shape[1] - 1)),
        wanted=top_k,
        forecasts=forecasts,
        calibration=_calibrated(last, labels, seen, whole),
        alone=_calibrated(alone, relevant.tolist(), mass, part),
    )


def _calibrated(
    logits: Floats, labels: list[bool], mass: Floats, otherwise: Calibration | None
) -> Calibration:
    try:
        return fit(logits.tolist(), labels, mass.tolist())
    except UsageError:
        if otherwise is None:
            raise
        return otherwise


def _reading(reranker: Reranker, part: Mined, question: Question, most: int) -> Reading:
    places = slice(0, most)
    said = reranker.score(
        question.text,
        [part.passages[number].described for number in question.passages[places]],
        first_stage=[
            Scores(dense=float(dense), sparse=float(sparse), indexed=part.indexed)
            for dense, sparse in question.first_stage[places]
        ],
    )
    grades = question.grades[places]
    rows = said.by_exit or tuple((logit,) for logit in said.logit)
    return Reading(
        part.name,
        grades > 0,
        grades,
        np.asarray(rows, np.float64),
        comparable(question.text, question.first_stage[places], part.indexed).astype(np.float64),
    )


def _shown(reading: Reading, count: int) -> Reading:
    best = np.argsort(-reading.logits[:, -1], kind="stable")[:count]
    return replace(
        reading,
        relevant=reading.relevant[best],
        grades=reading.grades[best],
        logits=reading.logits[best],
        first_stage=reading.first_stage[best],
    )


def _mass(readings: Sequence[Reading]) -> Floats:
    """How much each pair counts: every collection the same, one on the mean."""
    counts: dict[str, int] = {}
    for reading in readings:
        counts[reading.collection] = counts.get(reading.collection, 0) + len(reading.relevant)
    mass = np.concatenate(
        [np.full(len(reading.relevant), 1.0 / counts[reading.collection]) for reading in readings]
    )
    scaled: Floats = mass * (len(mass) / mass.sum())
    return scaled


def _line(early: Floats, last: Floats, mass: Floats) -> tuple[float, float]:
    """Least squares: the last logit from an earlier one."""
    slope, intercept = np.polyfit(early, last, 1, w=np.sqrt(mass))
    return float(slope), float(intercept)


def _margin(readings: Sequence[Reading], exit_: int, top_k: int, kept: float) -> float:
    """How far below the k-th best those stand at an exit that are among the best k in the end."""
    needed: list[float] = []
    for reading in readings:
        if len(reading.relevant) > top_k:
            at_exit = reading.logits[:, exit_]
            bar = np.sort(at_exit)[-top_k]
            final = np.argsort(-reading.logits[:, -1], kind="stable")[:top_k]
            needed += np.maximum(0.0, bar - at_exit[final]).tolist()
    return float(np.quantile(needed, kept)) if needed else 5.0
