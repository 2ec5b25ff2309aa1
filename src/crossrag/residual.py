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


USUAL_PASSAGES = 10_000
_LEAST_GROWTH = 0.3


def bm25_unit(question: str, passages: int | None) -> float:
    """What a BM25 score is divided by to be compared between questions and between indexes.

    BM25 is a sum over the words of the question, so it grows with the root of their number; and what a rare
    word counts grows with the logarithm of the number of passages.

    Args:
        question: Whose words were looked for.
        passages: How many are indexed; None where that is not known, and counts as `USUAL_PASSAGES`.
    """
    growth = 1.0 if passages is None else math.log1p(passages) / math.log1p(USUAL_PASSAGES)
    return math.sqrt(max(1, len(question.split()))) * max(_LEAST_GROWTH, growth)


def comparable(question: str, first_stage: NDArray[np.float32], passages: int | None) -> NDArray[np.float32]:
    """Float32[n, 2] of cosine and BM25 to the same with BM25 per `bm25_unit`."""
    import numpy as np

    divisors = np.asarray([1.0, bm25_unit(question, passages)], np.float32)
    return (first_stage / divisors).astype(np.float32)


def first_stage_share(weights: Mapping[str, Any], query: str, first_stage: Sequence[Scores]) -> list[float]:
    """One share per text. A leg that was not searched counts as is typical.

    Args:
        weights: `dense`, `sparse` and `typical`, as in a model's config.
        query: The question.
        first_stage: Of each text.
    """
    usual_dense, usual_sparse = weights["typical"]
    return [
        weights["dense"] * (usual_dense if scores.dense is None else scores.dense)
        + weights["sparse"]
        * (usual_sparse if scores.sparse is None else scores.sparse / bm25_unit(query, scores.indexed))
        for scores in first_stage
    ]
