"""A service -> the application with all its routes; and the server that runs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from . import errors
from .dialects import OpenAIError, RerankError, TeiError
from .feedback import Feedback
from .files import Files
from .gate import Gate
from .health import Health
from .native import Native
from .observing import Observer
from .openai import OpenAI
from .pages import Pages
from .rerank import Rerank
from .routing import KEY, Router
from .schemas import ProblemReply

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .service import Service

_FAILURES = {
    400: "Malformed",
    401: "No key",
    403: "Not allowed",
    404: "Not found",
    408: "It took too long to arrive",
    413: "Too large",
    422: "Cannot be used",
    429: "Overloaded",
    502: "The language model failed",
    503: "Not available",
    504: "Time was up",
}


def _failures(model: type[BaseModel], media_type: str = "application/json") -> dict[int | str, Any]:
    """What the description says of a route's errors; all of them have the same form."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    content = {} if media_type == "application/json" else {"content": {media_type: {"schema": schema}}}
    return {status: {"description": text, "model": model, **content} for status, text in _FAILURES.items()}


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
        # The framework's own spans hold the text of queries.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        lifespan=lambda app: _lifespan(app, service, observer),
    )
    service.batch_ran, service.ranked = observer.batch, observer.ranked
    app.state.observer, app.state.service = observer, service
    locked = service.keys.required
    router = Router(app, locked=locked)
    router.open("/openapi.json")
    problems = _failures(ProblemReply, "application/problem+json")
    Health(service, observer).register(router, problems)
    Native(service, Feedback(service)).register(router, problems)
    Files(service).register(router, problems)
    OpenAI(service).register(router, _failures(OpenAIError))
    Rerank(service).register(router, _failures(RerankError), _failures(TeiError))
    Pages().register(router)
    app.state.sessions = _add_mcp(router, service)
    errors.register(app)
    router.check()
    if locked:
        app.openapi = lambda: _with_key(FastAPI.openapi(app))  # type: ignore[method-assign]
    app.state.router = router
    app.add_middleware(Gate, service=service, router=router, observer=observer)
    return app


def _with_key(description: dict[str, Any]) -> dict[str, Any]:
    """The description with the one way to show a key."""
    bearer = {"type": "http", "scheme": "bearer"}
    description["components"]["securitySchemes"] = {KEY: bearer}
    return description


def _add_mcp(router: Router, service: Service) -> Any:
    """`/mcp`, where its package is installed; what has to run beside the application, or None."""
    if find_spec("mcp") is None:
        return None
    from mcp.server.transport_security import TransportSecuritySettings

    from .mcp import Tools

    server = Tools(service).server()
    # Hosts and origins are checked by the gate, for all routes alike.
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    made = server.streamable_http_app(
        streamable_http_path="/mcp",
        json_response=True,
        stateless_http=True,
        max_request_body_size=service.limits.body_bytes,
        transport_security=security,
    )
    for route in made.routes:
        router.include(route, "read")
    return server.session_manager


@asynccontextmanager
async def _lifespan(app: FastAPI, service: Service, observer: Observer) -> AsyncIterator[None]:
    async def warm() -> None:
        try:
            await asyncio.to_thread(service.warm_up)
        except Exception as error:  # noqa: BLE001 - a model may fail in any way; `/readyz` and the log say so
            observer.failed("start", error)

    warming = asyncio.create_task(warm())
    sessions = app.state.sessions
    try:
        async with sessions.run() if sessions is not None else nullcontext():
            yield
    finally:
        service.state = "stopping"
        try:
            with suppress(asyncio.CancelledError):
                await warming
        finally:
            await asyncio.to_thread(service.close)
