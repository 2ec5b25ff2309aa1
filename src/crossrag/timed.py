"""An iterator or a call, and a time limit -> its items until then. Knows nothing of what the items are.

What does not come back in time is left in a thread of its own. It is told that nobody waits (`caller`), and
how many of one kind may be left so is bounded.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ClassVar, Generic, TypeVar

from .caller import Caller

Item = TypeVar("Item")
_OVER = object()
MOST_LEFT = 32
"""Calls of one kind that may be left behind and still run; while they are so many, no further one begins."""
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
    waits for somebody else. One that is left behind is told at once, and closed as soon as it comes back.

    Args:
        items: The iterator.
        deadline: None for no limit, and no thread.
        of: Whose call it is, such as a fingerprint: calls that were left are counted by it.
        begin: The deadline of the first item; None for the same.
    """

    def __init__(
        self, items: Iterator[Item], deadline: float | None, *, of: str, begin: float | None = None
    ) -> None:
        self._items = items
        self._deadline = deadline
        self._begin = deadline if begin is None else begin
        self._of = of
        self._caller = Caller()
        self.begun = False
        """Whether there was an item."""
        self.expired = False
        """Whether the time ran out before the items did."""

    @property
    def told(self) -> tuple[str, ...]:
        """What the iterator has said beside its items; see `caller.tell`."""
        return self._caller.told

    def __iter__(self) -> Generator[Item, None, None]:
        """The items, once.

        Raises:
            TimeoutError: Too many earlier calls of this kind have not come back.
        """
        if self._deadline is None:
            yield from self._here()
            return
        if time.monotonic() >= self._deadline:
            self.expired = True
            _close(self._items)
            return
        apart = _Apart(self._items, self._caller, self._of)
        apart.start()
        try:
            while True:
                until = self._deadline if self.begun else min(self._deadline, self._begin or self._deadline)
                try:
                    given = apart.next(until - time.monotonic())
                except queue.Empty:
                    self.expired = True
                    return
                if given is _OVER:
                    return
                if isinstance(given, _Raised):
                    raise given.error
                self.begun = True
                yield given  # type: ignore[misc]
        finally:
            apart.leave()

    def _here(self) -> Generator[Item, None, None]:
        context = self._caller.context()
        items = iter(self._items)
        try:
            while (item := context.run(next, items, _OVER)) is not _OVER:
                self.begun = True
                yield item  # type: ignore[misc]
        finally:
            context.run(_close, self._items)


def within(call: Callable[[], Item], deadline: float | None, *, of: str) -> Item:
    """What `call` returns, if it does before `deadline`, a value of `time.monotonic()`.

    Args:
        call: Whatever may take long.
        deadline: None for no limit.
        of: Whose call it is, as for `Timed`.

    Raises:
        TimeoutError: It did not; then it goes on in a thread of its own, and nobody waits for it. Or so many
            earlier ones do that it was not begun.
    """
    if deadline is None:
        return call()

    def once() -> Iterator[Item]:
        yield call()

    if made := list(Timed(once(), deadline, of=of)):
        return made[0]
    raise TimeoutError("there was no time for it")


class _Apart:
    """An iterator in a thread of its own."""

    _lock: ClassVar = threading.Lock()
    _left: ClassVar[Counter[str]] = Counter()

    def __init__(self, items: Iterator[object], caller: Caller, of: str) -> None:
        self._items, self._caller, self._of = items, caller, of
        # Little: what nobody has read yet may have to be paid for.
        self._passed: queue.Queue[object] = queue.Queue(maxsize=64)
        self._ended = self._counted = False

    def start(self) -> None:
        with self._lock:
            left = self._left[self._of]
        if left >= MOST_LEFT:
            raise TimeoutError(f"{left} earlier calls of {self._of} have not come back yet")
        # What the caller's thread works for, that thread works for too.
        context = self._caller.context()
        thread = threading.Thread(target=context.run, args=(self._run,), daemon=True)
        if (helpers := _HELPERS.get()) is not None:
            helpers.append(thread)
        thread.start()

    def next(self, seconds: float) -> object:
        """What comes next; `queue.Empty` where nothing does in time."""
        given = self._passed.get(timeout=seconds) if seconds > 0 else self._passed.get_nowait()
        if given is _OVER or isinstance(given, _Raised):
            self._ended = True
        return given

    def leave(self) -> None:
        with self._lock:
            if self._ended or self._counted:
                return
            self._counted = True
            self._left[self._of] += 1
        self._caller.leave()

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
            self._put(_OVER)
        except BaseException as error:  # noqa: BLE001 - it is raised again where somebody can catch it
            self._put(_Raised(error))
        finally:
            _close(self._items)
            with self._lock:
                self._ended = True
                if self._counted and self._left[self._of] == 1:
                    del self._left[self._of]
                elif self._counted:
                    self._left[self._of] -= 1

    def _put(self, item: object) -> bool:
        """Whether somebody still wants it."""
        while not self._caller.is_gone:
            try:
                self._passed.put(item, timeout=0.1)
            except queue.Full:
                continue
            return not self._caller.is_gone
        return False


class _Raised:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _close(items: object) -> None:
    close = getattr(items, "close", None)
    if close is not None:
        close()
