"""Maximal marginal relevance: its sign, its ends, and that nothing depends on luck."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossrag.diversity import diversify
from crossrag.testing import Fault, HashedEmbedder

from .answers import candidate
from .query_path import QUESTION, fake_rag, sources

# Two that are the same, one that is less relevant and unlike them.
RELEVANCE = [0.9, 0.85, 0.5]
VECTORS = np.asarray([[1, 0], [1, 0], [0, 1]], np.float32)
THREE = [candidate("one"), candidate("two", start=10), candidate("three", start=20)]


def order(lambda_mult: float, *, count: int = 3, relevance: list[float] | None = None) -> list[str]:
    chosen = diversify(THREE, relevance or RELEVANCE, VECTORS, lambda_mult=lambda_mult, count=count)
    return [one.chunk.text for one in chosen]


def test_lambda_one_is_relevance_and_zero_is_diversity() -> None:
    assert order(1.0) == ["one", "two", "three"]
    assert order(0.0) == ["one", "three", "two"]
    # By hand: 0.7 * 0.85 - 0.3 * 1 = 0.295 for the copy, 0.7 * 0.5 = 0.35 for the other.
    assert order(0.7) == ["one", "three", "two"]
    # 0.9 * 0.85 - 0.1 = 0.665 and 0.45.
    assert order(0.9) == ["one", "two", "three"]
    assert order(0.7, count=2) == ["one", "three"]
    assert order(0.7, count=9) == order(0.7)


def test_numbers_that_are_none_come_last_and_ties_keep_their_order() -> None:
    assert order(1.0, relevance=[float("nan"), 0.1, 0.1]) == ["two", "three", "one"]
    assert order(0.5, relevance=[0.5, 0.5, 0.5])[0] == "one"
    assert diversify([], [], np.zeros((0, 2), np.float32), lambda_mult=0.5, count=3) == ()


@pytest.mark.parametrize("where", ["reranked", "fetched"])
def test_the_guide_settings_mean_what_langchain_documents(tmp_path: Path, where: str) -> None:
    found: dict[float, list[str]] = {}
    for lambda_mult in (1.0, 0.0):
        settings: dict[str, dict[str, Any]] = {
            "retrieval": {"search_type": "mmr", "fetch_k": 25, "lambda_mult": lambda_mult, "mmr": where},
            "reranking": {"top_k": 4},
        }
        with fake_rag(tmp_path, settings=settings) as rag:
            ranking = rag.search("a backup of old letters for the service")
            assert len(ranking) == 4
            found[lambda_mult] = sources(ranking)
    plain = {"reranking": {"top_k": 4}}
    with fake_rag(tmp_path, settings=plain) as rag:
        relevant = sources(rag.search("a backup of old letters for the service"))
    if where == "reranked":
        assert found[1.0] == relevant
    # The notes are all alike: diversity brings in the others.
    assert len(set(found[0.0]) & {"whales.txt", "office.txt", "backup.md"}) > len(
        set(found[1.0]) & {"whales.txt", "office.txt", "backup.md"}
    )


def test_an_embedder_that_fails_leaves_the_most_relevant(tmp_path: Path) -> None:
    with fake_rag(tmp_path):
        pass
    broken = Fault(HashedEmbedder(), methods={"embed_documents"})
    with fake_rag(tmp_path, settings={"retrieval": {"search_type": "mmr"}}, embedder=broken) as rag:
        ranking = rag.search(QUESTION)
    assert ranking.degraded == ("diversity",)
    assert len(ranking) == 6
