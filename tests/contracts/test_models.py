"""Every embedder and reranker keeps its contract: the fakes, and the bundled models as they ship."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from crossrag.registry import load
from crossrag.testing import EmbedderContract, HashedEmbedder, OverlapReranker, RerankerContract
from crossrag.types import Scores

if TYPE_CHECKING:
    from crossrag.protocols import Embedder, Reranker


class TestHashedEmbedder(EmbedderContract):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return HashedEmbedder()


class TestBundledEmbedder(EmbedderContract):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return load("embedders", "onnx:bundled")

    def test_meaning_beats_words(self, embedder: Embedder) -> None:
        rows = embedder.embed_documents(["The physician saw her patient.", "The bank of the river flooded."])
        query = embedder.embed_query("a doctor treating a sick person")
        assert float(rows[0] @ query) > float(rows[1] @ query) + 0.3


class TestOverlapReranker(RerankerContract):
    @pytest.fixture
    def reranker(self) -> Reranker:
        return OverlapReranker()


class TestBundledReranker(RerankerContract):
    @pytest.fixture
    def reranker(self) -> Reranker:
        return load("rerankers", "onnx:bundled")

    def test_long_passages_are_cut_and_said_so(self, reranker: Reranker) -> None:
        said = reranker.score("cats", ["cat " * 2000, "cat"], first_stage=[Scores(dense=0.5)] * 2)
        assert said.truncated == (True, False)
        assert not said.query_truncated

    def test_a_long_question_leaves_room_for_the_passage(self, reranker: Reranker) -> None:
        query = "why " * 3000
        said = reranker.score(query, ["cats", "dogs " * 10], first_stage=[Scores(dense=0.1)] * 2)
        assert said.query_truncated
        assert said.logit[0] != said.logit[1]

    def test_nothing_is_read_after_the_deadline(self, reranker: Reranker) -> None:
        said = reranker.score("cats", ["a", "b"], first_stage=[Scores(dense=0.5)] * 2, deadline=0.0)
        assert said.unread == (True, True)
        assert all(map(math.isnan, said.relevance))
