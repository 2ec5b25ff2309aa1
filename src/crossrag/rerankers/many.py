"""Many questions read together: batches are filled across them, and the device always has more to do.

Questions are begun in a thread ahead of what is read. Two groups of them are under way: while one is settled
or told, the device reads the other one. Knows no network; whoever has one reads the batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from crossrag.types import Relevance, Scores

if TYPE_CHECKING:
    from .reading import Reading, Window

_PAIRS_AHEAD = 4_096
"""Pairs that are tokenized ahead: some 60 MB."""


class Question(NamedTuple):
    """What a reranker's `score` is asked, as a value."""

    query: str
    texts: Sequence[str]
    first_stage: Sequence[Scores] | None = None


def read_all(
    questions: Iterable[Question],
    *,
    begin: Callable[[Question], Reading],
    read: Callable[[Sequence[Window]], None],
    tokens: int,
) -> Iterator[Relevance]:
    """One Relevance per question, in order.

    Args:
        questions: Drawn from as they are needed.
        begin: Asked in a thread of its own, only where there are texts.
        read: Reads windows up to their next exit, which is the same for all; need not wait for the end.
        tokens: How much makes a group.
    """
    flying: deque[_Group] = deque()
    finished: dict[int, _Group] = {}
    told = 0
    groups = enumerate(_grouped(_begun(questions, begin), tokens))
    while True:
        while len(flying) < 2 and (new := next(groups, None)) is not None:
            flying.append(_Group(*new))
            flying[-1].go_on(read)
        while (group := finished.pop(told, None)) is not None:
            told += 1
            for reading in group.readings:
                yield reading.result() if reading else Relevance.of_nothing()
        if not flying:
            return
        group = flying.popleft()
        group.settle()
        if group.done:
            finished[group.number] = group
        else:
            group.go_on(read)
            flying.append(group)


class _Group:
    """Questions that are read together; None where there are no texts."""

    def __init__(self, number: int, readings: Sequence[Reading | None]) -> None:
        self.number, self.readings = number, readings

    @property
    def _going(self) -> list[Reading]:
        return [reading for reading in self.readings if reading is not None and not reading.done]

    @property
    def done(self) -> bool:
        return not self._going

    def go_on(self, read: Callable[[Sequence[Window]], None]) -> None:
        """Begin to read what is to be read next, exit by exit."""
        by_exit: dict[int, list[Window]] = {}
        for reading in self._going:
            for batch in reading.batches:
                by_exit.setdefault(reading.exit, []).extend(batch)
        for windows in by_exit.values():
            read(windows)

    def settle(self) -> None:
        for reading in self._going:
            reading.settle()


def _begun(
    questions: Iterable[Question], begin: Callable[[Question], Reading]
) -> Iterator[tuple[Reading | None, int]]:
    """Readings and how much there is to read."""

    def made(asked: Question) -> tuple[Reading | None, int]:
        if not asked.texts:
            return None, 0
        reading = begin(asked)
        return reading, reading.tokens

    ahead: deque[tuple[int, Future[tuple[Reading | None, int]]]] = deque()
    pool = ThreadPoolExecutor(1, "crossrag-tokenizing")
    try:
        for asked in questions:
            ahead.append((len(asked.texts), pool.submit(made, asked)))
            while sum(texts for texts, _ in ahead) > _PAIRS_AHEAD:
                yield ahead.popleft()[1].result()
        while ahead:
            yield ahead.popleft()[1].result()
    finally:
        pool.shutdown(cancel_futures=True)


def _grouped(begun: Iterator[tuple[Reading | None, int]], tokens: int) -> Iterator[list[Reading | None]]:
    """So many questions at a time that there are `tokens` to read."""
    group: list[Reading | None] = []
    held = 0
    for reading, own in begun:
        group.append(reading)
        held += own
        if held >= tokens:
            yield group
            group, held = [], 0
    if group:
        yield group
