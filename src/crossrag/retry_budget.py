"""How many calls may be made again: a share of all, so that trouble is not made worse by asking."""

from __future__ import annotations

import threading


class RetryBudget:
    """Counts calls and retries of one client, whose threads may share it.

    Args:
        share: Retries per call, in the long run.
        reserve: Retries that may be made at first, and the most that calls without any can save up.
    """

    def __init__(self, *, reserve: float, share: float = 0.2) -> None:
        self._share, self._reserve = share, reserve
        self._left = reserve
        self._lock = threading.Lock()

    def call(self) -> None:
        """A call is made that is no retry."""
        with self._lock:
            self._left = min(self._reserve, self._left + self._share)

    def retry(self) -> bool:
        """Whether a call may be made once more; if so, that is counted."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True
