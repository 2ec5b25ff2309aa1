"""What quotes when no model is left: sentences are weighed by the words that they share with the question.

Two stand-ins for models, which need a sparse encoder at most. Know nothing of why the models are gone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .types import Relevance, Scores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .protocols import SparseEncoder


class SharedTerms:
    """A reranker: relevance is the share of the question's terms that a text holds."""

    fingerprint = "shared-terms"

    def __init__(self, sparse_encoder: SparseEncoder) -> None:
        self._encoder = sparse_encoder

    def score(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,  # noqa: ARG002 - part of the seam
        top_k: int | None = None,  # noqa: ARG002 - part of the seam
        deadline: float | None = None,  # noqa: ARG002 - part of the seam
    ) -> Relevance:
        """One share per text, in [0, 1]; one that shares nothing has no finite logit and is not quoted."""
        wanted = set(self._encoder.encode_query(query).indices)
        shares = [
            len(wanted & set(self._encoder.encode_query(text).indices)) / max(1, len(wanted))
            for text in texts
        ]
        return Relevance(
            relevance=tuple(shares),
            logit=tuple(
                math.log((share + 1e-6) / (1 - share + 1e-6)) if share else math.nan for share in shares
            ),
            truncated=(False,) * len(texts),
            unread=(False,) * len(texts),
        )


class NoMeaning:
    """An embedder that finds nothing like anything else."""

    dimension = 1
    fingerprint = "no-meaning"

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Zeros, float32[n, 1]."""
        import numpy as np

        return np.zeros((len(texts), 1), np.float32)

    def embed_query(self, text: str) -> NDArray[np.float32]:  # noqa: ARG002 - part of the seam
        """Zeros, float32[1]."""
        import numpy as np

        return np.zeros(1, np.float32)
