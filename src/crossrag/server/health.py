"""`/healthz`, `/readyz` and `/metrics`: whether it lives, whether it can work, how much it does."""

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from crossrag.errors import CrossragError

from .observing import Observer
from .problems import Problem
from .routing import Router
from .service import Service


class Health:
    """The routes."""

    def __init__(self, service: Service, observer: Observer) -> None:
        self._service, self._observer = service, observer

    def register(self, router: Router, responses: dict[int | str, Any]) -> None:
        """Add them."""
        router.add("GET", "/healthz", self.alive, "public")
        router.add("GET", "/readyz", self.ready, "public", responses=responses)
        router.add(
            "GET", "/metrics", self.metrics, "admin", response_class=Response, responses=responses | _METRICS
        )

    async def alive(self) -> dict[str, str]:
        """The process answers; nothing else is asked."""
        return {"status": "alive"}

    async def ready(self) -> dict[str, str]:
        """Models are loaded and every index answers, now."""
        service = self._service
        if service.state in {"starting", "stopping"}:
            raise Problem(503, f"The server is {service.state}", retry_after=1)
        try:
            await run_in_threadpool(service.check)
        except CrossragError:
            service.now("failing")
            raise
        service.now("ready" if service.warm else "failing")
        if service.state != "ready":
            raise Problem(503, "A model cannot be used", hint="The server's log says why", retry_after=10)
        return {"status": "ready"}

    async def metrics(self) -> Response:
        """Figures for Prometheus."""
        return Response(self._observer.exposition(), media_type=CONTENT_TYPE_LATEST)


_METRICS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Prometheus' text form", "content": {"text/plain": {"schema": {"type": "string"}}}}
}
