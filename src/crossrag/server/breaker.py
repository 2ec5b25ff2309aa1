"""A language model that fails again and again is left alone for a while, then asked once, to see.

Retries within a request are its backend's business; this is about all requests together.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from crossrag.errors import GeneratorError

from .tickets import Abandoned

if TYPE_CHECKING:
    from crossrag.protocols import Generator
    from crossrag.types import Context, Turn


class Breaker:
    """Whether it is worth asking. Threads may share it.

    Args:
        failures: In a row, after which nobody asks.
        seconds: Until one may ask, and all others if that one got an answer.
        clock: Gives seconds that only grow.
    """

    def __init__(self, *, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._seconds, self._clock = failures, seconds, clock
        self._lock = threading.Lock()
        self._failed = 0
        self._closed_until = 0.0

    def enter(self) -> None:
        """Ask for leave to ask.

        Raises:
            GeneratorError: The model has failed too often of late; retryable.
        """
        with self._lock:
            if self._failed < self._most:
                return
            left = self._closed_until - self._clock()
            if left > 0:
                raise GeneratorError(
                    f"The language model failed {self._failed} times and is not asked for {left:.0f} s",
                    hint="See the failures before this one",
                    retryable=True,
                )
            # This one sees whether it works; whatever becomes of it, the next may only after as long again.
            self._closed_until = self._clock() + self._seconds

    def failed(self) -> None:
        """Asking failed in a way that may pass."""
        with self._lock:
            self._failed += 1
            self._closed_until = self._clock() + self._seconds

    def succeeded(self) -> None:
        """The model has answered, if only with its first word."""
        with self._lock:
            self._failed = 0


class GuardedGenerator:
    """A generator behind a breaker.

    Args:
        inner: Gives it; asked for it when it is first needed, as it may take long to load.
        breaker: Shared by all that ask the same model.
    """

    def __init__(self, inner: Callable[[], Generator], breaker: Breaker) -> None:
        self._inner, self._breaker = inner, breaker

    @property
    def fingerprint(self) -> str:
        """The inner one's."""
        return self._inner().fingerprint

    def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:
        """As the inner one's.

        Raises:
            GeneratorError: Also where it is not asked.
        """
        self._breaker.enter()
        pieces: Iterator[str] | None = None
        try:
            pieces = self._inner().stream(question, context, history)
            for piece in pieces:
                self._breaker.succeeded()
                yield piece
        except Exception as error:
            # A wrong key stays wrong, and that message is the one to see.
            final = isinstance(error, GeneratorError) and not error.retryable
            if not final and not isinstance(error, Abandoned):
                self._breaker.failed()
            raise
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()
