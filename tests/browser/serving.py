"""A service of fakes on a real port, over a small corpus, with a generator that plays what a test wrote."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from crossrag import Settings
from crossrag.config import IndexSettings, RerankingSettings, VerificationSettings
from crossrag.server.app import create_app
from crossrag.server.service import Service
from crossrag.server_settings import ServerSettings
from crossrag.testing import HashedEmbedder, HashedTerms, OverlapReranker

if TYPE_CHECKING:
    from crossrag.types import Context, Turn

CORPUS = {
    "handbook/leave.md": "# Leave\n\n🌻🌻 Holidays are for rest.\n\n## Parental leave\n\n"
    "Parental leave lasts **fourteen months** and is shared between both parents. "
    "🌻 Tell the office three months before.\n\n"
    "## Sick leave\n\nSick leave needs a note from the third day.\n",
    "handbook/backup.md": "# Backup\n\nA backup is written every night at two.\n\n## Restore\n\n"
    "To restore a backup, stop the service and run the restore command. Then start the service again.\n",
    "handbook/travel.md": "# Travel\n\nTrips by train are paid in full. Leave receipts with the office.\n",
    "handbook/office.txt": "The office opens at nine in the morning and closes at five. "
    "Parents leave at four.\n",
    "whales.txt": "Whales are mammals. The blue whale is the largest animal that ever lived on Earth.\n",
    "garden.md": "# Garden\n\nWater the beds at night. Months without rain last long.\n",
}
QUESTION = "How long is parental leave?"
PAUSED = "How long is parental leave, slowly?"
SCRIPTS: Mapping[str, Sequence[str]] = {
    QUESTION: (
        "Parental leave lasts ",
        "**fourteen months** ",
        "[1]. ",
        "It is shared between ",
        "both parents [1].",
    ),
    PAUSED: ("Parental leave lasts fourteen months [1]. ", "PAUSE", "This is never written [1]."),
}
PAUSE = 3.0


@dataclass
class Playing:
    """Plays the script of a question, or quotes the first source; `PAUSE` waits until the reader is gone."""

    scripts: Mapping[str, Sequence[str]] = field(default_factory=lambda: dict(SCRIPTS))
    fingerprint: str = "playing"
    asked: list[str] = field(default_factory=list)
    histories: list[Sequence[Turn]] = field(default_factory=list)

    def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:
        """The pieces."""
        self.asked.append(question)
        self.histories.append(history)
        for piece in self.scripts.get(question, (f"{context.sources[0].chunk.text} [1]",)):
            if piece == "PAUSE":
                time.sleep(PAUSE)
            else:
                yield piece


@dataclass(frozen=True)
class Served:
    """A running service."""

    url: str
    generator: Playing
    folder: Path

    @property
    def host(self) -> str:
        """With the port, as a browser says it."""
        return self.url.removeprefix("http://")


def docs_of(collection: str) -> str:
    """The folder of a collection's documents."""
    return "docs" if collection == "default" else f"docs-{collection}"


@contextmanager
def served(
    folder: Path,
    corpus: Mapping[str, str],
    *,
    generator: Playing | None = None,
    api_key: str | None = None,
    others: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[Served]:
    """Index the corpus, and `others` as collections by name, and serve them at a port of the loopback."""
    import uvicorn

    corpora = {"default": corpus, **(others or {})}
    for collection, documents in corpora.items():
        for name, text in documents.items():
            file = folder / docs_of(collection) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    playing = generator or Playing()
    settings = Settings(
        index=IndexSettings(path=folder / "index"),
        reranking=RerankingSettings(threshold=0.3, top_k=4),
        verification=VerificationSettings(model="none"),
        server=ServerSettings.model_validate(
            {"api_key": api_key, "collections": {name: folder / f"{name}.index" for name in others or {}}}
        ),
    )
    service = Service(
        settings,
        embedder=HashedEmbedder(),
        sparse_encoder=HashedTerms(),
        reranker=OverlapReranker(),
        generator=playing,
    )
    for collection in corpora:
        service.rag(collection, "").ingest(folder / docs_of(collection))
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(service), log_config=None, http="h11", ws="none", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
    thread.start()
    try:
        until = time.monotonic() + 30
        while service.state != "ready":
            assert time.monotonic() < until, f"the service is {service.state}"
            time.sleep(0.01)
        yield Served(f"http://127.0.0.1:{taken.getsockname()[1]}", playing, folder)
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        taken.close()
