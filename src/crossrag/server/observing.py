"""Requests -> one line of log each, figures for Prometheus, spans for OpenTelemetry; none holds any text.

Labels are the route's template, the status and the stage: no names, no tenants, no questions.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from crossrag.errors import CrossragError

if TYPE_CHECKING:
    from crossrag.server_settings import ServerSettings
    from crossrag.types import Ranking

    from .service import Service

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_LOG = logging.getLogger("crossrag.server")
_TRACER = trace.get_tracer("crossrag.server")


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def log_requests(limits: ServerSettings) -> None:
    """Lines of requests to this process's stderr, as the settings say."""
    handler = logging.StreamHandler(sys.stderr)
    text = limits.log_format == "text"
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s" if text else "%(message)s"))
    for name in ("crossrag.server", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name.startswith("crossrag") else logging.WARNING)


class Observer:
    """Figures and lines of one app."""

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        at = self.registry
        self._requests = Counter(
            "crossrag_requests", "Requests that ended", ["route", "method", "status"], registry=at
        )
        self._seconds = Histogram(
            "crossrag_request_seconds", "Time to the last byte", ["route"], buckets=_SECONDS, registry=at
        )
        self._stages = Histogram(
            "crossrag_stage_seconds", "Time of a stage", ["stage"], buckets=_SECONDS, registry=at
        )
        self._degraded = Counter(
            "crossrag_degraded", "Results without the work of a stage", ["stage"], registry=at
        )
        self._errors = Counter("crossrag_errors", "Failures by kind", ["kind"], registry=at)
        self._unscored = Counter(
            "crossrag_unscored_passages", "Passages that got no finite score", registry=at
        )
        self._tokens = Counter("crossrag_batch_tokens", "Tokens read by the reranker", registry=at)
        self._batches = Counter("crossrag_batches", "Batches run by the reranker", registry=at)
        admission = service.admission
        for name, about, read in (
            ("crossrag_running", "Requests at work", lambda: admission.running),
            ("crossrag_waiting", "Requests that wait for their turn", lambda: admission.waiting),
            ("crossrag_queue_seconds", "Seconds of work that wait", lambda: admission.queue_seconds),
            ("crossrag_ready", "Whether the service is ready", lambda: service.state == "ready"),
        ):
            Gauge(name, about, registry=at).set_function(read)
        self._json = service.limits.log_format == "json"

    def ended(
        self, *, request_id: str, route: str, method: str, status: int, seconds: float, key: str
    ) -> None:
        """A request ended."""
        # Anybody may make up methods, and every new one would be a line of its own for ever.
        method = method if method in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        self._line(
            logging.INFO,
            "request",
            request_id=request_id,
            route=route,
            method=method,
            status=status,
            milliseconds=round(seconds * 1000, 1),
            key=key,
        )

    def failed(self, request_id: str, error: BaseException) -> None:
        """Something failed: its kind, and where in this program; never its words, which may hold a text."""
        kind, where, hint = _told(error)
        self._errors.labels(kind).inc()
        self._line(logging.ERROR, "failed", request_id=request_id, kind=kind, where=where, hint=hint)

    def ranked(self, ranking: Ranking) -> None:
        """Stages and their times."""
        for stage, seconds in ranking.timings.items():
            self._stages.labels(stage).observe(seconds)
        unscored = sum(one.scores.relevance is None for one in ranking.candidates)
        if unscored and unscored < len(ranking.candidates):
            self._unscored.inc(unscored)
        for stage in ranking.degraded:
            self._degraded.labels(stage).inc()

    def batch(self, tokens: int) -> None:
        """The reranker has run a batch."""
        self._batches.inc()
        self._tokens.inc(tokens)

    def exposition(self) -> bytes:
        """All figures in Prometheus' text form."""
        return generate_latest(self.registry)

    def _line(self, level: int, event: str, **values: Any) -> None:
        if not _LOG.isEnabledFor(level):
            return
        if self._json:
            row = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event, **values}
            _LOG.log(level, "%s", json.dumps(row))
        else:
            _LOG.log(
                level,
                "%s %s",
                event,
                " ".join(f"{name}={value}" for name, value in values.items() if value != ""),
            )


def log_failure(error: BaseException) -> None:
    """The same line where there are no requests and no figures: over stdio."""
    kind, where, hint = _told(error)
    _LOG.error("failed kind=%s where=%s hint=%s", kind, where, hint)


def _told(error: BaseException) -> tuple[str, str, str]:
    """Kind, place in this program, and how to mend it if it is an error of ours."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = "" if frame is None else f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
    return type(error).__name__, where, error.hint if isinstance(error, CrossragError) else ""


@contextmanager
def span(name: str, **attributes: str | int) -> Iterator[trace.Span]:
    """A span of OpenTelemetry; costs nothing where no exporter is set up. Attributes hold no text."""
    with _TRACER.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except BaseException as error:
            current.set_attribute("error.type", type(error).__name__)
            raise


def server_timing(timings: Mapping[str, float]) -> str:
    """The value of the header `Server-Timing`."""
    return ", ".join(f"{stage};dur={seconds * 1000:.1f}" for stage, seconds in timings.items())
