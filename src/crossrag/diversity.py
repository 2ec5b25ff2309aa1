"""Candidates -> a few of them that are relevant and unlike each other, by maximal marginal relevance.

Carbonell and Goldstein (1998), "The use of MMR, diversity-based reranking for reordering documents and
producing summaries", SIGIR. Knows nothing of how relevance and vectors were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from .errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Item = TypeVar("Item")


def diversify(
    candidates: Sequence[Item],
    relevance: Sequence[float],
    vectors: NDArray[np.float32],
    *,
    lambda_mult: float,
    count: int,
) -> tuple[Item, ...]:
    """At most `count` candidates, each the best of those left.

    The best has the greatest `lambda * relevance - (1 - lambda) * greatest likeness to one chosen before`.

    Args:
        candidates: Best first; of equals, the earlier one is taken.
        relevance: Of each, on the scale of a cosine; what is not finite counts as -1.
        vectors: float32[n, d] of unit length; their product is the likeness.
        lambda_mult: 1 is pure relevance, 0 pure diversity, as LangChain documents it.
        count: How many are wanted.

    Raises:
        ModelError: There is not one vector for each.
    """
    import numpy as np

    if np.ndim(vectors) != 2 or len(vectors) != len(candidates):
        raise ModelError(f"Vectors of shape {np.shape(vectors)} for {len(candidates)} passages")
    value = np.nan_to_num(np.asarray(relevance, np.float64), nan=-1.0, posinf=1.0, neginf=-1.0)
    likeness = np.nan_to_num(vectors.astype(np.float64) @ vectors.astype(np.float64).T, nan=1.0)
    left = list(range(len(candidates)))
    chosen: list[int] = []
    while left and len(chosen) < count:
        near = likeness[np.ix_(left, chosen)].max(axis=1) if chosen else np.zeros(len(left))
        # Rounded, because the same numbers added up in another order differ in their last bits.
        gain = np.round(lambda_mult * value[left] - (1 - lambda_mult) * near, 6)
        chosen.append(left.pop(int(np.argmax(gain))))
    return tuple(candidates[place] for place in chosen)
