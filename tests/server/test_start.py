"""A slow start: models load in threads, and whoever asks meanwhile waits without stopping anybody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx

from crossrag.errors import StoreError

from .conftest import wait_until
from .test_load import answers, listening_early

if TYPE_CHECKING:
    import pytest

    from crossrag.server.service import Service

QUESTION = "How do I restore a backup?"
MCP = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}
CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "search", "arguments": {"query": QUESTION}},
}
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/api/v1/search", {"json": {"query": QUESTION}}),
    ("POST", "/api/v1/answer", {"json": {"question": QUESTION}}),
    ("POST", "/api/v1/answer", {"json": {"question": QUESTION, "stream": True}}),
    ("POST", "/v1/chat/completions", {"json": {"messages": [{"role": "user", "content": QUESTION}]}}),
    ("POST", "/v1/embeddings", {"json": {"model": "embedder", "input": "x"}}),
    ("POST", "/v1/rerank", {"json": {"query": "x", "documents": ["x", "y"]}}),
    ("POST", "/rerank", {"json": {"query": "x", "texts": ["x", "y"]}}),
    ("GET", "/api/v1/documents", {}),
    ("GET", "/api/v1/status", {}),
    ("POST", "/api/v1/documents", {"files": {"files": ("new.md", "A new text.")}}),
    ("POST", "/mcp", {"json": CALL, "headers": MCP}),
]


def test_models_that_load_slowly_stop_nobody(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make(concurrency=2, queue_seconds=60)
    may_load, loading = threading.Event(), threading.Event()
    real = service._made_reranker

    def slowly() -> Any:
        loading.set()
        may_load.wait(20)
        return real()

    monkeypatch.setattr(service, "_made_reranker", slowly)

    def ask(request: tuple[str, str, dict[str, Any]]) -> int:
        method, path, arguments = request
        return httpx.request(method, f"{found.url}{path}", timeout=30, **arguments).status_code

    with listening_early(service) as found, ThreadPoolExecutor(len(REQUESTS)) as threads:
        try:
            wait_until(lambda: answers(found.url))
            assert loading.wait(10)
            asked = [threads.submit(ask, request) for request in REQUESTS]
            for _ in range(10):
                assert httpx.get(f"{found.url}/healthz", timeout=5).status_code == 200
                assert httpx.get(f"{found.url}/readyz", timeout=5).status_code == 503
                time.sleep(0.05)
            refused = httpx.post(
                f"{found.url}/api/v1/search", json={"query": "x", "collection": "no"}, timeout=5
            )
            assert refused.status_code == 404
            assert not any(job.done() for job in asked)
        finally:
            may_load.set()
        assert [job.result() for job in asked] == [200] * len(REQUESTS)


def test_who_asks_at_the_start_waits_as_long_as_was_said(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make()
    may_load = threading.Event()
    real = service._made_reranker
    monkeypatch.setattr(service, "_made_reranker", lambda: (may_load.wait(20), real())[1])
    with listening_early(service) as found:
        try:
            wait_until(lambda: answers(found.url))
            body = {"query": QUESTION, "timeout": 0.5}
            started = time.monotonic()
            assert httpx.post(f"{found.url}/api/v1/search", json=body, timeout=10).status_code == 504
            assert time.monotonic() - started < 5
        finally:
            may_load.set()


def test_a_model_that_fails_in_any_way_is_told(make: Callable[..., Service]) -> None:
    """As when a GPU has no memory left: no error of crossrag's own."""
    service = make()

    def fails(_: object) -> Any:
        raise RuntimeError("out of memory")

    service._embedder.embed_query = fails  # type: ignore[union-attr, method-assign]
    with listening_early(service) as found:
        wait_until(lambda: service.state == "failing")
        assert httpx.get(f"{found.url}/readyz", timeout=5).status_code == 503
        figures = httpx.get(f"{found.url}/metrics", timeout=5).text
        assert 'crossrag_errors_total{kind="RuntimeError"} 1.0' in figures


def test_a_store_that_is_late_is_waited_for(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make()
    real, there = service.check, threading.Event()

    def late() -> None:
        if not there.is_set():
            raise StoreError("Nothing listens there")
        real()

    monkeypatch.setattr(service, "check", late)
    with listening_early(service) as found:
        wait_until(lambda: service.state == "failing")
        assert service.warm
        assert httpx.get(f"{found.url}/healthz", timeout=5).status_code == 200
        assert httpx.get(f"{found.url}/readyz", timeout=5).status_code == 503
        there.set()
        assert httpx.get(f"{found.url}/readyz", timeout=5).status_code == 200
