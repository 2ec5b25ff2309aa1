"""Fusion by hand, and candidates that keep what every leg said."""

from __future__ import annotations

import pytest

from crossrag.retrieval import reciprocal_rank_fusion, retrieve
from crossrag.testing import HashedEmbedder, HashedTerms, MemoryStore, StoreContract


def test_fusion_by_hand() -> None:
    # a: first and third; b: second and first; c: only third in the first ranking.
    fused = reciprocal_rank_fusion([["a", "b", "c"], ["b", "d", "a"]], k=60)
    assert fused["a"] == pytest.approx(1 / 61 + 1 / 63)
    assert fused["b"] == pytest.approx(1 / 62 + 1 / 61)
    assert fused["c"] == pytest.approx(1 / 63)
    assert sorted(fused, key=lambda item: -fused[item]) == ["b", "a", "d", "c"]


def test_candidates_keep_the_rank_and_score_of_every_leg() -> None:
    store = MemoryStore()
    StoreContract().fill(store)
    found = retrieve(
        "restore a backup", embedder=HashedEmbedder(), sparse_encoder=HashedTerms(), store=store, fetch_k=3
    )
    assert found[0].chunk.position == 2
    first = found[0].scores
    assert (first.dense_rank, first.sparse_rank, first.fused_rank) == (1, 1, 1)
    assert first.fused == pytest.approx(2 / 61)
    assert [candidate.scores.fused_rank for candidate in found] == list(range(1, len(found) + 1))
    one_leg = [candidate for candidate in found if candidate.scores.sparse_rank is None]
    assert one_leg
    assert all(candidate.scores.dense is not None for candidate in found)


def test_the_dense_leg_weighs_what_is_set() -> None:
    store = MemoryStore()
    StoreContract().fill(store)
    found = retrieve(
        "restore a backup",
        embedder=HashedEmbedder(),
        sparse_encoder=HashedTerms(),
        store=store,
        rrf_k=10,
        dense_weight=3.0,
    )
    for candidate in found:
        scores = candidate.scores
        dense = 3 / (10 + scores.dense_rank) if scores.dense_rank else 0.0
        sparse = 1 / (10 + scores.sparse_rank) if scores.sparse_rank else 0.0
        assert scores.fused == pytest.approx(dense + sparse)


def test_no_words_and_no_passages_give_no_candidates() -> None:
    empty = retrieve("?!", embedder=HashedEmbedder(), sparse_encoder=HashedTerms(), store=MemoryStore())
    assert empty == []
