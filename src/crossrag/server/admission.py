"""Who may start: a number of permits, a queue bounded in seconds of work, and fair turns between keys.

Start-time fair queueing (Goyal et al., 1996): every key's requests are spread over virtual time, each
costing the same, and the earliest goes first, so that who asks seldom never waits behind who asks always.
Lives on one event loop; knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_FIRST_GUESS = 0.25
"""Seconds between two that end, before one has ended."""
_MEMORY = 0.1
"""Weight of the newest of them in the mean."""
_MOST_WAITING = 1_024


class Overloaded(Exception):  # noqa: N818 - a decision, no failure
    """Not admitted; `retry_after` is in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"busy for {retry_after:.1f} s")
        self.retry_after = retry_after


@dataclass(slots=True)
class _Key:
    running: int = 0
    finish: float = 0.0
    """Virtual time at which its last admitted request ends."""
    waiting: deque[tuple[float, asyncio.Future[None]]] = field(default_factory=deque)


class Admission:
    """Admits `permits` requests at once.

    Args:
        permits: Requests at work at the same time.
        queue_seconds: A request that would wait longer is refused at once, never later.
    """

    def __init__(self, *, permits: int, queue_seconds: float) -> None:
        self._permits, self._queue_seconds = permits, queue_seconds
        # One permit in four is kept for keys that hold none of the others.
        self._share = max(1, permits - max(1, permits // 4)) if permits > 1 else 1
        self._keys: defaultdict[str, _Key] = defaultdict(_Key)
        self._virtual = 0.0
        self._ended = 0
        self._mark = 0.0
        """When the last one ended, or work began after a rest."""
        self.running = 0
        self.waiting = 0
        self.interval = _FIRST_GUESS
        """Mean seconds between two that end while there is work, of late.

        How long a permit is held says less: who came first is done first, while all share the processors.
        """

    @property
    def queue_seconds(self) -> float:
        """How long there is work for with what waits; what more servers are started by."""
        return self.waiting * self.interval

    def expected_wait(self, key: str) -> float:
        """Seconds that one more request of this key would wait, everybody getting an equal share."""
        own = self._keys.get(key, _Key())
        others = sum(1 for name, one in self._keys.items() if name != key and (one.waiting or one.running))
        free = self._permits - self.running > 0 and own.running < self._share
        if free and not own.waiting:
            return 0.0
        return (len(own.waiting) + 1) * self.interval * (others + 1)

    @asynccontextmanager
    async def permit(self, key: str) -> AsyncIterator[None]:
        """Wait for one's turn, and give the permit back at the end.

        Raises:
            Overloaded: The wait would be too long.
        """
        await self.enter(key)
        try:
            yield
        finally:
            self.leave(key)

    async def enter(self, key: str) -> None:
        """Wait for one's turn; give it back with `leave`."""
        wait = self.expected_wait(key)
        if wait > self._queue_seconds or self.waiting >= _MOST_WAITING:
            raise Overloaded(max(1.0, wait - self._queue_seconds))
        one = self._keys[key]
        start = max(self._virtual, one.finish)
        one.finish = start + 1.0
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        one.waiting.append((start, turn))
        self.waiting += 1
        self._dispatch()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(key, done=False)
            else:
                self._forget(key, turn)
            raise

    def leave(self, key: str, *, done: bool = True) -> None:
        """Give a permit back; `done` is whether the work was, or nobody waited for it any more."""
        now = time.monotonic()
        if done:
            self._ended += 1
            self.interval += max(_MEMORY, 1 / (self._ended + 1)) * (now - self._mark - self.interval)
        self._mark = now
        self.running -= 1
        self._keys[key].running -= 1
        self._tidy(key)
        self._dispatch()

    def _dispatch(self) -> None:
        while self.running < self._permits:
            ready = [
                (one.waiting[0][0], name)
                for name, one in self._keys.items()
                if one.waiting and one.running < self._share
            ]
            if not ready:
                return
            start, name = min(ready)
            one = self._keys[name]
            _, turn = one.waiting.popleft()
            self.waiting -= 1
            if turn.done():  # cancelled, and about to notice
                continue
            self._virtual = max(self._virtual, start)
            one.running += 1
            if not self.running:
                self._mark = time.monotonic()
            self.running += 1
            turn.set_result(None)

    def _forget(self, key: str, turn: asyncio.Future[None]) -> None:
        one = self._keys[key]
        for entry in one.waiting:
            if entry[1] is turn:
                one.waiting.remove(entry)
                self.waiting -= 1
                break
        self._tidy(key)

    def _tidy(self, key: str) -> None:
        """A key without work is forgotten once virtual time has passed it: there may be many of them."""
        if not (self.running or self.waiting):
            self._keys.clear()
            self._virtual = 0.0
            return
        one = self._keys[key]
        if not (one.running or one.waiting) and one.finish <= self._virtual:
            del self._keys[key]
