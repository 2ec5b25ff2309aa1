"""Question -> candidates: both legs of the store, also for its expansions, fused by reciprocal rank.

Every leg's rank and score stays on the candidate, and is the question's own. Knows nothing of the reranker.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from .errors import ModelError, reason
from .timed import within
from .types import Candidate, Chunk, Expansion, Hit, Rankings, Scores, SparseVector, Where

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .protocols import Embedder, SparseEncoder

Item = TypeVar("Item", str, int)
_AT_ONCE = 100
"""Passages that are scored by one search: a filter has a most of conditions."""


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


@dataclass(frozen=True, slots=True, eq=False)
class FirstPass:
    """What the question alone found, and what it was looked for by; a leg that failed has no vector."""

    rankings: Rankings
    dense: NDArray[np.float32] | None
    sparse: SparseVector | None
    degraded: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pooled:
    """Candidates in fused order, and what went wrong on the way."""

    candidates: tuple[Candidate, ...]
    degraded: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def retrieve(  # noqa: PLR0913 - what a search depends on
    query: str,
    *,
    embedder: Embedder,
    sparse_encoder: SparseEncoder,
    store: Searchable,
    fetch_k: int = 100,
    rrf_k: int = 60,
    dense_weight: float = 1.0,
    where: Where | None = None,
) -> list[Candidate]:
    """Fetch `fetch_k` passages from each leg and fuse them, best first, without any expansion.

    Returns:
        Between 0 and `2 * fetch_k` candidates with dense, sparse and fused scores and ranks.
    """
    first = first_pass(
        query, embedder=embedder, sparse_encoder=sparse_encoder, store=store, fetch_k=fetch_k, where=where
    )
    return list(pool(first, (), store=store, rrf_k=rrf_k, dense_weight=dense_weight).candidates)


def first_pass(
    query: str,
    *,
    embedder: Embedder,
    sparse_encoder: SparseEncoder,
    store: Searchable,
    fetch_k: int = 100,
    where: Where | None = None,
    until: float | None = None,
) -> FirstPass:
    """Search both legs for the question; where one cannot be, the other does alone.

    Args:
        query: The question.
        embedder: Not waited for after `until`, a `time.monotonic()` value.
        sparse_encoder: For the sparse leg.
        store: Where to look.
        fetch_k: Most passages of each leg.
        where: Keep only chunks whose metadata equals this.
        until: See `embedder`.

    Raises:
        ModelError: Neither leg can be searched.
        StoreError: The index cannot be read.
    """
    dense, no_dense = _tried(lambda: _finite(_embedded_query(embedder, query, until)))
    sparse, no_sparse = _tried(lambda: sparse_encoder.encode_query(query))
    if dense is None and sparse is None:
        raise ModelError(f"The question can be searched neither by meaning nor by words: {no_dense}")
    rankings = store.search(dense, sparse, limit=fetch_k, where=where)
    failed = (("dense", no_dense, "meaning"), ("sparse", no_sparse, "words"))
    return FirstPass(
        rankings,
        dense,
        sparse,
        degraded=tuple(leg for leg, why, _ in failed if why),
        notices=tuple(f"The question was not searched by its {by}: {why}" for _, why, by in failed if why),
    )


def pool(
    first: FirstPass,
    further: Sequence[tuple[float, Rankings]],
    *,
    store: Searchable,
    rrf_k: int = 60,
    dense_weight: float = 1.0,
) -> Pooled:
    """Fuse the question's own legs with those of further searches.

    What only a further search found gets the question's own cosine and BM25 by one more search, so that
    a reranker meets the scores that it knows.

    Args:
        first: What the question itself found.
        further: Weight and rankings of each expansion.
        store: Where the question is looked for again.
        rrf_k: Constant of reciprocal rank fusion.
        dense_weight: Of dense legs; the question's own BM25 has 1, an expansion's the weight of that.
    """
    own = _by_id(first.rankings)
    foreign = {key: hit for _, rankings in further for key, hit in _by_id(rankings).items() if key not in own}
    hits = own | _scored_by_question(first, [hit.chunk for hit in foreign.values()], store)
    dense_rank, sparse_rank = _ranks(first.rankings.dense, "dense"), _ranks(first.rankings.sparse, "sparse")
    legs = [dense_rank, sparse_rank]
    legs += [_ranks(leg, name) for _, rankings in further for name, leg in _legs(rankings)]
    weights = [
        factor for weight in (1.0, *(w for w, _ in further)) for factor in (weight * dense_weight, weight)
    ]
    fused = reciprocal_rank_fusion([list(leg) for leg in legs], k=rrf_k, weights=weights)
    order = sorted(fused, key=lambda key: (-fused[key], *_tie(hits[key])))
    indexed = store.count()
    lexical = first.sparse is not None and first.rankings.lexical
    candidates = tuple(
        Candidate(
            chunk=hits[key].chunk,
            scores=Scores(
                dense=None if first.dense is None else _number(hits[key].dense),
                dense_rank=dense_rank.get(key),
                sparse=_number(hits[key].sparse) if lexical else None,
                sparse_rank=sparse_rank.get(key),
                indexed=indexed,
                fused=fused[key],
                fused_rank=rank,
            ),
        )
        for rank, key in enumerate(order, start=1)
    )
    return Pooled(candidates, first.degraded, (*first.notices, *_broken(hits)))


@dataclass(frozen=True, slots=True)
class Further:
    """The rankings of each expansion, in order, and what could not be looked for."""

    rankings: tuple[Rankings, ...]
    notices: tuple[str, ...] = ()


def search_expansions(
    expansions: Sequence[Expansion],
    *,
    embedder: Embedder | None,
    sparse_encoder: SparseEncoder,
    store: Searchable,
    fetch_k: int = 100,
    where: Where | None = None,
    until: float | None = None,
) -> Further:
    """Search for each expansion: weighted terms, a made-up passage, or a question in both legs.

    Args:
        expansions: What to look for.
        embedder: None where the dense leg failed for the question itself: it is not tried again. Not waited
            for after `until`, a `time.monotonic()` value.
        sparse_encoder: For the sparse leg.
        store: Where to look.
        fetch_k: Most passages of each leg.
        where: Keep only chunks whose metadata equals this.
        until: See `embedder`.
    """
    rankings: list[Rankings] = []
    failed: list[str] = []
    for expansion in expansions:
        dense: NDArray[np.float32] | None = None
        sparse, no_sparse, no_dense = expansion.terms, "", ""
        if expansion.terms is None and not expansion.passage:
            sparse, no_sparse = _tried(lambda text=expansion.text: sparse_encoder.encode_query(text))  # type: ignore[misc]
        if expansion.terms is None and embedder is not None:
            dense, no_dense = _tried(lambda one=expansion: _finite(_embedded(embedder, one, until)))  # type: ignore[misc]
        failed += [why for why in (no_sparse, no_dense) if why]
        nothing = dense is None and sparse is None
        rankings.append(
            Rankings((), ()) if nothing else store.search(dense, sparse, limit=fetch_k, where=where)
        )
    return Further(
        tuple(rankings),
        tuple(f"An expansion was not searched in full: {why}" for why in dict.fromkeys(failed)),
    )


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[Item]], *, k: int = 60, weights: Sequence[float] | None = None
) -> dict[Item, float]:
    """Sum of `weight / (k + rank)` over the rankings that hold an id, ranks from 1.

    Cormack, Clarke and Büttcher (2009), "Reciprocal rank fusion outperforms Condorcet and individual rank
    learning methods", SIGIR.
    """
    fused: dict[Item, float] = {}
    for ranking, weight in zip(rankings, weights or [1.0] * len(rankings), strict=True):
        for rank, item in enumerate(ranking, start=1):
            fused[item] = fused.get(item, 0.0) + weight / (k + rank)
    return fused


def _embedded(embedder: Embedder, expansion: Expansion, until: float | None) -> NDArray[np.float32]:
    """A made-up passage as passages are, a question as questions are."""
    if not expansion.passage:
        return _embedded_query(embedder, expansion.text, until)
    rows = within(lambda: embedder.embed_documents([expansion.text]), until, of=embedder.fingerprint)
    row: NDArray[np.float32] = rows[0]
    return row


def _embedded_query(embedder: Embedder, text: str, until: float | None) -> NDArray[np.float32]:
    return within(lambda: embedder.embed_query(text), until, of=embedder.fingerprint)


Made = TypeVar("Made")


def _tried(make: Callable[[], Made]) -> tuple[Made | None, str]:
    """What was made, or why not: a seam is open to anybody's backend, which raises what it likes."""
    try:
        return make(), ""
    except Exception as error:  # noqa: BLE001
        return None, reason(error)


