"""Every request passes here first: its host, its key, its size. A body is read only of who may send one.

Plain ASGI, so that streams pass untouched. Knows nothing of what the routes do.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from typing import TYPE_CHECKING

from starlette.requests import Request

from . import errors
from .auth import Principal
from .observing import span
from .problems import Problem
from .routing import required

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from .observing import Observer
    from .routing import Matched, Router
    from .service import Service

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MOST_HEADERS, _LONGEST_TARGET = 100, 8_192
_SMALL = 65_536
"""Bytes of a body that take no longer to look through than another thread takes to begin."""
_LOCAL = {"localhost", "127.0.0.1", "[::1]"}
_PROBES = {"/healthz", "/readyz"}
"""Asked by address, by whoever starts and stops servers."""
_HEADERS = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'self'; img-src 'self' data:; object-src 'none'; "
    b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"cross-origin-resource-policy": b"same-origin",
}


class Gate:
    """The outermost application.

    Args:
        app: What is behind it.
        service: For keys and limits.
        router: For the policies of routes.
        observer: Told of every request that ended.
    """

    def __init__(self, app: ASGIApp, *, service: Service, router: Router, observer: Observer) -> None:
        self._app, self._service, self._router, self._observer = app, service, router, observer
        limits = service.limits
        self._hosts = {*_LOCAL, limits.host.lower(), *map(str.lower, limits.allowed_hosts)}
        # Whoever must show a key cannot be made to by a page of another site.
        self._any_host = "*" in self._hosts or (service.keys.required and not limits.allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passage = _Passage(scope, send)
        request = Request(scope, receive)
        matched = self._router.match(scope)
        request.state.request_id = passage.request_id
        request.state.principal = Principal("", "read", "")
        try:
            request.state.principal = self._admitted(request, matched)
            if matched is not None and matched.policy != "public":  # else nobody reads a body
                receive = await self._bounded(request, receive, upload=matched.upload)
            with span(f"{request.method} {_template(matched)}", **{"http.route": _template(matched)}):
                await self._app(scope, receive, passage.send)
        except Exception as error:  # noqa: BLE001 - the last frame before the network
            # Not raised: whoever catches it would write its words into a log.
            problem = errors.reply_of(error, request)
            if not passage.status:
                await errors.respond(request, problem)(scope, receive, passage.send)
        finally:
            self._observer.ended(
                request_id=passage.request_id,
                route=_template(matched),
                method=str(scope["method"])[:16],
                status=passage.status,
                seconds=time.perf_counter() - passage.started,
                key=request.state.principal.name,
            )

    def _admitted(self, request: Request, matched: Matched | None) -> Principal:
        """Who calls, if it may.

        Raises:
            Problem: It may not.
        """
        self._check_head(request, any_host=self._any_host or bool(matched and matched.template in _PROBES))
        keys = self._service.keys
        if matched is not None and matched.policy == "public":
            return Principal("public", "read", "")
        address = request.client.host if request.client else ""
        principal = self._holder(request) if keys.required else keys.anybody(address)
        if principal is None:
            raise Problem(401, "A key is needed", hint="Send the header Authorization: Bearer KEY")
        scope = required(matched.policy) if matched is not None else None
        if scope is not None and not principal.may(scope):
            raise Problem(403, f"This needs a key with the scope {scope}")
        return principal

    def _holder(self, request: Request) -> Principal | None:
        """There is one way to show a key, so that there is one place that can go wrong."""
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        return self._service.keys.holder(key.strip()) if kind.lower() == "bearer" and key.strip() else None

    def _check_head(self, request: Request, *, any_host: bool) -> None:
        if len(request.headers.raw) > _MOST_HEADERS:
            raise Problem(431, f"More than {_MOST_HEADERS} headers")
        if len(request.url.path) + len(request.url.query) > _LONGEST_TARGET:
            raise Problem(414, "The address is too long")
        # A page of another site may resolve its own name to this machine: it cannot lie about that name.
        host = request.headers.get("host", "").lower()
        name = host[: host.rfind("]") + 1] if host.startswith("[") else host.partition(":")[0]
        if not any_host and name not in self._hosts:
            raise Problem(
                421, "This server has another name", hint="Name it in server.allowed_hosts if it is right"
            )
        # Browsers send pages of other sites' requests too, and say where they are from.
        origin = request.headers.get("origin", "").lower().partition("://")[2]
        if origin != host and "origin" in request.headers:
            raise Problem(403, "Pages of other sites may not ask here")

    async def _bounded(self, request: Request, receive: Receive, *, upload: bool) -> Receive:
        limits = self._service.limits
        most = limits.upload_bytes if upload else limits.body_bytes
        length = request.headers.get("content-length", "0")
        if not length.isdecimal():
            raise Problem(400, "Content-Length is no number")
        if int(length) > most:
            raise Problem(413, f"The request is larger than {most} bytes", hint="Send less at once")
        until = time.monotonic() + limits.body_seconds * (10 if upload else 1)
        if upload:
            return _counted(receive, most, until)
        if (
            request.method in {"GET", "HEAD", "OPTIONS", "DELETE"}
            and "transfer-encoding" not in request.headers
        ) and length == "0":
            return receive
        body = await _whole(receive, most, until)
        # Whatever the request calls it: the parsers behind this go by rules of their own.
        if len(body) <= _SMALL:
            _check_body(body, limits.json_depth)
        else:  # meanwhile others are served
            await asyncio.to_thread(_check_body, body, limits.json_depth)
        return _replayed(body, receive)


def _template(matched: Matched | None) -> str:
    return matched.template if matched else "(none)"


class _Passage:
    """One request on its way: its id, and the headers that every reply gets."""

    def __init__(self, scope: Scope, send: Send) -> None:
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        self.request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        self.started = time.perf_counter()
        self.status = 0
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", []))
            there = {name.lower() for name, _ in headers}
            headers += [pair for pair in _HEADERS.items() if pair[0] not in there]
            headers.append((b"x-request-id", self.request_id.encode()))
            message = {**message, "headers": headers}
        await self._send(message)


async def _next(receive: Receive, until: float) -> Message:
    try:
        return await asyncio.wait_for(receive(), max(0.0, until - time.monotonic()))
    except TimeoutError:
        raise Problem(408, "The request took too long to arrive") from None


async def _whole(receive: Receive, most: int, until: float) -> bytes:
    """The body, which is small and arrives in time."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await _next(receive, until)
        if message["type"] == "http.disconnect":
            raise Problem(400, "The request was cut short")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise Problem(413, f"The request is larger than {most} bytes", hint="Send less at once")
        if not message.get("more_body", False):
            return b"".join(parts)


