"""What every adapter shares: what was not read comes last, without score; the threshold is the settings'."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from crossrag import Rag, Settings
from crossrag.config import IndexSettings, RerankingSettings
from crossrag.errors import ConfigError
from crossrag.integrations import ranking
from crossrag.testing import Fault, HashedEmbedder, HashedTerms, OverlapReranker
from crossrag.types import Relevance


class Partly:
    """Reads every second text, all of them as hardly relevant."""

    fingerprint = "partly"

    def score(self, query: str, texts: Sequence[str], **_: Any) -> Relevance:  # noqa: ARG002
        logits = [math.nan if place % 2 else -1.0 - place for place in range(len(texts))]
        return Relevance(
            relevance=tuple(1 / (1 + math.exp(-logit)) for logit in logits),
            logit=tuple(logits),
            truncated=tuple(place == 4 for place in range(len(texts))),
            unread=tuple(map(math.isnan, logits)),
        )


def made(path: Path, reranker: Any, **reranking: Any) -> Rag:
    settings = Settings(index=IndexSettings(path=path), reranking=RerankingSettings(**reranking))
    return Rag(settings, embedder=HashedEmbedder(), sparse_encoder=HashedTerms(), reranker=reranker)


def test_what_was_not_read_is_last_in_its_order_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with made(tmp_path, Partly()) as rag, caplog.at_level(logging.WARNING):
        read = ranking.rerank(rag, "cat", ["a", "b", "c", "d", "e"])
        relevant = ranking.rerank(rag, "cat", ["a", "b", "c", "d", "e"], min_relevance=0.0)
    assert [one.place for one in read] == [0, 2, 4, 1, 3]
    assert [one.logit for one in read] == [-1.0, -3.0, -5.0, None, None]
    assert [one.relevance is None for one in read] == [False, False, False, True, True]
    assert [one.truncated for one in read] == [False, False, True, False, False]
    assert "2 of 5 texts were not read" in caplog.text
    assert relevant == read[:3]


def test_a_wanted_precision_that_is_not_known_is_an_error_only_where_it_counts(
    tmp_path: Path, corpus: Path
) -> None:
    with made(tmp_path / "index", OverlapReranker(), threshold="precision>=0.9") as rag:
        rag.ingest(corpus)
        assert ranking.retrieve(rag, "blue whale", top_k=1)
        with pytest.raises(ConfigError, match="crossrag calibrate"):
            ranking.retrieve(rag, "blue whale", relevant_only=True)


def test_a_reranker_that_is_down_is_said_and_leaves_no_scores(
    tmp_path: Path, corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    down = Fault(OverlapReranker(), methods=["score"])
    with made(tmp_path / "index", down) as rag, caplog.at_level(logging.WARNING):
        rag.ingest(corpus)
        found = ranking.retrieve(rag, "blue whale", top_k=2, relevant_only=True)
    assert [one.score for one in found] == [None, None]
    assert all("rerank" in one.metadata["degraded"] for one in found)
    assert "rerank" in caplog.text
