"""Logit -> probability of being relevant, and threshold for a wanted precision. Fitted on judged pairs.

Platt (1999), "Probabilistic Outputs for Support Vector Machines", with his smoothed targets: two numbers,
so it is monotone, keeps the ranking and needs few pairs. Knows nothing of models or files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import ModelError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LARGEST = 60.0
"""Beyond it the exponential would only change digits that a double does not hold."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """`probability = 1 / (1 + exp(-(slope * logit + intercept)))`, with slope > 0."""

    slope: float = 1.0
    intercept: float = 0.0

    def probability(self, logit: float) -> float:
        """In [0, 1]; NaN for a logit that is not finite."""
        if not math.isfinite(logit):
            return math.nan
        shifted = self.slope * logit + self.intercept
        return 1.0 / (1.0 + math.exp(-max(-_LARGEST, min(_LARGEST, shifted))))

    def logit(self, probability: float) -> float:
        """The inverse: the logit of a probability strictly between 0 and 1."""
        return (math.log(probability / (1.0 - probability)) - self.intercept) / self.slope


def fit(
    logits: Sequence[float], relevant: Sequence[bool], weights: Sequence[float] | None = None
) -> Calibration:
    """Fit slope and intercept by Newton's method.

    Args:
        logits: Of judged pairs; finite.
        relevant: Whether each is.
        weights: How often each counts; 1 if None.

    Raises:
        UsageError: There are fewer than two pairs of either kind, or relevant pairs do not score higher.
    """
    import numpy as np

    values, labels = np.asarray(logits, np.float64), np.asarray(relevant, bool)
    share = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    yes, no = int(labels.sum()), int((~labels).sum())
    if yes < 2 or no < 2:
        raise UsageError(
            f"{yes} relevant and {no} irrelevant pairs are too few to calibrate",
            hint="Judge more pairs; some fifty questions are a good start",
        )
    heavy, light = float(share[labels].sum()), float(share[~labels].sum())
    target = np.where(labels, (heavy + 1.0) / (heavy + 2.0), 1.0 / (light + 2.0))
    design = np.stack([values, np.ones(len(values))], axis=1)
    centre, width = values.mean(), values.std() or 1.0
    # Standardised, so that one damping fits any scale of logits.
    design[:, 0] = (values - centre) / width
    solution = np.zeros(2)
    for _ in range(100):
        said = 1.0 / (1.0 + np.exp(-np.clip(design @ solution, -_LARGEST, _LARGEST)))
        gradient = design.T @ (share * (said - target))
        curvature = (design * (share * said * (1 - said))[:, None]).T @ design
        step = np.linalg.solve(curvature + 1e-6 * share.sum() * np.eye(2), gradient)
        # Far from the solution a whole step may lead away from it.
        loss = _loss(design @ solution, target, share)
        while _loss(design @ (solution - step), target, share) > loss + 1e-9:
            step /= 2
        solution -= step
        if float(np.abs(step).max()) < 1e-9:
            break
    slope = float(solution[0] / width)
    if slope <= 0:
        raise UsageError(
            "Relevant pairs do not score higher than irrelevant ones: no probability can be read off them",
            hint="Check the judgements: are questions and passages those of this index?",
        )
    return Calibration(slope, float(solution[1] - solution[0] * centre / width))


def _loss(shifted: NDArray[np.float64], target: NDArray[np.float64], share: NDArray[np.float64]) -> float:
    import numpy as np

    return float(share @ (np.logaddexp(0.0, shifted) - target * shifted))


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs whose probability fell into one tenth of the scale."""

    count: int
    said: float
    """Mean probability."""
    was: float
    """Share that was relevant."""


def reliability(
    probabilities: Sequence[float], relevant: Sequence[bool], bins: int = 10, *, of: str = "a model"
) -> list[Bin]:
    """Bins of equal width, empty ones left out, from improbable to certain.

    Args:
        probabilities: What was said.
        relevant: What was so.
        bins: How many.
        of: Who said it.

    Raises:
        ModelError: Some are no numbers: leaving them out would make it look better than it is.
    """
    broken = sum(not math.isfinite(probability) for probability in probabilities)
    if broken:
        raise ModelError(
            f"{broken} of {len(probabilities)} probabilities that {of} gave are no finite numbers",
            hint="Look for what overflows in it, such as half precision; then let it read again",
        )
    groups: dict[int, list[tuple[float, bool]]] = {}
    for probability, label in zip(probabilities, relevant, strict=True):
        groups.setdefault(min(int(probability * bins), bins - 1), []).append((probability, label))
    return [
        Bin(len(rows), sum(p for p, _ in rows) / len(rows), sum(r for _, r in rows) / len(rows))
        for _, rows in sorted(groups.items())
    ]


def calibration_error(
    probabilities: Sequence[float], relevant: Sequence[bool], bins: int = 10, *, of: str = "a model"
) -> float:
    """Expected calibration error (Naeini et al., 2015): mean distance of said and was. In [0, 1].

    Arguments and errors as of `reliability`.
    """
    found = reliability(probabilities, relevant, bins, of=of)
    total = sum(group.count for group in found)
    return sum(group.count * abs(group.said - group.was) for group in found) / total if total else 0.0


@dataclass(frozen=True, slots=True)
class Operating:
    """What a threshold gives on the judged pairs."""

    threshold: float
    precision: float
    recall: float


def operating_points(probabilities: Sequence[float], relevant: Sequence[bool]) -> list[Operating]:
    """Every distinct threshold, from strict to lax, with its precision and recall."""
    order = sorted(zip(probabilities, relevant, strict=True), reverse=True)
    total = sum(relevant)
    points: list[Operating] = []
    right = 0
    for kept, (probability, label) in enumerate(order, start=1):
        right += bool(label)
        if kept == len(order) or order[kept][0] < probability:
            points.append(Operating(probability, right / kept, right / total if total else 0.0))
    return points


def threshold_for(points: Sequence[Operating], precision: float) -> Operating:
    """The laxest threshold that keeps the wanted precision.

    Raises:
        UsageError: No threshold reaches it; the message says what is the best.
    """
    if good := [point for point in points if point.precision >= precision]:
        return max(good, key=lambda point: (point.recall, point.threshold))
    best = max(points, key=lambda point: (point.precision, point.recall), default=None)
    reached = (
        f"the best is {best.precision:.2f} at a threshold of {best.threshold:.3f}" if best else "no pairs"
    )
    raise UsageError(f"No threshold reaches a precision of {precision:g}: {reached}", hint="Ask for less")
