"""An index on a server that is built anew, moved, and written by two processes at once."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crossrag import IndexMissingError, Rag, StoreError, UsageError, archive, maintenance
from crossrag.config import IndexSettings, QdrantSettings, RerankingSettings, Settings
from tests.fake_qdrant import FakeQdrant, Fault, fake_qdrant

from . import crashing
from .crashing import NEW, digest, opened, visible
from .test_archive import WORDS
from .test_sync import lines, write

SEED = 20261124
ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")


@pytest.fixture
def server() -> Iterator[FakeQdrant]:
    with fake_qdrant() as served:
        yield served


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    write(tmp_path / "docs", one=lines("one", 1, 4), two=lines("two", 1, 3), three=lines("three", 1, 2))
    return tmp_path / "docs"


def names(server: FakeQdrant, stem: str = "crossrag") -> list[str]:
    found = (collection.name for collection in server.client.get_collections().collections)
    return sorted(name for name in found if name.rpartition("-")[0] == stem)


# --- promise 10: built anew beside


def test_an_index_on_a_server_is_built_anew_with_other_settings(
    server: FakeQdrant, docs: Path, tmp_path: Path
) -> None:
    with opened(tmp_path / "index", url=server.url) as rag:
        rag.ingest(docs)
    for size, number in ((NEW, 2), (120, 3)):
        with opened(tmp_path / "index", size=size, url=server.url) as rag:
            assert maintenance.reindex(rag.index).added == 3
            assert rag.search("Line 1 of document one")[0].chunk.text.startswith("Line")
            assert rag.ingest(docs).unchanged == 3
        assert names(server) == [f"crossrag-{number}"]
        with opened(tmp_path / f"fresh{size}", size=size) as fresh:
            fresh.ingest(docs)
        assert digest(tmp_path / "index", size=size, url=server.url) == digest(
            tmp_path / f"fresh{size}", size=size
        )
    home = next((tmp_path / "index").glob("server-*"))
    assert sorted(path.name for path in home.iterdir()) == ["current", "index-2", "writer.lock"]


def test_a_search_sees_only_the_old_or_only_the_new_index(
    server: FakeQdrant, docs: Path, tmp_path: Path
) -> None:
    """Two Rags, as in two processes: what one exchanges, the other has open."""
    with (
        opened(tmp_path / "index", url=server.url) as reader,
        opened(tmp_path / "index", url=server.url) as writer,
    ):
        writer.ingest(docs)
        seen: list[set[str]] = []
        stop = threading.Event()
        errors: list[BaseException] = []

        def search() -> None:
            try:
                while not stop.is_set():
                    seen.append({one.chunk.text for one in reader.search("Line of document", top_k=100)})
            except BaseException as error:  # noqa: BLE001 - shown by the assertion below
                errors.append(error)

        def texts() -> set[str]:
            return {point.chunk.text for point in writer.store.scan()}

        old = texts()
        thread = threading.Thread(target=search)
        thread.start()
        write(docs, one=lines("one", 2, 4), two=lines("two", 2, 3), three=lines("three", 2, 2))
        maintenance.reindex(writer.index)
        new = texts()
        count = len(seen)
        while thread.is_alive() and len(seen) < count + 3:
            pass
        stop.set()
        thread.join()
        assert errors == []
        assert not old & new
        assert all(one in (old, new) for one in seen)
        assert (seen[0], seen[-1]) == (old, new)


def test_a_failed_build_leaves_the_old_index_and_is_gone_on_with(
    server: FakeQdrant, docs: Path, tmp_path: Path
) -> None:
    with opened(tmp_path / "index", url=server.url) as rag:
        rag.ingest(docs)
        before = visible(tmp_path / "index", url=server.url)
        (docs / "two.txt").write_bytes(b"\x00\x01\x02" * 100)
        with pytest.raises(Exception, match="the old index stands"):
            maintenance.reindex(rag.index)
        assert visible(tmp_path / "index", url=server.url) == before
        assert names(server) == ["crossrag-1", "crossrag-2"]
        write(docs, two=lines("two", 3, 3))
        embedded = rag.embedder.calls  # type: ignore[attr-defined]
        assert maintenance.reindex(rag.index).unchanged == 2
        again = next(entry.chunks for entry in rag.documents() if entry.source.endswith("two.txt"))
        assert rag.embedder.calls == embedded + again  # type: ignore[attr-defined]
        assert names(server) == ["crossrag-2"]


def test_an_error_that_passes_keeps_what_was_built(server: FakeQdrant, docs: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "index", url=server.url, max_retries=0) as rag:
        rag.ingest(docs)
        (docs / "two.txt").write_bytes(b"\x00\x01\x02" * 100)
        with pytest.raises(StoreError, match="the old index stands"):
            maintenance.reindex(rag.index)
        write(docs, two=lines("two", 3, 3))
        (half,) = (tmp_path / "index").glob("server-*/index-1")
        server.faults["GET /collections/crossrag-2"] = [Fault("status", 503)]
        with pytest.raises(StoreError, match=r"503.*delete .*index-1, which is half built"):
            maintenance.reindex(rag.index)
        assert half.is_dir()
        assert maintenance.reindex(rag.index).unchanged == 2


def kill(server: FakeQdrant, docs: Path, tmp_path: Path, step: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.crashing", "served", server.url, tmp_path / "index", docs, step]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.stress)])
def test_a_kill_at_any_point_of_a_rebuild_leaves_the_old_or_the_new(
    server: FakeQdrant, docs: Path, tmp_path: Path, step: int
) -> None:
    for size in (crashing.OLD, NEW):
        with opened(tmp_path / f"fresh{size}", size=size) as fresh:
            fresh.ingest(docs)
    old = visible(tmp_path / f"fresh{crashing.OLD}")
    new = visible(tmp_path / f"fresh{NEW}", size=NEW)
    expected = digest(tmp_path / f"fresh{NEW}", size=NEW)
    runs = kill(server, docs, tmp_path, step)
    assert len(runs) > 40 // step
    for run in runs:
        assert run["seen"] in (old, new), run
        assert run["digest"] == expected, run
        assert len(names(server, f"killed-{run['point']}")) == 1, run
    assert {json.dumps(run["seen"]) for run in runs} == {json.dumps(old), json.dumps(new)}


def test_a_collection_that_is_gone_is_not_taken_for_an_empty_one(
    server: FakeQdrant, docs: Path, tmp_path: Path
) -> None:
    with opened(tmp_path / "index", url=server.url) as rag:
        rag.ingest(docs)
        rag.store.drop()  # type: ignore[attr-defined]
        rag.close()
        with pytest.raises(IndexMissingError, match=r"gone, with the 3 documents in it.*--rebuild"):
            rag.ingest(docs)
        assert rag.ingest(docs, rebuild=True).added == 3


# --- promise 12: moved


def moved(index: Path, **qdrant: str) -> Rag:
    """With real BM25: of texts of unlike lengths no two score the same, which engines may round apart."""
    settings = Settings(
        index=IndexSettings(path=index),
        qdrant=QdrantSettings.model_validate(qdrant),
        reranking=RerankingSettings(model="none"),
    )
    return Rag(settings, embedder=crashing.Halves())


def test_an_index_moves_to_a_server_and_back(server: FakeQdrant, tmp_path: Path) -> None:
    drawn = random.Random(SEED)  # noqa: S311 - reproducible, not secret
    print(f"seed {SEED}")
    for number in range(40):
        write(tmp_path / "files", **{f"doc{number}": " ".join(drawn.choices(WORDS, k=5 + number))})
    with (
        moved(tmp_path / "here") as here,
        moved(tmp_path / "there", url=server.url) as there,
        moved(tmp_path / "back") as back,
    ):
        here.ingest(tmp_path / "files")
        for source, target in ((here, there), (there, back)):
            archive.export(source.index, tmp_path / "moved.crossrag")
            archive.load(target.index, tmp_path / "moved.crossrag")
        assert (there.embedder.calls, back.embedder.calls) == (0, 0)  # type: ignore[attr-defined]
        verdicts = [maintenance.verify(rag.index, vectors=True) for rag in (here, there, back)]
        assert all(verdict.agrees for verdict in verdicts)
        assert len({verdict.digest for verdict in verdicts}) == 1
        for _ in range(100):
            query = " ".join(drawn.choices(WORDS, k=4))
            first, *others = (
                [found.chunk for found in rag.search(query, top_k=10)] for rag in (here, there, back)
            )
            assert len(first) == 10
            assert others == [first, first], query


# --- promise 7: two processes

WRITER = """
import sys
from pathlib import Path
from crossrag import CrossragError
from tests.crashing import opened
index, url, *trees = sys.argv[1:]
with opened(Path(index), url=url) as rag:
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        print(rag.ingest(*trees).added)
    except CrossragError as error:
        sys.exit(str(error))
