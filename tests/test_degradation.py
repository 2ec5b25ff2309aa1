"""What is down is done without, and said: reranker, embedder, language model; a store is an error."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crossrag.errors import GeneratorError, IndexMissingError, ModelError, StoreError
from crossrag.testing import (
    CannedGenerator,
    Fault,
    HashedEmbedder,
    HashedTerms,
    OverlapGrounder,
    OverlapReranker,
)
from crossrag.types import Answer, Done, Hit, Rankings, Relevance, Retrieved, Turn

from .query_path import QUESTION, as_json, fake_rag

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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


class Model:
    """A language model that says something usable to each prompt."""

    def ask(self, prompt: str) -> str:
        return "How is a backup restored?" if "conversation" in prompt else "restore command\nbackup service"


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


class Slow:
    """A part that takes its time and knows no deadline."""

    def __init__(self, inner: Any, seconds: float = 8.0) -> None:
        self._inner, self._seconds = inner, seconds

    def __getattr__(self, name: str) -> Any:
        if name in {"dimension", "fingerprint", "embed_documents", "encode_documents"}:
            return getattr(self._inner, name)

        def late(*arguments: Any, **named: Any) -> Any:
            time.sleep(self._seconds)
            return getattr(self._inner, name)(*arguments, **named)

        return late


class SlowWriter:
    """Says half an answer, and then nothing for long."""

    fingerprint = "slow-writer"

    def stream(self, *_: object) -> Iterator[str]:
        yield "Run the restore command [1]. "
        time.sleep(8)
        yield "Then wait."


def asked_in_time(rag: Rag, seconds: float = 1.5) -> Answer:
    begun = time.monotonic()
    events = list(rag.stream(QUESTION, deadline=seconds))
    # Ten per cent, and what a loaded machine takes to wake a thread.
    assert time.monotonic() - begun < seconds * 1.1 + 2.0
    assert isinstance(events[0], Retrieved)
    assert [isinstance(event, Done) for event in events].count(True) == 1
    last = events[-1]
    assert isinstance(last, Done)
    return last.answer


def test_a_deadline_bounds_the_whole_whatever_is_slow(place: Path) -> None:
    with fake_rag(place, llm=True, reranker=Slow(OverlapReranker())) as rag:
        answer = asked_in_time(rag)
        assert answer.degraded == ("rerank",)
        assert answer.citations
    with fake_rag(place, llm=True, embedder=Slow(HashedEmbedder())) as rag:
        assert "dense" in asked_in_time(rag).degraded
    with fake_rag(place, llm=True, generator=SlowWriter()) as rag:
        answer = asked_in_time(rag)
        assert (answer.status, answer.text.strip()) == ("partial", "Run the restore command [1].")
    model = {"expansion": {"methods": "multi-query"}}
    with fake_rag(place, settings=model, llm=True, complete=Slow(Model()).ask) as rag:
        answer = asked_in_time(rag)
        assert answer.degraded == ("expansion",)
        assert answer.status == "answered"


def test_without_any_time_the_sources_are_there(place: Path) -> None:
    no_fallback = {"generator": {"fallback": False}}
    with fake_rag(place, llm=True, settings=no_fallback, generator=Slow(CannedGenerator(["x"]))) as rag:
        answer = asked_in_time(rag)
    assert answer.context.sources
    assert (answer.status, answer.citations) == ("no_answer", ())
    assert any("time" in reason for reason in answer.reasons)


def test_a_model_that_hangs_leaves_time_to_quote(place: Path) -> None:
    with fake_rag(place, llm=True, generator=Slow(CannedGenerator(["x"]))) as rag:
        answer = asked_in_time(rag)
    assert (answer.status, answer.degraded) == ("answered", ("llm",))
    assert "restore command" in answer.text
    assert any("quoted: It wrote nothing in time" in notice for notice in answer.notices)


class SlowGrounder(OverlapGrounder):
    def support(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        time.sleep(8)
        return super().support(pairs)


class SlowDocuments(HashedEmbedder):
    """Embeds a question at once, and takes its time for passages."""

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        time.sleep(8)
        return super().embed_documents(texts)


def test_checking_is_bounded_too(place: Path) -> None:
    with fake_rag(place, llm=True, grounder=SlowGrounder()) as rag:
        answer = asked_in_time(rag)
    assert (answer.status, answer.degraded) == ("answered", ("grounding",))
    assert answer.claims[0].supported is None
    assert "Some claims were not checked: there was no time for it" in answer.notices


@pytest.mark.parametrize("when", ["fetched", "reranked"])
def test_choosing_unlike_passages_is_bounded_too(place: Path, when: str) -> None:
    settings = {"retrieval": {"search_type": "mmr", "mmr": when}}
    with fake_rag(place, llm=True, settings=settings, embedder=SlowDocuments()) as rag:
        answer = asked_in_time(rag)
        assert (answer.status, answer.degraded) == ("answered", ("diversity",))
        begun = time.monotonic()
        found = rag.search(QUESTION, deadline=0.5)
        assert time.monotonic() - begun < 2.5
        assert "diversity" in found.degraded


def test_vectors_of_another_number_than_passages_cost_the_diversity_alone(place: Path) -> None:
    settings = {"retrieval": {"search_type": "mmr"}}
    short = Fault(HashedEmbedder(), methods={"embed_documents"}, instead=lambda _, said: said[:1])
    with fake_rag(place, llm=True, settings=settings, embedder=short) as rag:
        answer = rag.ask(QUESTION)
    assert (answer.status, answer.degraded) == ("answered", ("diversity",))


class SlowNeighbours(Slow):
    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name == "neighbours" else getattr(self._inner, name)


def test_fetching_neighbours_is_bounded_too(place: Path) -> None:
    settings = {"context": {"neighbours": 1}}
    with fake_rag(place, llm=True, settings=settings) as rag:
        assert rag.ask(QUESTION, deadline=30.0).degraded == ()
        rag.index._pair._store = SlowNeighbours(rag.store)
        answer = asked_in_time(rag)
        assert (answer.status, answer.degraded) == ("answered", ("neighbours",))
        assert any("without some of their neighbours" in notice for notice in answer.notices)


def test_neighbours_are_those_of_an_index_that_was_put_in_place_meanwhile(place: Path) -> None:
    """As a search does: what another process has put another index in place of is left, and asked anew."""
    settings = {"context": {"neighbours": 1}}
    with fake_rag(place, llm=True, settings=settings) as rag:
        left: list[object] = []
        rag.index._pair.leave = left.append  # type: ignore[method-assign,assignment]
        gone = Fault(rag.store, methods={"neighbours"}, at=[1], error=IndexMissingError("gone"))
        rag.index._pair._store = gone
        assert rag.ask(QUESTION).status == "answered"
        assert left == [gone]


def test_waiting_for_an_exchange_is_bounded_too(place: Path) -> None:
    with fake_rag(place, llm=True) as rag:
        inside, over = threading.Event(), threading.Event()

        def exchanging() -> None:
            with rag.index._gate.alone():
                inside.set()
                over.wait(10)

        thread = threading.Thread(target=exchanging)
        thread.start()
        try:
            assert inside.wait(5)
            begun = time.monotonic()
            with pytest.raises(StoreError, match="did not answer in time"):
                rag.ask(QUESTION, deadline=0.3)
            with pytest.raises(StoreError, match="did not answer in time"):
                rag.search(QUESTION, deadline=0.3)
            assert time.monotonic() - begun < 3.0
        finally:
            over.set()
            thread.join()
        assert rag.ask(QUESTION, deadline=30.0).status == "answered"


def test_an_exchange_between_search_and_context_costs_the_neighbours_alone(place: Path) -> None:
    over = threading.Event()
    inside = threading.Event()
    settings = {"context": {"neighbours": 1}}
    with fake_rag(place, llm=True, settings=settings) as rag:

        def exchanging() -> None:
            with rag.index._gate.alone():
                inside.set()
                over.wait(10)

        thread = threading.Thread(target=exchanging)

        def score(_: str, said: Any) -> Any:
            thread.start()
            inside.wait(5)
            return said

        rag.__dict__["reranker"] = Fault(OverlapReranker(), instead=score, methods={"score"})
        try:
            answer = asked_in_time(rag)
        finally:
            over.set()
            thread.join()
        assert (answer.status, answer.degraded) == ("answered", ("neighbours",))


class SlowCount(Slow):
    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name == "count" else getattr(self._inner, name)


def test_counting_is_bounded_too(place: Path) -> None:
    with fake_rag(place, llm=True) as rag:
        rag.index._pair._store = SlowCount(rag.store)
        begun = time.monotonic()
        with pytest.raises(StoreError, match="did not answer in time"):
            rag.ask(QUESTION, deadline=0.5)
        assert time.monotonic() - begun < 2.5


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
