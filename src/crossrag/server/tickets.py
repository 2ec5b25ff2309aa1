"""The request that a thread works for: whose it is, until when, and whether anybody still waits for it.

Set around a piece of work; read wherever work is about to be done that nobody may need any more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


class Abandoned(Exception):  # noqa: N818 - no error: nobody waits for the result
    """The client left, or its time was up."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class Ticket:
    """One piece of work. `deadline` is a `time.monotonic()` value."""

    key: str
    deadline: float | None = None
    refusal: Exception | None = None
    """Why it shall not be answered at all, though a stage might go on without what refused."""
    stopping: bool = False
    """Whether its deadline is the server's end."""
    _abandoned: threading.Event = field(default_factory=threading.Event)

    def end_by(self, end: float) -> None:
        """The server ends then, if the work's own deadline is not before."""
        if self.deadline is None or end < self.deadline:
            self.deadline, self.stopping = end, True

    def abandon(self) -> None:
        """Say that nobody waits for it any more."""
        self._abandoned.set()

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._abandoned.is_set()

    @property
    def remaining(self) -> float | None:
        """Seconds that are left, 0 at least; None where there is no limit."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def refuse(self, why: Exception) -> None:
        """Say that it shall end with this error, whatever the stages make of it."""
        self.refusal = why

    def check(self) -> None:
        """Raise Abandoned if nobody waits for it any more, or what it was refused with."""
        if self.abandoned:
            raise Abandoned
        if self.refusal is not None:
            raise self.refusal


_CURRENT: ContextVar[Ticket | None] = ContextVar("crossrag_ticket", default=None)


def current() -> Ticket | None:
    """What this thread works for; None outside of a request."""
    return _CURRENT.get()


@contextmanager
def working_for(ticket: Ticket) -> Iterator[None]:
    """Until the block ends, this thread works for it."""
    token = _CURRENT.set(ticket)
    try:
        yield
    finally:
        _CURRENT.reset(token)
