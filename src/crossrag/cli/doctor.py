"""What `crossrag doctor` and `crossrag status` look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrag.errors import CrossragError, IndexMissingError

if TYPE_CHECKING:
    from crossrag.config import Loaded
    from crossrag.pipeline import Rag


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was checked. `exit_code` is 0 where all is well."""

    subject: str
    text: str
    exit_code: int = 0


def status(rag: Rag) -> dict[str, Any]:
    """Documents and chunks of an index, and whether manifest and store agree.

    Raises:
        IndexMissingError: There is none.
    """
    from crossrag import assembly

    path = rag.settings.index.path
    if rag.settings.store == "edge" and not (rag.index.home / "fingerprint.json").is_file():
        raise IndexMissingError(f"There is no index at {path}", hint="Make one with `crossrag ingest PATH`")
    chunks_in_store = rag.store.count()
    if rag.settings.store == assembly.ADOPTED:
        # Nobody knows which passages belong together: each is a document of its own.
        counts = dict.fromkeys(("documents", "chunks", "chunks_in_store"), chunks_in_store)
        rest: dict[str, Any] = {"bytes": 0, "calibration": _calibration(rag), "sources": []}
        return {"index": assembly.place(rag.settings), **counts, **rest}
    documents = rag.documents()
    return {
        "index": assembly.place(rag.settings),
        "documents": len(documents),
        "chunks": sum(document.chunks for document in documents),
        "chunks_in_store": chunks_in_store,
        "bytes": sum(_on_disk(file) for file in path.rglob("*") if file.is_file()),
        "calibration": _calibration(rag),
        "sources": [{"source": document.source, "chunks": document.chunks} for document in documents],
    }


def _calibration(rag: Rag) -> dict[str, Any] | None:
    """What lies beside the index, and whether it is of these models; None where nothing does."""
    from crossrag import calibrating

    found = calibrating.load(rag.settings.index.path)
    # Only then: to tell whose it is, the models are loaded.
    return None if found is None else {"questions": found.matched, "in_force": rag.calibrated is not None}


def _on_disk(file: Path) -> int:
    """Blocks taken, where the system says so: the engine's files are sparse."""
    found = file.stat()
    return getattr(found, "st_blocks", 0) * 512 or found.st_size


def examine(load: Callable[[], Loaded]) -> Iterator[Finding]:
    """Settings, models, generator, server and index, in that order; each check stands for itself."""
    from crossrag import assembly
    from crossrag.pipeline import Rag

    try:
        loaded = load()
    except CrossragError as error:
        yield Finding(subject="settings", text=str(error), exit_code=error.exit_code)
        return
    yield Finding(subject="settings", text=f"{len(loaded.origins)} set, the others at their defaults")
    with Rag(loaded.settings) as rag:
        yield _check("embedder", lambda: _embeds(rag))
        yield _check("reranker", lambda: _scores(rag))
        yield _check("generator", lambda: f"{rag.generator.fingerprint}")
        server = _check("server", lambda: assembly.diagnose_store(rag.settings) or "")
        if server.text:
            yield server
        # What cannot be reached is not tried at length again.
        if not server.exit_code:
            yield _check("index", lambda: _index(rag))
    extras = {"openai": "openai", "qdrant": "qdrant_client", "ray": "ray"}
    yield Finding(
        subject="extras",
        text="; ".join(
            f"{extra}: " + ("installed" if find_spec(module) else f"pip install 'crossrag[{extra}]'")
            for extra, module in extras.items()
        ),
    )


def _check(subject: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(subject=subject, text=check())
    except IndexMissingError as error:
        return Finding(subject=subject, text=str(error))
    except CrossragError as error:
        return Finding(subject=subject, text=str(error), exit_code=error.exit_code)


def _embeds(rag: Rag) -> str:
    length = len(rag.embedder.embed_query("ready"))
    return f"{rag.settings.embedder.model} gives {length} numbers, {rag.embedder.fingerprint}"


def _scores(rag: Rag) -> str:
    from crossrag.types import Scores

    if rag.reranker is None:
        return "off (reranking.model = none)"
    (relevance,) = rag.reranker.score("ready?", ["Ready."], first_stage=[Scores(dense=0.5)]).relevance
    return f"{rag.settings.reranking.model} answers ({relevance:.2f}), {rag.reranker.fingerprint}"


def _index(rag: Rag) -> str:
    found = status(rag)
    text = f"{found['documents']} documents, {found['chunks']} chunks at {found['index']}"
    if found["chunks"] != found["chunks_in_store"]:
        text += f"; the store holds {found['chunks_in_store']}: run `crossrag verify`"
    return text
