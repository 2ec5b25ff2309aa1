"""Calls that do not come back in time: left, told, interrupted where that can be, and bounded in number."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from crossrag import caller
from crossrag.timed import MOST_LEFT, Timed, within

SOON = 0.05


def soon() -> float:
    return time.monotonic() + SOON


def later() -> float:
    return time.monotonic() + 60


def test_what_comes_in_time_comes() -> None:
    assert (
        list(Timed(iter("abc"), None, of="x")) == list(Timed(iter("abc"), later(), of="x")) == ["a", "b", "c"]
    )
    assert within(lambda: 7, None, of="x") == within(lambda: 7, later(), of="x") == 7
    with pytest.raises(KeyError):
        within(lambda: {"a": 1}["x"], later(), of="x")


def test_nothing_is_begun_when_time_is_up() -> None:
    called: list[int] = []
    with pytest.raises(TimeoutError):
        within(lambda: called.append(1), time.monotonic() - 1, of="x")
    assert not called


def test_the_first_item_may_have_a_deadline_of_its_own() -> None:
    release = threading.Event()

    def slow() -> Iterator[str]:
        release.wait(5)
        yield "late"

    timed = Timed(slow(), later(), of="slow", begin=soon())
    assert (list(timed), timed.expired, timed.begun) == ([], True, False)
    release.set()

    def begun() -> Iterator[str]:
        yield "early"
        time.sleep(3 * SOON)
        yield "late"

    timed = Timed(begun(), later(), of="begun", begin=soon())
    assert (list(timed), timed.expired) == (["early", "late"], False)


def test_what_is_left_is_interrupted() -> None:
    woken = threading.Event()

    def call() -> None:
        with caller.interrupted_by(woken.set):
            woken.wait(5)
        assert caller.is_gone()

    with pytest.raises(TimeoutError):
        within(call, soon(), of="interrupted")
    assert woken.is_set()
    # Outside of such a call somebody always waits.
    assert not caller.is_gone()
    with caller.interrupted_by(woken.clear):
        pass
    assert woken.is_set()


def test_what_was_registered_before_or_after_its_block_is_left_alone() -> None:
    acts: list[str] = []

    def call() -> None:
        with caller.interrupted_by(lambda: acts.append("over")):
            pass
        release.wait(5)
        with caller.interrupted_by(lambda: acts.append("at once")):
            ended.set()

    release, ended = threading.Event(), threading.Event()
    with pytest.raises(TimeoutError):
        within(call, soon(), of="registered")
    release.set()
    assert ended.wait(5)
    assert acts == ["at once"]


def test_no_more_than_so_many_are_left_of_a_kind() -> None:
    release = threading.Event()
    before = threading.active_count()
    for _ in range(MOST_LEFT):
        with pytest.raises(TimeoutError, match="no time"):
            within(lambda: release.wait(20), time.monotonic() + 0.002, of="stuck")
    with pytest.raises(TimeoutError, match="32 earlier calls of stuck have not come back"):
        within(lambda: release.wait(20), later(), of="stuck")
    assert threading.active_count() <= before + MOST_LEFT
    assert within(lambda: 7, later(), of="another") == 7
    release.set()
    until = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert within(lambda: 7, later(), of="stuck") == 7


def test_many_that_come_back_count_for_nothing() -> None:
    for _ in range(3 * MOST_LEFT):
        assert within(lambda: 7, later(), of="many") == 7


@pytest.mark.parametrize("deadline", [None, 60.0])
def test_what_is_said_beside_the_items_is_heard(deadline: float | None) -> None:
    def items() -> Iterator[str]:
        yield "a"
        caller.tell("It rains")
        caller.tell("It rains")
        yield "b"

    timed = Timed(items(), None if deadline is None else time.monotonic() + deadline, of="x")
    assert (list(timed), timed.told) == (["a", "b"], ("It rains",))
    caller.tell("nobody listens")


@pytest.mark.parametrize("deadline", [None, 60.0])
def test_a_reader_who_leaves_closes_the_iterator(deadline: float | None) -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
                time.sleep(0.001)
        finally:
            closed.set()

    reading = iter(Timed(items(), None if deadline is None else time.monotonic() + deadline, of="x"))
    assert next(reading) == 1
    reading.close()
    assert closed.wait(5)
