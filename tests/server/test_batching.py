"""Batching is invisible: the same scores alone and in any company, nobody else's; turns are fair."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from crossrag.registry import BUNDLED_MODELS
from crossrag.rerankers.progressive import ProgressiveReranker
from crossrag.server.batching import SharedReranker, shared
from crossrag.server.tickets import Abandoned, Ticket, working_for
from crossrag.testing import OverlapReranker
from crossrag.types import Relevance, Scores


@dataclass(eq=False)
class Pair:
    text: str
    question: str
    read: int = 0
    score: float = 0.0

    @property
    def length(self) -> int:
        return len(self.text)


def truth(question: str, text: str) -> float:
    digest = hashlib.sha256(f"{question}\n{text}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


@dataclass
class HashReading:
    pairs: list[Pair]
    size: int
    exit: int = 0
    done: bool = False
    stopped: bool = False
    batches: list[list[Pair]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._cut()

    def _cut(self) -> None:
        self.batches = [self.pairs[at : at + self.size] for at in range(0, len(self.pairs), self.size)]

    @property
    def tokens(self) -> int:
        return sum(pair.length for pair in self.pairs)

    def settle(self) -> None:
        assert all(pair.read == self.exit + 1 for pair in self.pairs)
        self.exit += 1
        self.done = self.exit == 2
        if not self.done:
            self._cut()

    def stop(self) -> None:
        self.done = self.stopped = True

    def result(self) -> Relevance:
        scores = tuple(pair.score for pair in self.pairs)
        return Relevance(
            relevance=scores,
            logit=scores,
            truncated=(False,) * len(scores),
            unread=tuple(pair.read < 2 for pair in self.pairs),
            hurried=self.stopped,
        )


class HashModel:
    """Scores that only the right pair has; keeps every batch that it was given."""

    fingerprint = "hash"

    def __init__(self, *, seconds: float = 0.0, size: int = 4) -> None:
        self.ran: list[list[Pair]] = []
        self._seconds, self._size = seconds, size

    def begin(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,  # noqa: ARG002
        top_k: int | None = None,  # noqa: ARG002
        deadline: float | None = None,  # noqa: ARG002
    ) -> HashReading:
        return HashReading([Pair(text, query) for text in texts], self._size)

    def run(self, windows: Sequence[Any]) -> None:
        self.ran.append(list(windows))
        time.sleep(self._seconds)
        if any("poison" in pair.text for pair in windows):
            raise RuntimeError("poisoned")
        assert len({pair.read for pair in windows}) == 1, "pairs of different exits in one batch"
        for pair in windows:
            pair.read += 1
            pair.score = truth(pair.question, pair.text)


def test_nobody_gets_another_ones_score() -> None:
    seed = 20_261_124
    print(f"seed {seed}")
    chance = random.Random(seed)  # noqa: S311
    questions = {
        f"question {number}": [
            "x" * chance.randint(1, 60) + str(number) for _ in range(chance.randint(1, 30))
        ]
        for number in range(50)
    }
    model = HashModel(seconds=0.0005)
    one = SharedReranker(model, batch_tokens=4_096)
    with ThreadPoolExecutor(50) as threads:
        said = dict(zip(questions, threads.map(one.score, questions, questions.values()), strict=True))
    one.close()
    for question, texts in questions.items():
        assert said[question].logit == tuple(truth(question, text) for text in texts)
    together = [batch for batch in model.ran if len({pair.question for pair in batch}) > 1]
    assert together, "no batch was shared"


class PackedModel(HashModel):
    """Lays pairs behind each other."""

    batch_tokens = 300


def test_pairs_without_padding_go_together_whatever_their_lengths() -> None:
    model = PackedModel(seconds=0.01, size=100)
    one = SharedReranker(model, batch_tokens=64)
    texts = ["x" * length for length in (1, 50, 2, 3, 4, 5)]
    questions = [f"question {number}" for number in range(12)]
    with ThreadPoolExecutor(12) as threads:
        told = list(threads.map(lambda asked: one.score(asked, texts), questions))
    one.close()
    for question, said in zip(questions, told, strict=True):
        assert said.logit == tuple(truth(question, text) for text in texts)
    sizes = [len(batch) for batch in model.ran]
    assert max(sizes) > 16, "batches end at the number of pairs that is for padding"
    assert all(sum(pair.length for pair in batch) <= 300 for batch in model.ran)


def test_the_real_model_gives_the_same_scores_in_company() -> None:
    model = ProgressiveReranker(BUNDLED_MODELS / "progressive-reranker", threads=1)
    texts = ["A backup is made at night. " * count for count in (1, 3, 9)] + ["Whales sing.", "Nine o'clock."]
    questions = ["When is a backup made?", "Who sings?", "backup", "What is the time of the nightly backup?"]
    alone = {question: model.score(question, texts) for question in questions}
    one = SharedReranker(model, batch_tokens=4_096)
    with ThreadPoolExecutor(8) as threads:
        for question, said in zip(
            questions * 2, threads.map(lambda asked: one.score(asked, texts), questions * 2), strict=True
        ):
            assert said.logit == pytest.approx(alone[question].logit, abs=1e-4)
            assert said.layers == alone[question].layers
    early = model.score(questions[0], texts, top_k=1)
    assert one.score(questions[0], texts, top_k=1).layers == early.layers
    one.close()


def test_one_that_fails_fails_alone() -> None:
    one = SharedReranker(HashModel(seconds=0.01), batch_tokens=4_096)

    def ask(question: str) -> str:
        try:
            one.score(question, ["poison" if question == "q3" else "bread!"])
        except RuntimeError:
            return "failed"
        return "fine"

    with ThreadPoolExecutor(8) as threads:
        said = list(threads.map(ask, [f"q{number}" for number in range(8)]))
    one.close()
    assert said == ["fine"] * 3 + ["failed"] + ["fine"] * 4


def test_nothing_is_read_for_one_who_left() -> None:
    model = HashModel(seconds=0.02)
    one = SharedReranker(model, batch_tokens=4_096)
    ticket = Ticket("a")
    threading.Timer(0.05, ticket.abandon).start()
    with working_for(ticket), pytest.raises(Abandoned):
        one.score("question", ["text"] * 4_000)
    read = len(model.ran)
    time.sleep(0.1)
    assert len(model.ran) <= read + 1
    with working_for(ticket), pytest.raises(Abandoned):
        one.score("question", ["text"])
    one.close()


def test_a_deadline_gives_what_was_read() -> None:
    one = SharedReranker(HashModel(seconds=0.02), batch_tokens=4_096)
    said = one.score("question", ["text"] * 400, deadline=time.monotonic() + 0.1)
    one.close()
    assert said.hurried
    assert 0 < sum(said.unread) <= 400


def test_who_asks_seldom_does_not_wait_for_who_asks_always() -> None:
    model = HashModel(seconds=0.002)
    one = SharedReranker(model, batch_tokens=1)  # nothing is shared: turns alone count

    def ask(key: str, pairs: int) -> float:
        started = time.monotonic()
        with working_for(Ticket(key)):
            one.score("question", ["text"] * pairs)
        return time.monotonic() - started

    unloaded = max(ask("seldom", 40) for _ in range(5))
    with ThreadPoolExecutor(20) as threads:
        busy = [threads.submit(ask, "always", 40) for _ in range(100)]
        time.sleep(0.05)
        loaded = []
        for _ in range(5):
            loaded.append(ask("seldom", 40))
            time.sleep(0.05)
        assert not busy[-1].done(), "the other key was not busy all the time"
        for job in busy:
            job.cancel()
    one.close()
    # Half a question of the other key may be under way, and this machine may be busy.
    assert sorted(loaded)[2] <= 2 * unloaded + 0.03


def test_other_rerankers_are_only_asked_for_who_waits() -> None:
    one = shared(OverlapReranker(), batch_tokens=64)
    ticket = Ticket("a")
    with working_for(ticket):
        assert one.score("a whale", ["a whale"]).relevance == (1.0,)
        ticket.abandon()
        with pytest.raises(Abandoned):
            one.score("a whale", ["a whale"])


def test_a_reading_that_breaks_between_two_exits_ends_for_itself_and_the_next_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reranker = SharedReranker(HashModel(), batch_tokens=64)
    settle = HashReading.settle

    def broken(_: HashReading) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(HashReading, "settle", broken)
    with pytest.raises(MemoryError):
        reranker.score("first", ["one", "two"])
    monkeypatch.setattr(HashReading, "settle", settle)
    assert reranker.score("second", ["one"]).logit == (truth("second", "one"),)
    reranker.close()
