"""A real HTTP server on the loopback that speaks the chat-completions protocol from a script.

It plays one reply per request, in order, and keeps what was asked; broken replies are broken on the wire.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self, get_args

Framing = Literal["chunked", "unfinished", "closed", "short", "reset"]
"""How a body ends: as it should; chunked without its last chunk; by hanging up, of no announced length;
before the length that was announced; or there is no reply at all, but a connection reset."""

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the server sends to one request."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "text/event-stream"})
    parts: tuple[bytes, ...] = ()
    framing: Framing = "chunked"
    silent: bool = False
    """Send the parts, if there are any, and then nothing until the client hangs up or the server closes."""
    endless: bool = False
    """Repeat the last part until the client hangs up or the server closes."""


@dataclass(frozen=True)
class Request:
    """What a client sent; names of headers in lower case."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


def event(content: object) -> bytes:
    """One event of the stream."""
    return f"data: {json.dumps(content)}\n\n".encode()


def token(text: str | None, *, end: str | None = None) -> bytes:
    """The event for a piece of text."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": end}
    return event({"id": "1", "object": "chat.completion.chunk", "choices": [choice]})


def words(*texts: str, end: str | None = "stop") -> tuple[bytes, ...]:
    """The events of a whole answer; with `end=None`, of one that stops in the middle."""
    role = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    last = () if end is None else (token(None, end=end), DONE)
    return (role, *(token(text) for text in texts), *last)


def answer(*texts: str, end: str | None = "stop", framing: Framing = "chunked") -> Reply:
    """A streamed answer."""
    return Reply(parts=words(*texts, end=end), framing=framing)


def refusal(status: int, message: str = "no", *, framing: Framing = "chunked", **headers: str) -> Reply:
    """An error reply in OpenAI's form; `Retry_After="1"` is the header `Retry-After: 1`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps({"error": {"message": message, "type": "test", "code": None}}).encode()
    return Reply(
        status=status,
        headers={"Content-Type": "application/json"} | named,
        parts=(body,),
        framing=framing,
    )


BREAKS = {
    "reset": Reply(framing="reset"),
    "cut before the first word": answer(end=None, framing="unfinished"),
    "ended before the first word": answer(end=None),
    "refusal cut in its body": refusal(500, framing="short"),
    "error in the stream": Reply(parts=(event({"error": {"message": "overloaded", "code": 503}}),)),
}
"""Ways to fail before the first word, all of which may pass."""

CUTS = {how: answer("One", " two", end=None, framing=how) for how in get_args(Framing) if how != "reset"} | {
    "silent": Reply(parts=words("One", " two", end=None), silent=True)
}
"""Ways to stop after two words."""

WRONG = {
    "no JSON": b"data: {nonsense\n\n",
    "no UTF-8": b'data: "\xff"\n\n',
    "an error": event({"error": {"message": "out of memory", "code": 500}}),
    "an error in plain words": event({"error": "out of memory"}),
    "choices of another kind": event({"choices": {"a": 1}}),
    "text of another kind": event({"choices": [{"delta": {"content": [1]}}]}),
}
"""Events that no chat completion holds."""


class FakeOpenAI:
    """The server; a context manager. `requests` holds what arrived, `hung_up` is set when a client left."""

    def __init__(self, *script: Reply) -> None:
        self.requests: list[Request] = []
        self.hung_up = threading.Event()
        self._script = list(script)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = False  # so that closing waits for every thread and its socket
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def base_url(self) -> str:
        """What a client takes for the address of the API."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def play(self, *script: Reply) -> None:
        """Append replies."""
        self._script.extend(script)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _next(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            return self._script.pop(0) if self._script else refusal(418, "the script has no further reply")

    def _send(self, reply: Reply, handler: BaseHTTPRequestHandler) -> None:
        if reply.framing == "reset":
            # Lingering for zero seconds makes closing a reset instead of an orderly end.
            linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            handler.connection.close()
            return
        if reply.silent and not reply.parts:
            self._wait_for_client(handler)
            return
        chunked = reply.framing in {"chunked", "unfinished"}
        _send_head(reply, handler, chunked=chunked)
        for part in reply.parts:
            _send_part(part, handler, chunked=chunked)
        while reply.endless and not self._closing.wait(0.005):
            _send_part(reply.parts[-1], handler, chunked=chunked)
        if reply.silent:
            self._wait_for_client(handler)
        elif reply.framing == "chunked":
            handler.wfile.write(b"0\r\n\r\n")

    def _wait_for_client(self, handler: BaseHTTPRequestHandler) -> None:
        handler.connection.settimeout(0.01)
        while not self._closing.is_set():
            try:
                if not handler.connection.recv(1):
                    break
            except TimeoutError:
                continue
        self.hung_up.set()


def _send_head(reply: Reply, handler: BaseHTTPRequestHandler, *, chunked: bool) -> None:
    handler.send_response(reply.status)
    for name, value in reply.headers.items():
        handler.send_header(name, value)
    if chunked:
        handler.send_header("Transfer-Encoding", "chunked")
    if reply.framing == "short":
        handler.send_header("Content-Length", str(sum(map(len, reply.parts)) + 100))
    handler.send_header("Connection", "close")
    handler.end_headers()


def _send_part(part: bytes, handler: BaseHTTPRequestHandler, *, chunked: bool) -> None:
    handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)


def _handler(fake: FakeOpenAI) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = fake._next(
                Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            )
            self.close_connection = True
            try:
                fake._send(reply, self)
            except ConnectionError:
                fake.hung_up.set()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited names
            """Say nothing."""

    return Handler
