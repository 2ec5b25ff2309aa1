"""Question -> events of an answer: what was found, the context made of it, the answer.

Takes the parts of a Rag, which are made when they are first touched. Knows nothing of how they are made.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from . import answering, context, searching
from .errors import CrossragError, GeneratorError, reason
from .timed import within
from .types import Answer, Context, Done, Event, Ranking, Turn, Where
from .verification import Verification

if TYPE_CHECKING:
    from collections.abc import Generator as Stream

    from .parts import Parts
    from .protocols import Generator
    from .types import Chunk

FINDING_SHARE = 0.6
"""Of the time for a whole answer: what finding passages may take, so that there is time to write."""
_CHOOSING_SHARE = 0.25
"""Of the time that is left then: what choosing unlike passages and fetching neighbours may take, each."""


def search(
    parts: Parts, query: str, *, top_k: int | None, where: Where | None, deadline: float | None
) -> Ranking:
    """See `Rag.search`."""
    until = None if deadline is None else time.monotonic() + deadline
    prepared = searching.prepare(parts, query, until=until)
    ranking = searching.rank(parts, prepared, top_k=top_k, where=where, until=until)
    wanted = parts.settings.reranking.top_k if top_k is None else top_k
    chosen = searching.choose(parts, ranking, top_k=wanted, relevant=False, until=until)
    return replace(
        ranking,
        candidates=chosen.candidates,
        degraded=(*ranking.degraded, *chosen.degraded),
        notices=(*ranking.notices, *chosen.notices),
    )


def answer(
    parts: Parts,
    question: str,
    *,
    history: Sequence[Turn] = (),
    where: Where | None = None,
    deadline: float | None = None,
) -> Iterator[Event]:
    """The events of `Rag.stream`."""
    settings = parts.settings
    started = time.monotonic()
    seconds = settings.generator.deadline if deadline is None else deadline
    finding = None if seconds is None else started + FINDING_SHARE * seconds
    end = None if seconds is None else started + seconds
    prepared = searching.prepare(parts, question, history=history, until=finding)
    ranking = searching.rank(parts, prepared, where=where, until=finding, end=end)
    ranking, assembled = _context(parts, ranking, end)
    writing = _Quoting(parts)
    events = answering.stream_answer(
        prepared.question,
        assembled,
        generator=writing.steady(parts.generator),
        ranking=ranking,
        history=history,
        verification=_verification(parts),
        fallback=writing.steady(parts.fallback) if parts.fallback else None,
        deadline=end,
    )
    with closing(cast("Stream[Event, None, None]", events)):
        for event in events:
            yield Done(writing.told(event.answer, prepared.asked)) if isinstance(event, Done) else event


def _context(parts: Parts, ranking: Ranking, end: float | None) -> tuple[Ranking, Context]:
    """The passages that the answer may use, and the ranking with its best alone and the time it took."""
    settings = parts.settings
    clock = searching.Clock(dict(ranking.timings))
    top_k = settings.reranking.top_k
    chosen = searching.choose(parts, ranking, top_k=top_k, relevant=True, until=_choosing(end))
    neighbours = _Neighbours(parts, settings.context.neighbours, _choosing(end))
    with neighbours.reading():
        assembled = context.assemble(
            chosen.candidates,
            token_budget=settings.context.token_budget,
            count_tokens=parts.count_tokens,
            neighbours=neighbours.of,
            order=settings.context.order,
        )
    clock.lap("context")
    told = replace(
        ranking,
        candidates=ranking.candidates[:top_k],
        degraded=(*ranking.degraded, *chosen.degraded, *(("neighbours",) if neighbours.failure else ())),
        notices=(*ranking.notices, *chosen.notices, *filter(None, [neighbours.failure])),
        timings=clock.laps,
    )
    return told, assembled


def _choosing(end: float | None) -> float | None:
    now = time.monotonic()
    return None if end is None else now + _CHOOSING_SHARE * (end - now)


class _Neighbours:
    """What stands beside a passage, as long as there is time to ask for it."""

    def __init__(self, parts: Parts, radius: int, until: float | None) -> None:
        self._parts, self._radius, self._until = parts, radius, until
        self.failure = ""
        """Why there are not all of them, in words; empty where there are."""

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Until the block ends, the index is not exchanged; without waiting for that where time is up."""
        with ExitStack() as stack:
            if self._radius:
                try:
                    stack.enter_context(self._parts.index.reading(self._until))
                except TimeoutError as error:
                    self._give_up(error)
            yield

    def of(self, chunk: Chunk) -> Sequence[Chunk]:
        """Of one passage; none once time was up."""
        if not self._radius or self.failure:
            return ()
        index, radius = self._parts.index, self._radius
        try:
            return within(
                lambda: index.neighbours(chunk, radius),
                self._until,
                of=f"the index {self._parts.settings.index.path}",
            )
        except TimeoutError as error:
            self._give_up(error)
            return ()

    def _give_up(self, error: TimeoutError) -> None:
        self.failure = f"Passages are without some of their neighbours: {error}"


class _Quoting:
    """Generators whose failures are the failures that are foreseen."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._failure = ""

    def steady(self, generator: Generator) -> Generator:
        """The same; one that quotes does so without a model where the model that it asks is down."""
        return _Steady(generator, self) if generator.fingerprint == "extractive" else _Foreseen(generator)

    def instead(self, error: Exception) -> Generator:
        """What quotes without any model."""
        self._failure = reason(error)
        return self._parts.last_resort

    def told(self, done: Answer, asked: str) -> Answer:
        """The answer to what was asked, with what went wrong."""
        if not self._failure:
            return replace(done, question=asked)
        notice = f"Sentences were chosen by their words alone: {self._failure}"
        return replace(
            done,
            question=asked,
            degraded=tuple(dict.fromkeys((*done.degraded, "quotes"))),
            notices=(*done.notices, notice),
        )


class _Steady:
    def __init__(self, generator: Generator, quoting: _Quoting) -> None:
        self._generator, self._quoting = generator, quoting
        self.fingerprint = generator.fingerprint

    def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:
        """Its pieces, once all are there: it scores all sentences before it gives the first."""
        try:
            pieces = list(self._generator.stream(question, context, history))
        except Exception as error:  # noqa: BLE001 - anybody's reranker raises what it likes
            pieces = list(self._quoting.instead(error).stream(question, context, history))
        yield from pieces


class _Foreseen:
    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self.fingerprint = generator.fingerprint

    def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:
        """Its pieces; what somebody else's generator raises may pass, as far as one can know."""
        try:
            yield from self._generator.stream(question, context, history)
        except CrossragError:
            raise
        except Exception as error:
            raise GeneratorError(f"The language model failed: {reason(error)}", retryable=True) from error


def _verification(parts: Parts) -> Verification:
    wanted = parts.settings.verification
    return Verification(grounder=parts.grounder, policy=wanted.policy, threshold=wanted.threshold)
