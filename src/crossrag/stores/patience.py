"""Trying again: how often, how long, and when not. Knows nothing of what is tried."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from crossrag.errors import CrossragError

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a failed try means."""

    error: CrossragError
    """For the user, if it is given up."""
    passing: bool
    """Whether the same call may succeed later."""
    wait: float | None = None
    """Seconds that the other side asked to be left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Waits 0.2, 0.4, 0.8… seconds between tries, at most 10, each shortened at random by up to a half.

    What the other side asks for is waited for in full, or not at all where it is beyond the deadline. Only
    for calls that can be repeated: a time-out does not say whether the work was done.
    """

    retries: int | None = 4
    """Further tries after the first; None for as many as the deadline allows."""
    deadline: float = 120.0
    """Seconds after which no further try is begun."""
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def call(self, work: Callable[[], Result], explain: Callable[[Exception], Trouble]) -> Result:
        """What `work` returns, or the error that `explain` makes of its last exception."""
        end = self.clock() + self.deadline
        for attempt in count():
            try:
                return work()
            except CrossragError:
                raise
            except Exception as error:
                trouble = explain(error)
                wait = self._wait(attempt) if trouble.wait is None else trouble.wait
                if not trouble.passing or attempt == self.retries or self.clock() + wait > end:
                    raise trouble.error from error
            self.sleep(wait)
        raise AssertionError("counting has no end")

    def _wait(self, attempt: int) -> float:
        # Clients that failed together must not come back together.
        shorter: float = random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        return min(10.0, 0.2 * 2.0 ** min(attempt, 10)) * shorter
