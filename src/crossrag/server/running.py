"""Blocking work of the engine -> awaited results and streams: in turn, in time, and while somebody waits.

A client that leaves abandons the ticket of its work, which notices within one batch or one piece of text. Its
permit comes back when the work has ended, and not before: what still runs counts, whoever waits for it.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from crossrag.errors import discreetly
from crossrag.timed import noting

from .admission import Overloaded
from .problems import Problem
from .tickets import Abandoned, Ticket, working_for

if TYPE_CHECKING:
    from starlette.requests import Request

    from crossrag.pipeline import Rag

    from .service import Service

T = TypeVar("T")
_AHEAD = 64
"""Events that may wait for a slow reader."""
_GLANCE = 0.25
"""Seconds between two looks at a deadline."""
_LOOKING = 0.05
"""Seconds between two looks at threads that were left behind."""


def ticket_for(request: Request, service: Service, seconds: float | None) -> Ticket:
    """The work of a request, to be done within `seconds` and the server's own limit."""
    limit = service.limits.timeout if seconds is None else min(seconds, service.limits.timeout)
    return _ticket(service, request.state.principal.name, limit)


def _ticket(service: Service, key: str, seconds: float) -> Ticket:
    made = Ticket(key, time.monotonic() + seconds)
    service.tickets.add(made)
    return made


async def run(
    request: Request, service: Service, work: Callable[[Ticket], T], *, seconds: float | None = None
) -> T:
    """Do blocking work for a request, in its turn.

    Raises:
        Problem: 429 or 503 where it is not admitted, 504 where its time is up.
        Abandoned: The client left.
    """
    ticket = ticket_for(request, service, seconds)
    async with _watched(request, ticket) as left, admitted(service, ticket, left) as held:
        job = held.start(lambda: work(ticket))
        return await _first(job, left, ticket)


async def opened(
    request: Request, service: Service, collection: str | None, *, seconds: float | None = None
) -> Rag:
    """The index of a collection for whoever asks; the body must have been read.

    The first one to ask waits in a thread while it is made, and in the queue, since models may load slowly.

    Raises:
        Problem: There is no such collection; or as `run`.
    """
    tenant = request.state.principal.tenant
    if (made := service.made(collection, tenant)) is not None:
        return made
    return await run(request, service, lambda _: service.rag(collection, tenant), seconds=seconds)


async def run_for(service: Service, key: str, work: Callable[[Ticket], T]) -> T:
    """Do blocking work for somebody who is no HTTP request; whoever cancels this has left.

    Raises:
        Problem: As `run`.
    """
    ticket = _ticket(service, key, service.limits.timeout)
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    try:
        async with admitted(service, ticket, never) as held:
            return await _first(held.start(lambda: work(ticket)), never, ticket)
    finally:
        ticket.abandon()


@asynccontextmanager
async def admitted(service: Service, ticket: Ticket, left: asyncio.Future[Any]) -> AsyncIterator[Held]:
    """Hold a permit until the work is done."""
    if service.state == "stopping":
        raise _stopping()
    turn = asyncio.ensure_future(service.admission.enter(ticket.key))
    try:
        await _first(turn, left, ticket)
    except asyncio.CancelledError:
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            service.admission.leave(ticket.key, done=False)  # its turn had come, and nobody will use it
        raise
    except Overloaded as busy:
        raise Problem(
            429, "The server has too much to do", hint="Try again later", retry_after=busy.retry_after
        ) from None
    held = Held(service, ticket)
    try:
        yield held
    finally:
        held.release()


