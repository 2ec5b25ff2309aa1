"""What tests of the query path share: a Rag of fakes over a small corpus, any part of it replaced."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrag import Rag
from crossrag.config import load_settings
from crossrag.testing import CannedGenerator, HashedEmbedder, HashedTerms, OverlapGrounder, OverlapReranker

if TYPE_CHECKING:
    from crossrag.types import Answer, Ranking

QUESTION = "How do I restore a backup?"
LLM = "openai:none"
"""A generator that is given anyway: with this name the extractive one is its fallback."""


def corpus(folder: Path) -> Path:
    """Enough documents that no leg finds all of them at once."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "backup.md": "# Backup\n\nA backup is written every night at two.\n\n## Restore\n\nTo restore a "
        "backup, stop the service and run the restore command. Then start the service again.\n",
        "whales.txt": "Whales are mammals. The blue whale is the largest animal that ever lived on Earth.\n",
        "office.txt": "The office opens at nine in the morning and closes at five in the afternoon.\n",
    }
    texts |= {
        f"{n}.txt": f"Note {n} about service number {n}, with a backup of old letters.\n" for n in range(9)
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@contextmanager
def fake_rag(
    folder: Path, *, settings: Mapping[str, Mapping[str, Any]] | None = None, llm: bool = False, **parts: Any
) -> Iterator[Rag]:
    """Over `folder/docs`, which is made and indexed at the first use.

    Args:
        folder: For documents and index.
        settings: Sections over the defaults.
        llm: Whether a language model answers, one that cites the first source.
        parts: In place of the fakes, by the names of `Rag`.
    """
    wanted = {name: dict(section) for name, section in (settings or {}).items()}
    wanted["index"] = {"path": folder / "index"}
    wanted["reranking"] = {"threshold": 0.3, **wanted.get("reranking", {})}
    if llm:
        wanted["generator"] = {"model": LLM, **wanted.get("generator", {})}
        parts = {"generator": CannedGenerator(["Stop the service and run the restore command [1]."])} | parts
    given: dict[str, Any] = {
        "embedder": HashedEmbedder(),
        "sparse_encoder": HashedTerms(),
        "reranker": OverlapReranker(),
        "grounder": OverlapGrounder(),
        "complete": no_model,
    }
    new = not (folder / "index").exists()
    with Rag(load_settings(wanted, environ={}, directory=folder).settings, **(given | parts)) as rag:
        if new:
            rag.ingest(corpus(folder / "docs"))
        yield rag


def no_model(prompt: str) -> str:
    """In place of a language model that nobody should ask."""
    raise AssertionError(f"nobody should ask a model here: {prompt[:60]}")


def as_json(value: Answer | Ranking) -> str:
    """Everything but times and ids, which are drawn from paths; numbers that JSON lacks are errors."""

    def plain(part: Any) -> Any:
        if isinstance(part, Mapping):
            return {
                str(key): plain(one)
                for key, one in part.items()
                if key not in {"timings", "id", "document_id", "chunk_ids", "generation"}
            }
        return [plain(one) for one in part] if isinstance(part, list | tuple) else part

    return json.dumps(plain(asdict(value)), allow_nan=False, sort_keys=True)


def sources(candidates: Sequence[Any]) -> list[str]:
    return [candidate.chunk.source.rpartition("/")[2] for candidate in candidates]


class Model:
    """A language model that says something usable to each prompt."""

    def ask(self, prompt: str) -> str:
        return "How is a backup restored?" if "conversation" in prompt else "restore command\nbackup service"
