"""What is down is done without, and said: reranker, embedder, language model; a store is an error."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crossrag.errors import GeneratorError, ModelError, StoreError
from crossrag.testing import (
    CannedGenerator,
    Fault,
    HashedEmbedder,
    HashedTerms,
    OverlapGrounder,
    OverlapReranker,
)
from crossrag.types import Hit, Rankings, Relevance, Turn

from .query_path import QUESTION, Model, as_json, fake_rag

if TYPE_CHECKING:
    from crossrag import Rag

DOWN = GeneratorError("The server is down", retryable=True)


@pytest.fixture(scope="module")
def place(in_memory: Path) -> Path:
    with fake_rag(in_memory):
        pass
    return in_memory


def faulty_store(rag: Rag, **fault: Any) -> Fault:
    fault.setdefault("error", StoreError("the disk is gone"))
    wrapped = Fault(rag.store, methods={"search", "neighbours"}, **fault)
    rag.index._pair._store = wrapped
    return wrapped


SEAMS = ("rerank", "dense", "llm", "store")
COMBINATIONS = [some for count in range(5) for some in combinations(SEAMS, count)]


@pytest.mark.parametrize("down", COMBINATIONS, ids="+".join)
def test_every_combination_of_what_may_be_down(place: Path, down: tuple[str, ...]) -> None:
    parts: dict[str, Any] = {}
    if "rerank" in down:
        parts["reranker"] = Fault(OverlapReranker(), error=ModelError("no reranker"))
    if "dense" in down:
        parts["embedder"] = Fault(HashedEmbedder(), methods={"embed_query"}, error=ModelError("no embedder"))
    if "llm" in down:
        parts["generator"] = Fault(CannedGenerator([]), error=DOWN)
    with fake_rag(place, llm=True, **parts) as rag:
        if "store" in down:
            faulty_store(rag)
            with pytest.raises(StoreError, match="disk is gone"):
                rag.ask(QUESTION)
            return
        answer = rag.ask(QUESTION)
    expected = set(down)
    if "llm" in down and len(down) > 1:
        expected.add("quotes")
    assert set(answer.degraded) == expected
    assert answer.status == "answered"
    assert "backup.md" in answer.citations[0].source
    assert "restore command" in answer.text
    scores = [candidate.scores for candidate in answer.ranking]
    assert all((score.dense is None) == ("dense" in down) for score in scores)
    assert all(score.relevance is None for score in scores) == ("rerank" in down)
    # Everything that is missing is said, and nothing else.
    assert len(answer.notices) == len(expected)
    as_json(answer)


@pytest.mark.parametrize(
    "seam", ["embedder", "sparse_encoder", "reranker", "generator", "grounder", "complete"]
)
@pytest.mark.parametrize("answering", ["llm", "extractive"])
def test_any_call_of_any_seam_may_fail(place: Path, seam: str, answering: str) -> None:
    """Fail call 1, 2, 3…, until none is left: an answer each time, with what was missing."""
    extractive = answering == "extractive"
    history = [Turn(role="user", text="What is a Backup?"), Turn(role="assistant", text="A copy [1].")]
    settings: dict[str, dict[str, Any]] = {
        "expansion": {"methods": "feedback,variants,multi-query,hyde,decompose"},
        "retrieval": {"search_type": "mmr"},
        "context": {"neighbours": 1},
    }
    backends: dict[str, Any] = {
        "embedder": HashedEmbedder(),
        "sparse_encoder": HashedTerms(),
        "reranker": OverlapReranker(),
        "generator": CannedGenerator(["Run the restore command [1]."]),
        "grounder": OverlapGrounder(),
    }
    failed = 0
    # The encoder is called for every word, and the calls of a kind are alike.
    for number in [*range(1, 15), *range(15, 1_000, 150)]:
        model = Model()
        fault = Fault(backends.get(seam, model), at=[number])
        parts: dict[str, Any] = {"complete": model.ask, seam: fault}
        if seam == "complete":
            fault = Fault(model, at=[number], methods={"ask"})
            parts["complete"] = lambda prompt, fault=fault: fault.ask(prompt)
        if extractive:
            parts.pop("generator", None)
        with fake_rag(place, settings=settings, llm=not extractive, **parts) as rag:
            rag.index._pair.store(create=False)
            before = fault.calls
            try:
                answer = rag.ask("How do I restore it?", history=history)
            except GeneratorError:
                # A language model that fails in the middle of its answer is the only one without an answer.
                assert seam == "generator"
                continue
        if number <= before:
            continue
        if fault.calls < number:
            break
        failed += 1
        assert answer.status in {"answered", "partial"}, (number, answer)
        as_json(answer)
        if seam != "sparse_encoder":
            assert answer.degraded, number
    else:
        pytest.fail("there is no end of calls")
    # Quotes stand verbatim in their source: no grounder is asked about them.
    assert failed or (extractive and seam in {"generator", "grounder"})


NONSENSE = {"nan": math.nan, "inf": math.inf, "minus inf": -math.inf, "minus zero": -0.0, "a tie": 0.5}


@pytest.mark.parametrize("value", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("where", ["embedding", "store", "rerank"])
def test_numbers_that_are_none_leave_a_total_order(place: Path, where: str, value: float) -> None:
    def embedding(_: str, said: Any) -> Any:
        return said * value

    def rerank(_: str, said: Relevance) -> Relevance:
        relevance = (value, *said.relevance[1:-1], value)
        return replace(said, relevance=relevance, logit=(value, *said.logit[1:-1], value))

    def store(_: str, said: Rankings) -> Rankings:
        return Rankings(
            tuple(
                Hit(hit.chunk, value if n % 2 else hit.dense, hit.sparse) for n, hit in enumerate(said.dense)
            ),
            tuple(
                Hit(hit.chunk, hit.dense, value if n % 2 else hit.sparse) for n, hit in enumerate(said.sparse)
            ),
        )

    parts: dict[str, Any] = {}
    if where == "embedding":
        parts["embedder"] = Fault(HashedEmbedder(), methods={"embed_query"}, instead=embedding)
    if where == "rerank":
        parts["reranker"] = Fault(OverlapReranker(), instead=rerank)
    seen = []
    for _ in range(2):
        with fake_rag(place, **parts) as rag:
            if where == "store":
                faulty_store(rag, instead=store)
            ranking = rag.search(QUESTION, top_k=50)
            seen.append(as_json(ranking))
            ranks = [candidate.scores.fused_rank for candidate in ranking]
            assert sorted(ranks, key=lambda rank: rank or 0) == list(range(1, len(ranks) + 1))
            if not math.isfinite(value):
                assert ranking.notices
            as_json(rag.ask(QUESTION))
    assert seen[0] == seen[1]


def test_both_legs_down_is_an_error(place: Path) -> None:
    broken = Fault(HashedTerms(), methods={"encode_query"})
    with (
        fake_rag(
            place, embedder=Fault(HashedEmbedder(), methods={"embed_query"}), sparse_encoder=broken
        ) as rag,
        pytest.raises(ModelError, match="neither by meaning nor by words"),
    ):
        rag.ask(QUESTION)


def test_nothing_relevant_says_so_and_cites_nothing(place: Path) -> None:
    with fake_rag(place) as rag:
        answer = rag.ask("Who won the chess championship in Reykjavik?")
        assert (answer.status, answer.citations, answer.context.sources) == ("no_answer", (), ())


def test_an_empty_index_says_so_and_cites_nothing(tmp_path: Path) -> None:
    with fake_rag(tmp_path) as rag:
        for document in (tmp_path / "docs").iterdir():
            document.unlink()
        rag.ingest(tmp_path / "docs")
        assert rag.documents() == []
        answer = rag.ask(QUESTION)
        assert (answer.status, answer.citations, answer.context.sources) == ("no_answer", (), ())
        assert rag.search(QUESTION).candidates == ()
