"""Fixtures of all tests: a small corpus, a Rag of fakes over it, the labelled data where it is there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossrag import Rag, Settings
from crossrag.config import IndexSettings, RerankingSettings
from crossrag.testing import HashedEmbedder, HashedTerms, OverlapReranker

SHARED = Path(__file__).parent.parent.parent / "shared"

CORPUS = {
    "backup.md": "# Backup\n\nA backup is written every night at two.\n\n## Restore\n\n"
    "To restore a backup, stop the service and run the restore command. Then start the service again.\n",
    "whales.txt": "Whales are mammals. The blue whale is the largest animal that ever lived on Earth.\n",
    "office.html": "<html><head><title>Office hours</title></head><body><nav>Home</nav><main><h1>Office</h1>"
    "<p>The office opens at nine in the morning and closes at five.</p></main></body></html>",
}


@pytest.fixture(scope="module")
def in_memory() -> Iterator[Path]:
    """A folder in memory where there is such a place: nothing there waits for a disk."""
    with tempfile.TemporaryDirectory(dir=memory()) as made:
        yield Path(made)


@pytest.fixture
def in_own_memory() -> Iterator[Path]:
    """The same for one test alone."""
    with tempfile.TemporaryDirectory(dir=memory()) as made:
        yield Path(made)


def memory() -> Path | None:
    """Where files are kept in memory, if there is room for some indexes."""
    place = Path("/dev/shm")  # noqa: S108
    return place if place.is_dir() and shutil.disk_usage(place).free > 2 << 30 else None


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine reaches a test."""
    import os

    for name in [*os.environ]:
        ours = name.startswith(("CROSSRAG_", "LANGCHAIN_", "LANGSMITH_", "OPENAI_"))
        if ours or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, text in CORPUS.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def embedder() -> HashedEmbedder:
    return HashedEmbedder()


@pytest.fixture
def rag(tmp_path: Path, embedder: HashedEmbedder) -> Iterator[Rag]:
    settings = Settings(
        index=IndexSettings(path=tmp_path / "index"), reranking=RerankingSettings(threshold=0.5)
    )
    with Rag(settings, embedder=embedder, sparse_encoder=HashedTerms(), reranker=OverlapReranker()) as made:
        yield made


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"the labelled data is not at {SHARED}")
    return SHARED
