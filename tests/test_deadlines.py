"""A deadline bounds the whole way to an answer, whatever is slow; what there was no time for is said."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crossrag.errors import IndexMissingError, StoreError
from crossrag.testing import (
    CannedGenerator,
    Fault,
    HashedEmbedder,
    OverlapGrounder,
    OverlapReranker,
)
from crossrag.types import Answer, Done, Retrieved

from .query_path import QUESTION, Model, fake_rag

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crossrag import Rag


@pytest.fixture(scope="module")
def place(in_memory: Path) -> Path:
    with fake_rag(in_memory):
        pass
    return in_memory


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
