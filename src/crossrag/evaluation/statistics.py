"""Differences -> how sure one can be of them: bootstrap intervals, a randomisation test. Always seeded.

Efron (1979), "Bootstrap methods: another look at the jackknife"; Fisher's randomisation test as in Smucker,
Allan and Carterette (2007), "A comparison of statistical significance tests for information retrieval
evaluation".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SEED = 20261124
_DRAWS = 10_000
_BLOCK = 1_000_000
"""Numbers drawn at once, at most: memory stays small however many questions there are."""
_EXACT = 12
"""So many differences or fewer: all signs are tried."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What b is better than a, over the same questions."""

    difference: Interval
    """Mean of b less mean of a."""
    p: float
    """How often chance alone makes a difference as large, two-sided."""
    wins: int
    """Questions on which b is better."""
    ties: int
    losses: int

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `no difference shown`, at 5 %."""
        if self.p >= 0.05:
            return "no difference shown"
        return "better" if self.difference.mean > 0 else "worse"


def interval(values: Sequence[float], *, draws: int = _DRAWS) -> Interval:
    """Percentile bootstrap of the mean over questions."""
    import numpy as np

    if not values:
        return Interval(0.0, 0.0, 0.0)
    given = np.asarray(values, np.float64)
    chance = np.random.default_rng(SEED)
    rows = max(1, _BLOCK // len(given))
    means = np.concatenate(
        [
            given[chance.integers(0, len(given), (min(rows, draws - done), len(given)))].mean(axis=1)
            for done in range(0, draws, rows)
        ]
    )
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(given.mean()), float(low), float(high))


def randomisation(differences: Sequence[float], *, draws: int = _DRAWS) -> float:
    """Two-sided p of the mean difference when signs are random; exact for twelve or fewer that are not 0."""
    import numpy as np

    given = np.asarray([value for value in differences if value != 0], np.float64)
    if not given.size:
        return 1.0
    observed = abs(given.sum()) - 1e-12
    if given.size <= _EXACT:
        signs = 1 - 2 * (np.arange(2**given.size)[:, None] >> np.arange(given.size) & 1)
        return float((np.abs(signs @ given) >= observed).mean())
    chance = np.random.default_rng(SEED)
    rows, extreme = max(1, _BLOCK // given.size), 0
    for done in range(0, draws, rows):
        signs = chance.integers(0, 2, (min(rows, draws - done), given.size)) * 2 - 1
        extreme += int((np.abs(signs @ given) >= observed).sum())
    # The order that was observed is one of the possible ones.
    return (extreme + 1) / (draws + 1)


def compared(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Compare values of the same questions, in the same order."""
    differences = [second - first for first, second in zip(a, b, strict=True)]
    return Difference(
        difference=interval(differences),
        p=randomisation(differences),
        wins=sum(value > 1e-12 for value in differences),
        ties=sum(abs(value) <= 1e-12 for value in differences),
        losses=sum(value < -1e-12 for value in differences),
    )
