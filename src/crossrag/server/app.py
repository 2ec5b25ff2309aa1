"""A service -> the application with all its routes; and the server that runs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from crossrag.errors import CrossragError

from . import errors
from .feedback import Feedback
from .files import Files
from .gate import Gate
from .health import Health
from .native import Native
from .observing import Observer
from .pages import Pages
from .routing import Router
from .schemas import ProblemReply

if TYPE_CHECKING:
    from .service import Service

_PROBLEM = {
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemReply"}}}
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "model": ProblemReply, **_PROBLEM}
    for status, text in {
        400: "Malformed",
        401: "No key",
        403: "Not allowed",
        404: "Not found",
        413: "Too large",
        422: "Cannot be used",
        429: "Overloaded",
        502: "The language model failed",
        503: "Not available",
        504: "Time was up",
    }.items()
}


def create_app(service: Service) -> FastAPI:
    """The application; its lifespan loads the models, and closes the service.

    Args:
        service: What it serves.
    """
    from crossrag import __version__

    observer = Observer(service)
    app = FastAPI(
        title="crossrag",
        version=__version__,
        description="Answers from your own documents, with checked citations.",
        docs_url=None,
        redoc_url=None,
        lifespan=lambda _: _lifespan(service, observer),
    )
    app.state.observer, app.state.service = observer, service
    router = Router(app)
    router.open("/openapi.json")
    Health(service, observer).register(router, PROBLEMS)
    Native(service, Feedback(service)).register(router, PROBLEMS)
    Files(service).register(router, PROBLEMS)
    Pages().register(router)
    errors.register(app)
    router.check()
    app.state.router = router
    app.add_middleware(Gate, service=service, router=router, observer=observer)
    return app


@asynccontextmanager
async def _lifespan(service: Service, observer: Observer) -> AsyncIterator[None]:
    async def warm() -> None:
        try:
            await asyncio.to_thread(service.warm_up)
        except CrossragError as error:
            observer.failed("start", error)

    warming = asyncio.create_task(warm())
    try:
        yield
    finally:
        service.state = "stopping"
        with suppress(asyncio.CancelledError):
            await warming
        await asyncio.to_thread(service.close)