def _counted(receive: Receive, most: int, until: float) -> Receive:
    """An upload as it arrives, cut off where it is too large or too slow."""
    size, done = 0, False

    async def counted() -> Message:
        nonlocal size, done
        if done:
            return await receive()
        message = await _next(receive, until)
        size += len(message.get("body", b""))
        if size > most:
            raise Problem(413, f"The upload is larger than {most} bytes", hint="Send fewer files at once")
        done = not message.get("more_body", False)
        return message

    return counted


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _check_body(body: bytes, deepest: int) -> None:
    if _is_deeper(body, deepest):
        raise Problem(422, f"The JSON is nested deeper than {deepest}")
    _check_text(body)


_SURROGATE = re.compile(rb"\\u[dD][89A-Fa-f]")
_ESCAPE = re.compile(rb"\\(?:u([0-9A-Fa-f]{4})|.)", re.DOTALL)


def _check_text(body: bytes) -> None:
    """Refuse bytes that are no UTF-8, and halves of surrogate pairs, which nothing can write.

    Raises:
        Problem: 400 or 422.
    """
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        raise Problem(400, "The request is no UTF-8", hint="JSON is always UTF-8") from None
    if b"\0" in body:  # Python's parser would take it for UTF-16
        raise Problem(400, "The request holds NUL", hint="JSON is always UTF-8")
    if not _SURROGATE.search(body):
        return
    awaited = -1
    """Where a low half must follow."""
    for match in _ESCAPE.finditer(body):
        unit = int(match[1], 16) if match[1] else 0
        is_low, follows = 0xDC00 <= unit <= 0xDFFF, match.start() == awaited
        if is_low != follows or (awaited >= 0 and not follows):
            break
        awaited = match.end() if 0xD800 <= unit <= 0xDBFF else -1
    else:
        if awaited < 0:
            return
    raise Problem(422, "The JSON holds half of a surrogate pair", hint="Send whole characters")


_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


def _is_deeper(body: bytes, most: int) -> bool:
    """Whether brackets outside of strings are nested deeper than that, in one pass."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(body):
        first = body[match.start() : match.start() + 1]
        if first in b"[{":
            depth += 1
            if depth > most:
                return True
        elif first in b"]}":
            depth -= 1
    return False
