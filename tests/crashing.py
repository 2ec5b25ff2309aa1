"""Run as a program: does a piece of work again and again, and kills itself at another point each time.

Everything is imported before the first fork, so that a run costs its work alone. One line of JSON per run:
what was visible after the kill, and what the index was when the same work was done to its end.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np  # imported once, before the forks
import qdrant_edge  # noqa: F401

from crossrag import FingerprintError, Rag, Settings, indexing, maintenance, places
from crossrag.config import ChunkingSettings, IndexSettings, QdrantSettings, RerankingSettings
from crossrag.manifest import Manifest
from crossrag.stores.edge import EdgeStore
from crossrag.stores.edge_shard import Shard
from crossrag.stores.qdrant import QdrantStore
from crossrag.stores.qdrant_collection import Collection
from crossrag.testing import HashedEmbedder, HashedTerms

if TYPE_CHECKING:
    from numpy.typing import NDArray

POINTS: dict[type | Any, tuple[str, ...]] = {
    EdgeStore: ("upsert", "flush", "delete_document", "close"),
    Shard: ("index", "close", "_created", "_claim"),
    Manifest: ("begin", "flip", "forget", "restamp", "_prepare", "close"),
    HashedEmbedder: ("embed_documents",),
    places: ("switch", "sweep", "clear", "_flush_folder"),
}
SERVED: dict[type | Any, tuple[str, ...]] = {
    QdrantStore: ("tell", "upsert", "delete_document", "take_over", "close"),
    Collection: ("create_physical", "create_index", "_move", "_delete"),
    Manifest: ("begin", "flip", "close"),
    places: ("identify", "switch", "sweep", "_flush_folder"),
}
"""The same where the store is on a server."""
OLD, NEW = 60, 90
"""Characters of a chunk, before and after a server's index is built anew."""


class Halves(HashedEmbedder):
    """Unit vectors with four halves in them: however an engine normalises and adds, not a bit changes."""

    def embed_query(self, text: str) -> NDArray[np.float32]:
        vector = np.zeros(self.dimension, np.float32)
        vector[np.argsort(-super().embed_query(text), kind="stable")[:4]] = 0.5
        return vector


def opened(index: Path, *, size: int = OLD, **qdrant: Any) -> Rag:
    settings = Settings(
        index=IndexSettings(path=index),
        qdrant=QdrantSettings.model_validate(qdrant),
        reranking=RerankingSettings(model="none"),
        chunking=ChunkingSettings(size=size, overlap=0),
    )
    return Rag(settings, embedder=Halves(), sparse_encoder=HashedTerms())


def work(mode: str, index: Path, corpus: Path) -> None:
    """What is cut short."""
    with opened(index) as rag:
        if mode == "ingest":
            rag.ingest(corpus)
        elif mode == "rebuild":
            rag.ingest(corpus, rebuild=not (index / "fingerprint.json").is_file())
        else:
            maintenance.reindex(rag.index)


def visible(index: Path, **where: Any) -> dict[str, list[str]]:
    """Texts that searches can find, by document, in order; the store is opened as any user would."""
    with opened(index, **where) as rag:
        hidden = rag.manifest.view().hidden
        found: dict[str, list[tuple[int, str]]] = {}
        for point in rag.store.scan():
            if point.chunk.generation not in hidden:
                found.setdefault(point.chunk.source, []).append((point.chunk.position, point.chunk.text))
        searched = rag.search("document version", top_k=1000)
        assert {one.chunk.text for one in searched} <= {text for rows in found.values() for _, text in rows}
    return {source: [text for _, text in sorted(rows)] for source, rows in found.items()}


def digest(index: Path, **where: Any) -> str:
    with opened(index, **where) as rag:
        verdict = maintenance.verify(rag.index, vectors=True)
        assert verdict.agrees, verdict.differences
        return verdict.digest


