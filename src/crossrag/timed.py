"""An iterator and a time limit -> its items until then. Knows nothing of what the items are."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

Item = TypeVar("Item")
_OVER = object()
_HELPERS: ContextVar[list[threading.Thread] | None] = ContextVar("crossrag_helpers", default=None)


@contextmanager
def noting(helpers: list[threading.Thread]) -> Iterator[None]:
    """Until the block ends, note every thread that is begun here: one that is left behind may work on."""
    token = _HELPERS.set(helpers)
    try:
        yield
    finally:
        _HELPERS.reset(token)


class Timed(Generic[Item]):
    """Items of an iterator that may block, at most until `deadline`, a value of `time.monotonic()`.

    The iterator runs in a thread of its own where there is a deadline: nothing else can leave a call that
    waits for somebody else. One that is left behind is closed as soon as it comes back.
    """

    def __init__(self, items: Iterator[Item], deadline: float | None) -> None:
        self._items = items
        self._deadline = deadline
        self.expired = False
        """Whether the time ran out before the items did."""

    def __iter__(self) -> Generator[Item, None, None]:
        if self._deadline is None:
            yield from self._items
            return
        passed: queue.Queue[object] = queue.Queue(maxsize=64)
        left = threading.Event()
        # What the caller's thread works for, that thread works for too.
        context = contextvars.copy_context()
        run = (_run, self._items, passed, left)
        helper = threading.Thread(target=context.run, args=run, daemon=True)
        helpers = _HELPERS.get()
        if helpers is not None:
            helpers.append(helper)
        helper.start()
        try:
            while True:
                try:
                    left_over = self._deadline - time.monotonic()
                    given = passed.get(timeout=left_over) if left_over > 0 else self._nothing()
                except queue.Empty:
                    self.expired = True
                    return
                if given is _OVER:
                    return
                if isinstance(given, _Raised):
                    raise given.error
                yield given  # type: ignore[misc]
        finally:
            left.set()

    @staticmethod
    def _nothing() -> object:
        raise queue.Empty


def within(call: Callable[[], Item], deadline: float | None) -> Item:
    """What `call` returns, if it does before `deadline`, a value of `time.monotonic()`.

    Raises:
        TimeoutError: It did not. It goes on in a thread of its own, and nobody waits for it.
    """
    if deadline is None:
        return call()

    def once() -> Iterator[Item]:
        yield call()

    for made in Timed(once(), deadline):
        return made
    raise TimeoutError("there was no time for it")


class _Raised:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _run(items: Iterator[object], passed: queue.Queue[object], left: threading.Event) -> None:
    try:
        for item in items:
            if not _put(passed, item, left):
                return
        _put(passed, _OVER, left)
    except BaseException as error:  # noqa: BLE001 - it is raised again where somebody can catch it
        _put(passed, _Raised(error), left)
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def _put(passed: queue.Queue[object], item: object, left: threading.Event) -> bool:
    """Whether somebody still wants it."""
    while not left.is_set():
        try:
            passed.put(item, timeout=0.1)
        except queue.Full:
            continue
        return not left.is_set()
    return False
