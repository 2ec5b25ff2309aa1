"""Texts that no search has found get the first-stage scores that the bundled reranker builds on."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from crossrag import Rag, assembly
from crossrag.config import RerankingSettings, Settings
from crossrag.errors import UsageError
from crossrag.freestanding import FreestandingReranker, first_stage_scores
from crossrag.registry import load
from crossrag.score_cache import CachedReranker
from crossrag.server.batching import shared
from crossrag.testing import Fault, HashedEmbedder, HashedTerms, OverlapReranker

TEXTS = [
    "The canteen is open from eleven to two.",
    "Parental leave lasts fourteen months, of which two are for the other parent.",
    "The office is closed on public holidays.",
    "Leave must be asked for in writing.",
]
QUESTION = "How long is parental leave?"


def test_bm25_and_cosine_are_those_of_an_index_of_these_texts(tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    with Rag.open(tmp_path / "index") as rag:
        rag.ingest(folder)
        found = {candidate.chunk.text: candidate.scores for candidate in rag.search(QUESTION, top_k=9)}
        made = first_stage_scores(
            QUESTION,
            [f"{number}\n{text}" for number, text in enumerate(TEXTS)],
            embedder=rag.embedder,
            sparse_encoder=rag.sparse_encoder,
        )
    for text, scores in zip(TEXTS, made, strict=True):
        indexed = found[text]
        assert indexed.sparse is not None
        assert indexed.dense is not None
        # The file's name is a title, which the index embeds, too.
        assert scores.sparse == pytest.approx(indexed.sparse, rel=0.1, abs=0.01)
        assert scores.dense == pytest.approx(indexed.dense, abs=0.1)
        assert scores.indexed == indexed.indexed == len(TEXTS)


def test_scores_are_those_of_the_inner_reranker_with_a_first_stage() -> None:
    inner, embedder = load("rerankers", "progressive:bundled"), load("embedders", "onnx:bundled")
    terms = load("sparse_encoders", "bm25")
    free = FreestandingReranker(inner, embedder=embedder, sparse_encoder=terms)
    made = first_stage_scores(QUESTION, TEXTS, embedder=embedder, sparse_encoder=terms)
    said = free.score(QUESTION, TEXTS)
    assert said == inner.score(QUESTION, TEXTS, first_stage=made)
    assert said.logit.index(max(said.logit)) == 1
    assert free.score(QUESTION, TEXTS, first_stage=made[::-1]) != said  # what is given is taken
    assert inner.fingerprint in free.fingerprint


def test_nothing_and_unknown_words_do_no_harm() -> None:
    free = FreestandingReranker(
        load("rerankers", "progressive:bundled"),
        embedder=load("embedders", "onnx:bundled"),
        sparse_encoder=load("sparse_encoders", "bm25"),
    )
    assert free.score(QUESTION, []).logit == ()
    assert all(map(math.isfinite, free.score("the of", ["", "the"]).logit))


@pytest.mark.parametrize("model", ["progressive:bundled", "torch:bundled"])
def test_a_rag_reranks_texts_that_are_in_no_index(tmp_path: Path, model: str) -> None:
    with Rag.open(tmp_path / "index", reranking={"model": model, "device": "cpu"}) as rag:
        said = rag.rerank(QUESTION, TEXTS)
        made = first_stage_scores(QUESTION, TEXTS, embedder=rag.embedder, sparse_encoder=rag.sparse_encoder)
        assert rag.reranker is not None
        assert said == rag.reranker.score(QUESTION, TEXTS, first_stage=made)
        assert rag.rerank(QUESTION, TEXTS, deadline=0.0).unread == (True,) * len(TEXTS)
    assert not (tmp_path / "index").exists()
    with Rag.open(tmp_path / "index", reranking={"model": "none"}) as rag, pytest.raises(UsageError):
        rag.rerank(QUESTION, TEXTS)


def wrapped(reranker: object, model: str = "progressive:bundled") -> bool:
    made = assembly.freestanding(
        Settings(reranking=RerankingSettings(model=model)),
        reranker,  # type: ignore[arg-type]
        embedder=HashedEmbedder(),
        sparse_encoder=HashedTerms(),
    )
    assert not getattr(made, "residual", False), "it still wants a first stage"
    return isinstance(made, FreestandingReranker)


class Plain(OverlapReranker):
    """Says that it needs no first stage."""

    residual = False


@pytest.mark.parametrize("model", ["progressive:bundled", "torch:bundled"])
def test_a_first_stage_is_made_for_a_residual_reranker_behind_whatever_it_is(
    model: str, tmp_path: Path
) -> None:
    inner = load("rerankers", model, device="cpu")
    one_for_all = shared(inner, batch_tokens=1_024)
    remembering = CachedReranker(one_for_all, tmp_path / "scores.sqlite")
    for reranker in (inner, one_for_all, remembering, Fault(inner, at=())):
        # The settings may name something else: somebody has given the object.
        assert wrapped(reranker, "onnx:elsewhere")
    remembering.close()
    assert not wrapped(Plain())
    assert not wrapped(shared(Plain(), batch_tokens=1_024))


@pytest.mark.parametrize(
    ("model", "residual"), [("progressive:bundled", True), ("torch:bundled", True), ("http:tei", False)]
)
def test_of_an_object_that_says_nothing_the_settings_decide(
    model: str, *, residual: bool, tmp_path: Path
) -> None:
    """A client of replicas elsewhere does not know what they run."""
    client = OverlapReranker()
    remembering = CachedReranker(client, tmp_path / "scores.sqlite")
    for reranker in (client, shared(client, batch_tokens=1_024), remembering):
        assert wrapped(reranker, model) is residual
    remembering.close()
