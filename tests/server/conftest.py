"""A service of fakes over a small index, behind a real port and in process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from crossrag import Settings
from crossrag.config import IndexSettings, RerankingSettings
from crossrag.protocols import Generator, Reranker
from crossrag.server.app import create_app
from crossrag.server.service import Service
from crossrag.server_settings import ServerSettings
from crossrag.testing import HashedEmbedder, HashedTerms, OverlapReranker


@dataclass(frozen=True)
class Running:
    """A server at a port."""

    url: str
    service: Service


def made(
    folder: Path, *, reranker: Reranker | None = None, generator: Generator | None = None, **limits: Any
) -> Service:
    """A service of fakes."""
    settings = Settings(
        index=IndexSettings(path=folder / "index"),
        reranking=RerankingSettings(threshold=0.3),
        server=ServerSettings(**limits),
    )
    return Service(
        settings,
        embedder=HashedEmbedder(),
        sparse_encoder=HashedTerms(),
        reranker=reranker or OverlapReranker(),
        generator=generator,
    )


@contextmanager
def listening(service: Service) -> Iterator[Running]:
    """Serve it at a port of the loopback until the block ends."""
    import uvicorn

    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(service), log_config=None, http="h11", ws="none", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
    thread.start()
    url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    try:
        wait_until(lambda: service.state == "ready")
        yield Running(url, service)
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        taken.close()


def wait_until(happened: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return when it has happened; fail if it does not."""
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.005)


@pytest.fixture
def make(tmp_path: Path, corpus: Path) -> Callable[..., Service]:
    """A service over the small corpus, which is indexed."""

    def build(**arguments: Any) -> Service:
        service = made(tmp_path, **arguments)
        service.rag(None, "").ingest(corpus)
        return service

    return build


@pytest.fixture
def running(make: Callable[..., Service]) -> Iterator[Running]:
    """The small corpus at a port."""
    with listening(make()) as found:
        yield found


@pytest.fixture
def client(running: Running) -> Iterator[httpx.Client]:
    """Asks it."""
    with httpx.Client(base_url=running.url, timeout=20) as made_client:
        yield made_client
