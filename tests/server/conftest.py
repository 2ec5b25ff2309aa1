"""A service of fakes over a small index, behind a real port and in process."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from crossrag import Settings
from crossrag.config import IndexSettings, RerankingSettings, VerificationSettings
from crossrag.server.app import create_app
from crossrag.server.service import Service
from crossrag.server_settings import ServerSettings
from crossrag.testing import HashedEmbedder, HashedTerms, OverlapReranker

if TYPE_CHECKING:
    from crossrag.protocols import Embedder, Generator, Reranker


@dataclass(frozen=True)
class Running:
    """A server at a port."""

    url: str
    service: Service


def made(
    folder: Path,
    *,
    embedder: Embedder | None = None,
    reranker: Reranker | None = None,
    generator: Generator | None = None,
    reranking: RerankingSettings | None = None,
    **limits: Any,
) -> Service:
    """A service of fakes."""
    settings = Settings(
        index=IndexSettings(path=folder / "index"),
        reranking=reranking or RerankingSettings(threshold=0.3),
        verification=VerificationSettings(model="none"),
        server=ServerSettings(**limits),
    )
    return Service(
        settings,
        embedder=embedder or HashedEmbedder(),
        sparse_encoder=HashedTerms(),
        reranker=None if settings.reranking.model == "none" else reranker or OverlapReranker(),
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


CORPUS = {
    "backup.md": "# Backup\n\nA backup is written every night at two.\n\n## Restore\n\n"
    "To restore a backup, stop the service and run the restore command. Then start the service again.\n",
    "whales.txt": "Whales are mammals. The blue whale is the largest animal that ever lived on Earth.\n",
}


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of the small corpus, made once."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "docs").mkdir()
    for name, text in CORPUS.items():
        (folder / "docs" / name).write_text(text, encoding="utf-8")
    service = made(folder)
    service.rag(None, "").ingest(folder / "docs")
    service.close()
    return folder


@pytest.fixture
def make(tmp_path: Path, indexed: Path) -> Callable[..., Service]:
    """A service over a copy of the small index."""

    def build(**arguments: Any) -> Service:
        shutil.copytree(indexed / "index", tmp_path / "index")
        return made(tmp_path, **arguments)

    return build


@pytest.fixture(scope="module")
def running(indexed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The small corpus at a port, for tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("running")
    shutil.copytree(indexed / "index", folder / "index")
    with listening(made(folder)) as found:
        yield found


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[httpx.Client]:
    """Asks it."""
    with httpx.Client(base_url=running.url, timeout=20) as made_client:
        yield made_client
