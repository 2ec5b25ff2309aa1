"""A Reranker for texts that no search has found: makes the first-stage scores that a residual reranker needs.

Wraps another Reranker. Knows nothing of indexes: how rare a word is, it counts in the given texts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .blocks import in_blocks, is_over
from .types import Relevance, Scores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .protocols import Embedder, Reranker, SparseEncoder
    from .types import SparseVector

_BLOCK = 4_096
"""Characters that are embedded between two looks at the clock: a batch of the bundled embedder."""


class FreestandingReranker:
    """Gives the inner reranker cosine and BM25 of every text where the caller has none.

    The bundled reranker corrects what the first stage says; on its own it ranks far worse (its model card).
    Embedding the texts costs about as much as reading them.

    Args:
        inner: The reranker.
        embedder: For the cosine.
        sparse_encoder: For BM25.
    """

    residual = False
    """Any more: what the inner reranker corrects is made here."""

    def __init__(self, inner: Reranker, *, embedder: Embedder, sparse_encoder: SparseEncoder) -> None:
        self.inner, self._embedder, self._sparse_encoder = inner, embedder, sparse_encoder

    @property
    def fingerprint(self) -> str:
        """Of all three: each changes scores."""
        parts = (self.inner, self._embedder, self._sparse_encoder)
        return "freestanding:" + "+".join(part.fingerprint for part in parts)

    def score(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,
        top_k: int | None = None,
        deadline: float | None = None,
    ) -> Relevance:
        """As the inner reranker's. BM25 made here depends on the other texts, and so does the score.

        Where the deadline passes before all have a first stage, none is read.
        """
        if first_stage is None and texts:
            first_stage = self._first_stage(query, texts, deadline)
            if first_stage is None:
                return Relevance.of_unread(len(texts))
        return self.inner.score(query, texts, first_stage=first_stage, top_k=top_k, deadline=deadline)

    def _first_stage(self, query: str, texts: Sequence[str], deadline: float | None) -> list[Scores] | None:
        """None where there was no time."""
        import numpy as np

        if deadline is None:
            return first_stage_scores(
                query, texts, embedder=self._embedder, sparse_encoder=self._sparse_encoder
            )
        rows: list[NDArray[np.float32]] = []
        documents: list[SparseVector] = []
        for block in in_blocks(texts, _BLOCK):
            if is_over(deadline):
                return None
            rows.append(self._embedder.embed_documents(block))
            documents += self._sparse_encoder.encode_documents(block)
        if is_over(deadline):
            return None
        cosines = np.concatenate(rows) @ self._embedder.embed_query(query)
        return _scores(cosines, documents, self._sparse_encoder.encode_query(query))


def first_stage_scores(
    query: str, texts: Sequence[str], *, embedder: Embedder, sparse_encoder: SparseEncoder
) -> list[Scores]:
    """Cosine and BM25 of each text, as if these texts were the index."""
    cosines = embedder.embed_documents(texts) @ embedder.embed_query(query)
    documents = sparse_encoder.encode_documents(texts)
    return _scores(cosines, documents, sparse_encoder.encode_query(query))


def _scores(
    cosines: NDArray[np.float32], vectors: Sequence[SparseVector], asked: SparseVector
) -> list[Scores]:
    """BM25 out of the weights of terms, beside the cosines.

    Robertson and Zaragoza (2009), "The Probabilistic Relevance Framework: BM25 and Beyond", with the inverse
    document frequency that never is negative, as Qdrant has it.
    """
    documents = [dict(zip(vector.indices, vector.values, strict=True)) for vector in vectors]
    holding = Counter(term for document in documents for term in document)
    count = len(vectors)
    rarity = {
        term: weight * math.log1p((count - holding[term] + 0.5) / (holding[term] + 0.5))
        for term, weight in zip(asked.indices, asked.values, strict=True)
    }
    return [
        Scores(
            dense=float(cosine),
            sparse=math.fsum(rarity[term] * document[term] for term in rarity if term in document),
            indexed=count,
        )
        for cosine, document in zip(cosines, documents, strict=True)
    ]
