"""What the first stage says of a pair, in the logits of a reranker that is a residual over it.

One place for training and serving: a network that learned beside one share must meet the same one later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .types import Scores


def root_of_words(question: str) -> float:
    """What BM25, a sum over the words of the question, is divided by to be compared between questions."""
    return math.sqrt(max(1, len(question.split())))


def comparable(question: str, first_stage: NDArray[np.float32]) -> NDArray[np.float32]:
    """Float32[n, 2] of cosine and BM25 to the same with BM25 per root of the number of words."""
    import numpy as np

    divisors = np.asarray([1.0, root_of_words(question)], np.float32)
    return (first_stage / divisors).astype(np.float32)


def first_stage_share(weights: Mapping[str, Any], query: str, first_stage: Sequence[Scores]) -> list[float]:
    """One share per text. A leg that was not searched counts as is typical.

    Args:
        weights: `dense`, `sparse` and `typical`, as in a model's config.
        query: The question.
        first_stage: Of each text.
    """
    root = root_of_words(query)
    usual_dense, usual_sparse = weights["typical"]
    return [
        weights["dense"] * (usual_dense if scores.dense is None else scores.dense)
        + weights["sparse"] * (usual_sparse if scores.sparse is None else scores.sparse / root)
        for scores in first_stage
    ]