def in_child(act: Callable[[], Any], *, kill_after: float | None = None) -> tuple[int, Any]:
    """Signal that ended the child, or 0, and what it returned."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        code = 1
        try:
            os.write(write, json.dumps(act()).encode())
            code = 0
        except BaseException as error:  # noqa: BLE001 - it is told to the parent
            os.write(write, json.dumps(f"{type(error).__name__}: {error}").encode())
        finally:
            os._exit(code)
    os.close(write)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return (os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0), (json.loads(said) if said else None)


def around(
    points: Mapping[type | Any, Sequence[str]],
    act: Callable[[str], None],
    *,
    put: Callable[[Any, str, Any], None] = setattr,
) -> None:
    """Call `act` before and after each of these, with its name."""

    def wrapped(owner: Any, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        label = f"{getattr(owner, '__name__', owner)}.{name}"

        @functools.wraps(original)
        def call(*arguments: Any, **named: Any) -> Any:
            act(f"before {label}")
            result = original(*arguments, **named)
            act(f"after {label}")
            return result

        return call

    for owner, names in points.items():
        for name in names:
            put(owner, name, wrapped(owner, name, getattr(owner, name)))


def arm(point: int, points: dict[type | Any, tuple[str, ...]] = POINTS) -> list[str]:
    """Die at the n-th point from now; the names of those passed, where there are fewer."""
    passed: list[str] = []

    def pass_by(label: str) -> None:
        passed.append(label)
        if len(passed) == point:
            os.kill(os.getpid(), signal.SIGKILL)

    around(points, pass_by)
    return passed


def copy(source: Path, target: Path) -> None:
    """A copy of an index; its files are mostly holes, which a plain copy would fill."""
    if subprocess.run(["cp", "-r", "--sparse=always", source, target], check=False).returncode:  # noqa: S607
        shutil.copytree(source, target, dirs_exist_ok=True)


def run(
    mode: str, base: Path, index: Path, corpus: Path, *, point: int = 0, after: float = 0.0
) -> dict[str, Any]:
    """One kill and what follows it."""
    shutil.rmtree(index, ignore_errors=True)
    if base.is_dir():
        copy(base, index)

    def killed() -> list[str]:
        passed = arm(point)
        work(mode, index, corpus)
        return passed

    signalled, said = in_child(killed, kill_after=after or None)
    seen = (
        in_child(lambda: visible(index))[1]
        if (index / "fingerprint.json").is_file() or mode == "reindex"
        else {}
    )

    def again() -> str:
        work(mode, index, corpus)
        return digest(index)

    return {
        "point": point,
        "after": after,
        "signal": signalled,
        "said": said,
        "seen": seen,
        "digest": in_child(again)[1],
    }


def run_served(point: int, url: str, index: Path, corpus: Path) -> dict[str, Any]:
    """An index on a server, one kill while it is built anew with other settings, and what follows."""
    where: dict[str, Any] = {"url": url, "collection": f"killed-{point}"}
    folder = index / str(point)

    def ingested() -> None:
        with opened(folder, **where) as rag:
            rag.ingest(corpus)

    def rebuilt() -> None:
        with opened(folder, size=NEW, **where) as rag:
            maintenance.reindex(rag.index)

    def killed() -> list[str]:
        passed = arm(point, SERVED)
        rebuilt()
        return passed

    def seen() -> dict[str, list[str]]:
        try:
            return visible(folder, **where)
        except FingerprintError:
            return visible(folder, size=NEW, **where)

    def again() -> str:
        rebuilt()
        return digest(folder, size=NEW, **where)

    assert in_child(ingested)[0] == 0
    signalled, said = in_child(killed)
    return {
        "point": point,
        "signal": signalled,
        "said": said,
        "seen": in_child(seen)[1],
        "digest": in_child(again)[1],
    }


def main_served() -> None:
    url, index, corpus, step = sys.argv[2:]
    indexing._BATCH = 2
    for point in range(1, 1000, int(step)):
        done = run_served(point, url, Path(index), Path(corpus))
        print(json.dumps(done), flush=True)
        if not done["signal"]:
            break


def main() -> None:
    mode, base, index, corpus, step, kills, seed = sys.argv[1:]
    indexing._BATCH = 2
    folders = Path(base), Path(index), Path(corpus)
    for point in range(1, 1000, int(step)) if int(step) else ():
        done = run(mode, *folders, point=point)
        print(json.dumps(done), flush=True)
        if not done["signal"]:
            break
    started = time.perf_counter()
    if int(kills):
        run(mode, *folders, point=-1)
    typical = (time.perf_counter() - started) / 3
    moments = random.Random(int(seed))  # noqa: S311 - reproducible, not secret
    for _ in range(int(kills)):
        print(json.dumps(run(mode, *folders, after=moments.uniform(0.001, typical))), flush=True)


if __name__ == "__main__":
    main_served() if sys.argv[1] == "served" else main()