class Held:
    """A permit, and the threads that work under it."""

    def __init__(self, service: Service, ticket: Ticket) -> None:
        self._service, self._ticket = service, ticket
        self._job: asyncio.Future[Any] | None = None
        self._helpers: list[threading.Thread] = []

    def start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run it in a thread."""
        context = contextvars.copy_context()

        def working() -> T:
            with working_for(self._ticket), noting(self._helpers), discreetly():
                self._ticket.check()
                done = work()
                if self._ticket.refusal is not None:
                    raise self._ticket.refusal
                return done

        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(self._service.threads, lambda: context.run(working))
        self._job = job
        # What an abandoned job raises, nobody asks for.
        job.add_done_callback(lambda done: done.cancelled() or done.exception())
        return job

    def release(self) -> None:
        """Give the permit back when every thread has ended; those that nobody waits for were told to."""
        if self._job is None or self._job.done():
            self._leave()
        else:
            self._job.add_done_callback(lambda _: self._leave())

    def _leave(self) -> None:
        self._helpers = [one for one in self._helpers if one.is_alive()]
        if self._helpers:
            asyncio.get_running_loop().call_later(_LOOKING, self._leave)
            return
        self._service.admission.leave(self._ticket.key, done=not self._ticket.abandoned)


class _End:
    """After the last item; `error` is what ended the stream early."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Stream(Generic[T]):
    """A blocking iterator, read from the event loop.

    Use it as an asynchronous context manager: on the way out the work is abandoned and its permit comes back.
    """

    def __init__(
        self,
        request: Request,
        service: Service,
        iterate: Callable[[Ticket], Iterator[T]],
        *,
        seconds: float | None = None,
    ) -> None:
        self._request, self._service, self._iterate = request, service, iterate
        self.ticket = ticket_for(request, service, seconds)
        self._items: asyncio.Queue[T | _End] = asyncio.Queue()
        self._room = threading.Semaphore(_AHEAD)
        self._stack = AsyncExitStack()
        self._left: asyncio.Future[None] | None = None

    async def open(self) -> T:
        """Wait for a permit, begin, and give the first item.

        Raises:
            Problem: It is not admitted, or time was up first.
            Exception: Whatever the iterator raised before its first item.
        """
        try:
            left = await self._stack.enter_async_context(_watched(self._request, self.ticket))
            held = await self._stack.enter_async_context(admitted(self._service, self.ticket, left))
        except BaseException:
            await self._stack.aclose()
            raise
        self._left = left
        loop = asyncio.get_running_loop()
        held.start(lambda: self._work(loop))
        try:
            first = await self.next()
        except BaseException:
            await self.close()
            raise
        assert first is not None  # noqa: S101 - it waited without a limit
        return first

    async def next(self, *, wait: float | None = None) -> T | None:
        """The next item; None where nothing came for `wait` seconds.

        Raises:
            StopAsyncIteration: There are no more.
            Problem: 504 where time is up.
            Abandoned: The client left.
        """
        assert self._left is not None  # noqa: S101 - open() came first
        getter = asyncio.ensure_future(self._items.get())
        try:
            item = await _first(getter, self._left, self.ticket, wait=wait)
        except TimeoutError:
            return None
        self._room.release()
        if isinstance(item, _End):
            if item.error is not None:
                raise item.error
            raise StopAsyncIteration
        return item

    async def close(self) -> None:
        """Abandon what is not done; closing twice is fine."""
        self.ticket.abandon()
        await self._stack.aclose()

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        error: BaseException | None = None
        iterator = self._iterate(self.ticket)
        try:
            for item in iterator:
                while not self._room.acquire(timeout=0.1):
                    self.ticket.check()
                self.ticket.check()
                loop.call_soon_threadsafe(self._items.put_nowait, item)
        except BaseException as caught:  # noqa: BLE001 - handed on to whoever reads
            error = caught
        finally:
            # Closes the connection to a language model, too.
            if hasattr(iterator, "close"):
                iterator.close()
            with suppress(RuntimeError):  # the loop may be gone
                loop.call_soon_threadsafe(self._items.put_nowait, _End(error))


@asynccontextmanager
async def _watched(request: Request, ticket: Ticket) -> AsyncIterator[asyncio.Future[None]]:
    """A future that is done when the client has left; the body must have been read."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task = asyncio.ensure_future(gone())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        # Whatever is still at work, nobody waits for it now.
        ticket.abandon()


async def _first(
    wanted: asyncio.Future[T], left: asyncio.Future[Any], ticket: Ticket, *, wait: float | None = None
) -> T:
    """The result, unless the client leaves, the ticket's time is up, or `wait` is over (TimeoutError)."""
    until = None if wait is None else time.monotonic() + wait
    try:
        while not (wanted.done() or left.done()):
            # The ticket's deadline may come nearer meanwhile: the server was told to stop.
            spare = None if until is None else max(0.0, until - time.monotonic())
            limits = [limit for limit in (ticket.remaining, spare) if limit is not None]
            if 0.0 in limits:
                break
            await asyncio.wait({wanted, left}, timeout=min([*limits, _GLANCE]), return_when="FIRST_COMPLETED")
    except asyncio.CancelledError:
        _give_up(wanted)
        raise
    if wanted.done():
        return wanted.result()
    _give_up(wanted)
    if left.done():
        ticket.abandon()
        raise Abandoned
    if ticket.remaining == 0.0:
        ticket.abandon()
        if ticket.stopping:
            raise _stopping()
        raise Problem(504, "There was not enough time", hint="Ask again with a longer timeout")
    raise TimeoutError


def _stopping() -> Problem:
    return Problem(503, "The server is about to stop", retry_after=5)


def _give_up(wanted: asyncio.Future[Any]) -> None:
    """Cancel a task. A thread cannot be cancelled, and its future must not say that it has ended."""
    if isinstance(wanted, asyncio.Task):
        wanted.cancel()
