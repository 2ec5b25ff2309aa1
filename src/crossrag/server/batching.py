"""A Reranker that many requests share: one worker reads for all of them, batch by batch.

Between two batches it looks again whose turn it is (start-time fair queueing between keys, by tokens), drops
what nobody waits for any more, and fills a batch that is not full with pairs of other questions at the same
exit. Scores do not depend on the company (`rerankers.progressive`), so nobody can tell.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from crossrag.types import Relevance

from .tickets import Abandoned, Ticket, current

if TYPE_CHECKING:
    from crossrag.protocols import Reranker
    from crossrag.types import Scores

_NARROW = 1.25
"""How much longer than a batch's longest pair one of another question may be: padding is work too."""
_MOST_PAIRS = 16


class Reading(Protocol):
    """One question being read; see `rerankers.reading`."""

    exit: int
    batches: list[list[Any]]
    done: bool

    @property
    def tokens(self) -> int:
        """How much there is to read."""
        ...

    def settle(self) -> None:
        """All batches were read: make those of the next exit."""
        ...

    def stop(self) -> None:
        """Time is up."""
        ...

    def result(self) -> Relevance:
        """What is known."""
        ...


@runtime_checkable
class Divisible(Protocol):
    """A reranker whose work can be cut in batches that hold pairs of several questions.

    One that lays pairs behind each other without padding says in `batch_tokens` how many tokens a batch of
    its own has; pairs of any length then go together.
    """

    @property
    def fingerprint(self) -> str:
        """As `Reranker.fingerprint`."""
        ...

    def begin(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,
        top_k: int | None = None,
        deadline: float | None = None,
    ) -> Any:
        """A `Reading`; one that is done, with nothing read, where the deadline passes meanwhile."""
        ...

    def run(self, windows: Sequence[Any]) -> None:
        """Read a batch, of whichever questions."""
        ...


def shared(model: Reranker, *, batch_tokens: int, ran: Callable[[int], None] = lambda _: None) -> Reranker:
    """The model behind one worker where it can be shared; else one that asks it only for who still waits.

    Args:
        model: The reranker.
        batch_tokens: Most tokens of a batch, padding included.
        ran: Called with the number of tokens after every batch.
    """
    if isinstance(model, Divisible):
        return SharedReranker(model, batch_tokens=batch_tokens, ran=ran)
    return WaitedFor(model)


class WaitedFor:
    """Any reranker, not asked for a request that nobody waits for."""

    def __init__(self, inner: Reranker) -> None:
        self.inner = inner

    @property
    def fingerprint(self) -> str:
        """The inner one's."""
        return self.inner.fingerprint

    @property
    def residual(self) -> bool | None:
        """The inner reranker's; None where it does not say."""
        return getattr(self.inner, "residual", None)

    @property
    def exchangeable(self) -> bool:
        """The inner reranker's."""
        return getattr(self.inner, "exchangeable", False)

    def score(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,
        top_k: int | None = None,
        deadline: float | None = None,
    ) -> Relevance:
        """As the inner one's."""
        if (ticket := current()) is not None:
            ticket.check()
        return self.inner.score(query, texts, first_stage=first_stage, top_k=top_k, deadline=deadline)

    def close(self) -> None:
        """Close what is behind it."""
        if hasattr(self.inner, "close"):
            self.inner.close()


class _Job:
    """A question in the queue."""

    def __init__(self, reading: Reading, key: str, ticket: Ticket | None, deadline: float | None) -> None:
        self.reading, self.key, self.ticket, self.deadline = reading, key, ticket, deadline
        self.tag = 0.0
        self.number = 0
        self.error: BaseException | None = None
        self.finished = threading.Event()

    @property
    def abandoned(self) -> bool:
        return self.ticket is not None and self.ticket.abandoned


