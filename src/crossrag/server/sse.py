"""A stream of the engine's events -> server-sent events: heartbeats, exactly one last event, and no leaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from starlette.responses import Response

from .tickets import Abandoned

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from .running import Stream

T = TypeVar("T")
HEARTBEAT = b": ping\n\n"
_LAST_WORDS = 1.0
"""Seconds for what is said when time is up, to a client that reads."""


def message(data: Any, *, event: str | None = None) -> bytes:
    """One server-sent event."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False, allow_nan=False)}\n\n".encode()


class EventStream(Response, Generic[T]):
    """Sends what `render` makes of every item; whatever happens, the stream is closed.

    Args:
        stream: Opened; its first item has been read.
        first: That item.
        render: Item to chunks of the body.
        failed: What ended the stream early to its last chunk.
        heartbeat: Seconds of silence after which a comment is sent.
        headers: Beside those of every event stream.
        last: What follows the last item, where nothing failed.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        stream: Stream[T],
        first: T,
        render: Callable[[T], Iterator[bytes]],
        *,
        failed: Callable[[Exception], bytes],
        heartbeat: float,
        headers: Mapping[str, str],
        last: bytes = b"",
    ) -> None:
        super().__init__(headers=dict(headers) | {"X-Accel-Buffering": "no"}, media_type=self.media_type)
        del self.headers["content-length"]
        self._stream, self._first, self._render = stream, first, render
        self._failed, self._heartbeat, self._last = failed, heartbeat, last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send everything, or until the client leaves."""

        async def body(chunk: bytes, *, more: bool = True) -> None:
            left = self._stream.ticket.remaining
            try:
                async with asyncio.timeout(None if left is None else max(_LAST_WORDS, left)):
                    await send({"type": "http.response.body", "body": chunk, "more_body": more})
            except TimeoutError:
                # The client is there and does not read: it holds a permit no longer than one that reads.
                raise Abandoned from None

        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            # A client that left is no failure, and there is nobody to tell.
            with suppress(Abandoned):
                whole = await self._send_items(body)
                await body(self._last if whole else b"", more=False)
        finally:
            await self._stream.close()

    async def _send_items(self, body: Callable[..., Any]) -> bool:
        item: T | None = self._first
        try:
            while True:
                if item is None:
                    await body(HEARTBEAT)
                else:
                    for chunk in self._render(item):
                        await body(chunk)
                item = await self._stream.next(wait=self._heartbeat)
        except StopAsyncIteration:
            return True
        except Abandoned:
            raise
        except Exception as error:  # noqa: BLE001 - the status was sent: all that is left is an event
            await body(self._failed(error))
            return False
