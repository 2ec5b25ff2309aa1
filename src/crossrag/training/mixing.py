"""How much the first stage counts beside the correction, chosen on sets that training never saw.

Learned jointly, the correction is trusted as far as it is right at home. Abroad it is right less often, so
the weights of cosine and BM25 are raised until they rank best there, as far as it costs little at home.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .fitting import Reading, ndcg

if TYPE_CHECKING:
    from numpy.typing import NDArray

FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
SHARES = (1.0, 0.7, 0.5, 0.35, 0.25)
"""Of the first stage's weights: a model of one's own documents may trust itself more."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Weights of cosine and of BM25 in its unit, and nDCG@10 with them, in [0, 1]."""

    dense: float
    sparse: float
    home: float
    abroad: float


def remixed(readings: Sequence[Reading], old: tuple[float, float], new: tuple[float, float]) -> list[Reading]:
    """The same readings as if cosine and BM25 had had other weights."""
    change = np.asarray(new, np.float64) - np.asarray(old, np.float64)
    return [
        replace(reading, logits=reading.logits + (reading.first_stage @ change)[:, np.newaxis])
        for reading in readings
    ]


def choose_mix(
    home: Sequence[Reading],
    abroad: Sequence[Reading],
    weights: tuple[float, float],
    *,
    price: float = 0.03,
) -> tuple[Mix, list[Mix]]:
    """The mix that ranks best abroad among those that cost at most `price` of nDCG@10 at home; and all tried.

    Args:
        home: Held-out questions of the sets that were trained on.
        abroad: Questions of sets that were not: what a user's own documents are.
        weights: Of cosine and BM25 in these readings.
        price: Least nDCG@10 at home is that of the best mix there, less this.
    """
    tried = []
    for dense, sparse in itertools.product(FACTORS, FACTORS):
        new = (weights[0] * dense, weights[1] * sparse)
        tried.append(Mix(*new, *(_mean(remixed(readings, weights, new)) for readings in (home, abroad))))
    least = max(mix.home for mix in tried) - price
    return max((mix for mix in tried if mix.home >= least), key=lambda mix: (mix.abroad, mix.home)), tried


def choose_share(
    own: Sequence[Reading], general: Sequence[Reading], weights: tuple[float, float], *, least: float
) -> float:
    """The share of the first stage's weights that ranks best at home and is good enough elsewhere.

    Args:
        own: Held-out questions of the documents that were learned from.
        general: Of others; may be empty.
        weights: Of cosine and BM25 in these readings.
        least: nDCG@10 on `general` that must be kept; where no share does, nothing is changed.
    """
    allowed = [share for share in SHARES if not general or _with_share(general, weights, share) >= least]
    # The first of equals, so that nothing is changed without a reason.
    return max(allowed, key=lambda share: _with_share(own, weights, share), default=1.0)


def best_share(own: Sequence[Reading], weights: tuple[float, float]) -> float:
    """nDCG@10 with the share that is best for these questions."""
    return max(_with_share(own, weights, share) for share in SHARES)


def _with_share(readings: Sequence[Reading], weights: tuple[float, float], share: float) -> float:
    return _mean(remixed(readings, weights, (share * weights[0], share * weights[1])))


def _mean(readings: Sequence[Reading]) -> float:
    """nDCG@10 after the last exit, every collection counting the same."""
    by_collection: dict[str, list[float]] = {}
    for reading in readings:
        scores: NDArray[np.float64] = reading.logits[:, -1]
        by_collection.setdefault(reading.collection, []).append(ndcg(scores, reading.grades))
    return float(np.mean([np.mean(values) for values in by_collection.values()]))
