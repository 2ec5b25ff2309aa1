"""Clients that leave: a permit lives as long as the work, and work ends where nobody waits, over MCP too."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from crossrag.server.sse import EventStream
from crossrag.server.tickets import Ticket, current
from crossrag.testing import OverlapReranker

from .conftest import listening, wait_until
from .test_load import SlowReranker

if TYPE_CHECKING:
    from crossrag.server.service import Service
    from crossrag.types import Relevance

ASK = {"query": "a blue whale"}


class Stubborn(OverlapReranker):
    """Reads on until it may end, whoever waits; counts how many do so at once."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.busy = self.most = 0
        self._lock = threading.Lock()

    def score(self, query: str, texts: Sequence[str], **arguments: Any) -> Relevance:
        if current() is None:  # the warming up
            return super().score(query, texts, **arguments)
        with self._lock:
            self.busy += 1
            self.most = max(self.most, self.busy)
        self.may_end.wait(20)
        with self._lock:
            self.busy -= 1
        return super().score(query, texts, **arguments)


@contextmanager
def sent(url: str, path: str, body: dict[str, Any], **headers: str) -> Iterator[socket.socket]:
    """A request on a line of its own, whose reply nobody reads."""
    host, port = url.removeprefix("http://").split(":")
    text = httpx.Request("POST", url, json=body).content
    head = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": str(len(text))}
    lines = [f"{name}: {value}\r\n" for name, value in (head | headers).items()]
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(f"POST {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + text)
        yield line


def test_a_permit_is_held_until_the_work_of_who_left_has_ended(make: Callable[..., Service]) -> None:
    reranker = Stubborn()
    service = make(reranker=reranker, concurrency=1, queue_seconds=60)
    with listening(service) as found:
        with sent(found.url, "/api/v1/search", ASK):
            wait_until(lambda: reranker.busy == 1)
        with sent(found.url, "/api/v1/search", ASK):
            wait_until(lambda: service.admission.waiting == 1)
            time.sleep(1.5)
            assert (service.admission.running, reranker.most) == (1, 1)
            reranker.may_end.set()
            wait_until(lambda: reranker.busy == service.admission.running == service.admission.waiting == 0)
        assert reranker.most == 1


@pytest.mark.parametrize("body", [ASK, {"question": "How large is a whale?"}], ids=["search", "answer"])
def test_a_permit_is_held_until_the_work_that_took_too_long_has_ended(
    make: Callable[..., Service], body: dict[str, Any]
) -> None:
    reranker = Stubborn()
    service = make(reranker=reranker, concurrency=1, queue_seconds=60)
    path = "search" if body is ASK else "answer"
    with listening(service) as found:
        reply = httpx.post(f"{found.url}/api/v1/{path}", json=body | {"timeout": 2}, timeout=20)
        assert reply.status_code in {200, 504}
        time.sleep(0.2)
        assert reranker.busy >= 1
        assert service.admission.running == 1
        reranker.may_end.set()
        wait_until(lambda: service.admission.running == 0)


@pytest.mark.parametrize(
    ("tool", "arguments"), [("search", ASK), ("ask", {"question": "How large is a whale?"})]
)
def test_nothing_is_read_for_an_mcp_client_that_left(
    make: Callable[..., Service], tool: str, arguments: dict[str, Any]
) -> None:
    reranker = SlowReranker(30.0)
    service = make(reranker=reranker)
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": tool, "arguments": arguments},
    }
    accept = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}
    with listening(service) as found:
        with sent(found.url, "/mcp", call, **accept):
            wait_until(lambda: reranker.steps > 0)
        wait_until(lambda: service.admission.running == 0, 5)
        steps = reranker.steps
        time.sleep(0.2)
        assert reranker.steps == steps


class Endless:
    """A stream of the engine that never ends; says when it is closed."""

    def __init__(self) -> None:
        self.ticket, self.is_closed = Ticket("key", time.monotonic() + 0.2), False

    async def next(self, *, wait: float | None = None) -> str | None:  # noqa: ARG002 - as a stream has it
        return "more"

    async def close(self) -> None:
        self.is_closed = True


def test_a_client_that_does_not_read_is_left_when_time_is_up() -> None:
    """It is still connected, so nothing else says that nobody waits."""
    endless = Endless()
    stream: EventStream[str] = EventStream(
        endless,  # type: ignore[arg-type]
        "first",
        lambda item: iter([item.encode()]),
        failed=lambda _: b"failed",
        heartbeat=1.0,
        headers={},
    )
    sent = list[dict[str, Any]]()

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) > 3:  # its buffers are full
            await asyncio.Event().wait()

    asyncio.run(asyncio.wait_for(stream({}, None, send), 10))  # type: ignore[arg-type]
    assert endless.is_closed
    assert [one["type"] for one in sent] == ["http.response.start", *["http.response.body"] * 3]