def _finite(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np

    if not np.isfinite(vector).all():
        raise ModelError("the embedder gave numbers that are not finite")
    return vector


def _by_id(rankings: Rankings) -> dict[str, Hit]:
    return {hit.chunk.id: hit for leg in (rankings.dense, rankings.sparse) for hit in leg}


def _legs(rankings: Rankings) -> tuple[tuple[str, tuple[Hit, ...]], ...]:
    return ("dense", rankings.dense), ("sparse", rankings.sparse)


def _scored_by_question(first: FirstPass, chunks: Sequence[Chunk], store: Searchable) -> dict[str, Hit]:
    """Hits with the question's own scores; 0 for what has changed between the searches."""
    hits = {chunk.id: Hit(chunk, 0.0, 0.0) for chunk in chunks}
    for start in range(0, len(chunks), _AT_ONCE):
        some = chunks[start : start + _AT_ONCE]
        only = {"or": [{"document_id": chunk.document_id, "chunk_id": chunk.position} for chunk in some]}
        found = store.search(first.dense, first.sparse, limit=len(some), where=only)
        hits |= {key: hit for key, hit in _by_id(found).items() if key in hits}
    return hits


def _ranks(leg: Sequence[Hit], score: str) -> dict[str, int]:
    """Ranks by id. An engine adds up in any order: scores that differ in their last bits alone are equal."""
    digits = 6 if score == "dense" else 4
    order = sorted(leg, key=lambda hit: (-_orderly(getattr(hit, score), digits), *hit.chunk.place))
    return {hit.chunk.id: rank for rank, hit in enumerate(order, start=1)}


def _orderly(score: float, digits: int) -> float:
    """What is no number is last: a NaN among the keys of a sort leaves any order behind."""
    return round(score, digits) if math.isfinite(score) else -math.inf


def _number(score: float) -> float | None:
    return score if math.isfinite(score) else None


def _broken(hits: Mapping[str, Hit]) -> list[str]:
    count = sum(not (math.isfinite(hit.dense) and math.isfinite(hit.sparse)) for hit in hits.values())
    return [f"{count} of {len(hits)} passages have a score that is no finite number"] if count else []


def _tie(hit: Hit) -> tuple[float, str, int, str]:
    return -_orderly(hit.dense, 6), *hit.chunk.place
