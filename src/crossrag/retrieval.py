"""Question -> candidates: both legs of the store, fused by reciprocal rank.

Every leg's rank and score stays on the candidate. Knows nothing of the reranker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from .types import Candidate, Hit, Rankings, Scores, SparseVector, Where

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .protocols import Embedder, SparseEncoder

Item = TypeVar("Item", str, int)


class Searchable(Protocol):
    """A store, or an index that leaves out what is in transition."""

    def search(
        self,
        dense: NDArray[np.float32] | None,
        sparse: SparseVector | None,
        *,
        limit: int,
        where: Where | None = None,
    ) -> Rankings:
        """As `Store.search`."""
        ...

    def count(self) -> int:
        """Number of passages, by whose logarithm BM25 grows."""
        ...


def retrieve(
    query: str,
    *,
    embedder: Embedder,
    sparse_encoder: SparseEncoder,
    store: Searchable,
    fetch_k: int = 100,
    rrf_k: int = 60,
    where: Where | None = None,
) -> list[Candidate]:
    """Fetch `fetch_k` passages from each leg and fuse them, best first.

    Returns:
        Between 0 and `2 * fetch_k` candidates with dense, sparse and fused scores and ranks.
    """
    rankings = store.search(
        embedder.embed_query(query), sparse_encoder.encode_query(query), limit=fetch_k, where=where
    )
    hits = {hit.chunk.id: hit for leg in (rankings.dense, rankings.sparse) for hit in leg}
    dense_rank = _ranks(rankings.dense, lambda hit: round(hit.dense, 6))
    sparse_rank = _ranks(rankings.sparse, lambda hit: round(hit.sparse, 4))
    fused = reciprocal_rank_fusion([list(dense_rank), list(sparse_rank)], k=rrf_k)
    indexed = store.count()
    order = sorted(fused, key=lambda chunk_id: (-fused[chunk_id], *_tie(hits[chunk_id])))
    return [
        Candidate(
            chunk=hits[chunk_id].chunk,
            scores=Scores(
                dense=hits[chunk_id].dense,
                dense_rank=dense_rank.get(chunk_id),
                sparse=hits[chunk_id].sparse,
                sparse_rank=sparse_rank.get(chunk_id),
                indexed=indexed,
                fused=fused[chunk_id],
                fused_rank=rank,
            ),
        )
        for rank, chunk_id in enumerate(order, start=1)
    ]


def reciprocal_rank_fusion(rankings: Sequence[Sequence[Item]], *, k: int = 60) -> dict[Item, float]:
    """Sum of `1 / (k + rank)` over the rankings that hold an id, ranks from 1.

    Cormack, Clarke and Büttcher (2009), "Reciprocal rank fusion outperforms Condorcet and individual rank
    learning methods", SIGIR.
    """
    fused: dict[Item, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            fused[item] = fused.get(item, 0.0) + 1.0 / (k + rank)
    return fused


def _ranks(leg: Sequence[Hit], score: Callable[[Hit], float]) -> dict[str, int]:
    """Ranks by id. An engine adds up in any order: scores that differ in their last bits alone are equal."""
    order = sorted(leg, key=lambda hit: (-score(hit), *hit.chunk.place))
    return {hit.chunk.id: rank for rank, hit in enumerate(order, start=1)}


def _tie(hit: Hit) -> tuple[float, str, int, str]:
    return -round(hit.dense, 6), *hit.chunk.place
