"""A Reranker for texts that no search has found: makes the first-stage scores that a residual reranker needs.

Wraps another Reranker. Knows nothing of indexes: how rare a word is, it counts in the given texts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .types import Scores

if TYPE_CHECKING:
    from .protocols import Embedder, Reranker, SparseEncoder
    from .types import Relevance


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
        """As the inner reranker's. BM25 made here depends on the other texts, and so does the score."""
        if first_stage is None and texts:
            first_stage = first_stage_scores(
                query, texts, embedder=self._embedder, sparse_encoder=self._sparse_encoder
            )
        return self.inner.score(query, texts, first_stage=first_stage, top_k=top_k, deadline=deadline)


def first_stage_scores(
    query: str, texts: Sequence[str], *, embedder: Embedder, sparse_encoder: SparseEncoder
) -> list[Scores]:
    """Cosine and BM25 of each text, as if these texts were the index.

    Robertson and Zaragoza (2009), "The Probabilistic Relevance Framework: BM25 and Beyond", with the inverse
    document frequency that never is negative, as Qdrant has it.
    """
    cosines = embedder.embed_documents(texts) @ embedder.embed_query(query)
    documents = [
        dict(zip(vector.indices, vector.values, strict=True))
        for vector in sparse_encoder.encode_documents(texts)
    ]
    asked = sparse_encoder.encode_query(query)
    holding = Counter(term for document in documents for term in document)
    count = len(texts)
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