"""


def at_once(server: FakeQdrant, *writers: tuple[Path, list[Path]]) -> list[tuple[int, str]]:
    """Exit code and what was said, of processes that begin to write together."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(index), server.url, *map(str, trees)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for index, trees in writers
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ended = [(process, process.communicate()) for process in started]
    return [(process.returncode, said[1]) for process, said in ended]


@pytest.fixture
def trees(tmp_path: Path) -> list[Path]:
    for tree in ("first", "both", "last"):
        write(tmp_path / tree, **{f"{tree}{number}": lines(f"{tree}{number}", 1, 3) for number in range(5)})
    return [tmp_path / tree for tree in ("first", "both", "last")]


def test_two_processes_with_one_folder_write_what_one_after_the_other_would(
    server: FakeQdrant, trees: list[Path], tmp_path: Path
) -> None:
    index = tmp_path / "index"
    ended = at_once(server, (index, trees[:2]), (index, trees[1:]))
    assert [code for code, _ in ended] == [0, 0], ended
    with opened(tmp_path / "serial") as serial:
        serial.ingest(*trees[:2])
        serial.ingest(*trees[1:])
    assert digest(index, url=server.url) == digest(tmp_path / "serial")


def test_of_two_processes_with_folders_of_their_own_one_is_refused(
    server: FakeQdrant, trees: list[Path], tmp_path: Path
) -> None:
    indexes = [tmp_path / "index0", tmp_path / "index1"]
    ended = at_once(server, (indexes[0], trees[:2]), (indexes[1], trees[1:]))
    assert sorted(code for code, _ in ended) == [0, 1], ended
    won = [code for code, _ in ended].index(0)
    assert "was made from another folder or machine" in ended[1 - won][1]
    with opened(tmp_path / "alone") as alone:
        alone.ingest(*(trees[:2] if won == 0 else trees[1:]))
    assert digest(indexes[won], url=server.url) == digest(tmp_path / "alone")
    with opened(indexes[1 - won], url=server.url) as loser:
        assert loser.search("Line of document")[0].chunk.text
        with pytest.raises(UsageError, match="another folder or machine"):
            maintenance.reindex(loser.index)
        loser.ingest(*trees, rebuild=True)
    with (
        opened(indexes[won], url=server.url) as winner,
        pytest.raises(UsageError, match="another folder or machine"),
    ):
        winner.ingest(*trees)