class SharedReranker:
    """The worker is a thread that starts with the first question and ends with `close`."""

    def __init__(
        self, model: Divisible, *, batch_tokens: int, ran: Callable[[int], None] = lambda _: None
    ) -> None:
        self._model, self._batch_tokens, self._ran = model, batch_tokens, ran
        self._packed: int | None = getattr(model, "batch_tokens", None)
        self._changed = threading.Condition()
        self._jobs: list[_Job] = []
        self._finish: defaultdict[str, float] = defaultdict(float)
        self._virtual = 0.0
        self._count = 0
        self._closed = False
        self._worker: threading.Thread | None = None

    @property
    def fingerprint(self) -> str:
        """The model's: sharing changes no score."""
        return self._model.fingerprint

    @property
    def residual(self) -> bool | None:
        """The model's; None where it does not say."""
        return getattr(self._model, "residual", None)

    def score(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,
        top_k: int | None = None,
        deadline: float | None = None,
    ) -> Relevance:
        """As the model's; waits for its turn.

        Raises:
            Abandoned: Nobody waits for the result any more.
        """
        if not texts:
            return Relevance.of_nothing()
        ticket = current()
        if ticket is not None:
            ticket.check()
        reading: Reading = self._model.begin(
            query, texts, first_stage=first_stage, top_k=top_k, deadline=deadline
        )
        if reading.done:
            return reading.result()
        job = _Job(reading, ticket.key if ticket else "", ticket, deadline)
        self._enqueue(job)
        job.finished.wait()
        if job.error is not None:
            raise job.error
        return reading.result()

    def close(self) -> None:
        """Let the worker end; what waits is abandoned."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            worker = self._worker
        if worker is not None:
            worker.join()
        if hasattr(self._model, "close"):
            self._model.close()

    def _enqueue(self, job: _Job) -> None:
        with self._changed:
            if self._closed:
                raise Abandoned
            self._count += 1
            job.number = self._count
            job.tag = max(self._virtual, self._finish[job.key])
            self._finish[job.key] = job.tag + job.reading.tokens
            self._jobs.append(job)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="crossrag-scoring", daemon=True)
                self._worker.start()
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            self._serve()
        except Exception as error:  # noqa: BLE001 - who waits must hear of it; the next question starts anew
            with self._changed:
                self._worker = None
                for job in [*self._jobs]:
                    self._end(job, error)

    def _serve(self) -> None:
        while (chosen := self._chosen()) is not None:
            parts, batch = chosen
            try:
                self._run(batch)
            except Exception as error:  # noqa: BLE001 - theirs to hear, who asked; the worker goes on
                self._run_apart(parts, error)
            with self._changed:
                for job in parts:
                    if job.error is None and not job.reading.batches:
                        job.reading.settle()
                    if job.error is not None or job.reading.done:
                        self._end(job, job.error)

    def _chosen(self) -> tuple[dict[_Job, list[Any]], list[Any]] | None:
        """What is read next, by question and together; None at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    for job in [*self._jobs]:
                        self._end(job, Abandoned())
                    return None
                self._drop()
                if self._jobs:
                    leader = min(self._jobs, key=self._turn())
                    self._virtual = max(self._virtual, leader.tag)
                    parts = self._batch(leader)
                    return parts, [window for part in parts.values() for window in part]

    def _run(self, batch: list[Any]) -> None:
        self._model.run(batch)
        self._ran(sum(window.length for window in batch))

    def _run_apart(self, parts: dict[_Job, list[Any]], error: Exception) -> None:
        """Something failed: each question for itself, so that one cannot fail another."""
        for job, part in parts.items():
            if len(parts) == 1:
                job.error = error
                continue
            try:
                self._run(part)
            except Exception as own:  # noqa: BLE001 - theirs to hear, who asked
                job.error = own

    def _turn(self) -> Callable[[_Job], tuple[float, int, int]]:
        """By virtual time; among equals, first the key that has asked for least."""
        outstanding: defaultdict[str, int] = defaultdict(int)
        for job in self._jobs:
            outstanding[job.key] += 1
        return lambda job: (job.tag, outstanding[job.key], job.number)

    def _drop(self) -> None:
        """Who does not wait is not read for; who has no time left gets what there is."""
        now = time.monotonic()
        for job in [*self._jobs]:
            if job.abandoned:
                self._end(job, Abandoned())
            elif job.deadline is not None and now >= job.deadline:
                job.reading.stop()
                self._end(job, None)

    def _batch(self, leader: _Job) -> dict[_Job, list[Any]]:
        """The leader's next batch, filled up with small batches of others at the same exit."""
        parts = {leader: leader.reading.batches.pop(0)}
        batch = [*parts[leader]]
        widest = _NARROW * max(window.length for window in batch)
        for job in sorted(self._jobs, key=self._turn()):
            if job is leader or job.reading.exit != leader.reading.exit:
                continue
            # The last batch is the one that may be small.
            if self._fit([*batch, *job.reading.batches[-1]], widest):
                parts[job] = job.reading.batches.pop()
                batch += parts[job]
        return parts

    def _fit(self, batch: list[Any], widest: float) -> bool:
        """Whether all of it may be read at once; where it is padded, none may be longer than `widest`."""
        lengths: list[int] = [window.length for window in batch]
        if self._packed is not None:
            return sum(lengths) <= self._packed
        fits = len(lengths) <= _MOST_PAIRS and len(lengths) * max(lengths) <= self._batch_tokens
        return fits and max(lengths) <= widest

    def _end(self, job: _Job, error: BaseException | None) -> None:
        job.error = error
        self._jobs.remove(job)
        if not self._jobs:
            # Nobody waits: what was asked before says nothing of what comes.
            self._finish.clear()
            self._virtual = 0.0
        job.finished.set()
