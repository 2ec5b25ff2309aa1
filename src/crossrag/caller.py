"""Whoever called the backend that runs here: does anybody still wait, and what should they know?

Travels in a context variable, so that it reaches a backend through whatever wraps it. Where nobody has said
otherwise, somebody waits and nobody listens.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_CURRENT: contextvars.ContextVar[Caller | None] = contextvars.ContextVar("caller", default=None)


class Caller:
    """One caller. The backend works in one thread, who gives it up may be in another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gone = False
        self._acts: list[Callable[[], None]] = []
        self._told: list[str] = []

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits any more."""
        return self._gone

    @property
    def told(self) -> tuple[str, ...]:
        """What the backend has said beside its result."""
        return tuple(self._told)

    def hear(self, notice: str) -> None:
        """Be told something, once."""
        if notice not in self._told:
            self._told.append(notice)

    def leave(self) -> None:
        """Wait no more; what was registered to interrupt the work is done now, in this thread."""
        with self._lock:
            self._gone = True
            acts, self._acts = self._acts, []
        for act in acts:
            _quietly(act)

    @contextmanager
    def interrupting(self, act: Callable[[], None]) -> Iterator[None]:
        """Within the block, `leave` does `act`; at once where that has been already."""
        with self._lock:
            gone = self._gone
            if not gone:
                self._acts.append(act)
        if gone:
            _quietly(act)
        try:
            yield
        finally:
            with self._lock:
                if act in self._acts:
                    self._acts.remove(act)

    def context(self) -> contextvars.Context:
        """A copy of the context of this thread, in which this is the caller."""
        context = contextvars.copy_context()
        context.run(_CURRENT.set, self)
        return context


def is_gone() -> bool:
    """Whether nobody waits any more for what runs here: no further request should be paid for."""
    caller = _CURRENT.get()
    return caller is not None and caller.is_gone


def tell(notice: str) -> None:
    """Say something that belongs to the result and is no part of it, in a sentence without a full stop."""
    caller = _CURRENT.get()
    if caller is not None:
        caller.hear(notice)


@contextmanager
def interrupted_by(act: Callable[[], None]) -> Iterator[None]:
    """Within the block, `act` is done as soon as nobody waits any more.

    Args:
        act: Runs in another thread, must not block, and makes what this thread waits for fail at once.
    """
    caller = _CURRENT.get()
    if caller is None:
        yield
        return
    with caller.interrupting(act):
        yield


def _quietly(act: Callable[[], None]) -> None:
    """What cannot be interrupted ends by its own time limit."""
    with suppress(Exception):
        act()
