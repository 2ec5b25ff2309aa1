"""Work on a whole index: what verify finds, repair mends, delete removes and reindex builds anew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossrag import FingerprintError, Rag, StoreError, UsageError, files, maintenance
from crossrag.config import ChunkingSettings
from crossrag.testing import HashedEmbedder, HashedTerms
from crossrag.types import SparseVector

from .test_sync import Faulty, digest, lines, opened, write


@pytest.fixture
def docs(in_own_memory: Path) -> Path:
    folder = in_own_memory / "files"
    write(folder, one=lines("one", 1, 6), two=lines("two", 1, 3), three=lines("three", 1, 4))
    return folder


@pytest.fixture
def rag(in_own_memory: Path) -> Iterator[Rag]:
    with opened(in_own_memory / "index") as made:
        yield made


def test_verify_finds_and_repair_mends(rag: Rag, docs: Path) -> None:
    rag.ingest(docs)
    before = digest(rag)
    points = list(rag.store.scan(with_vectors=True))
    stray = [point for point in points if point.chunk.source == "files/two.txt"]
    rag.store.delete_document(str(docs / "two.txt"))
    rag.store.delete_document(str(docs / "one.txt"))

    def put(chunks: list[Any], like: list[Any]) -> None:
        rag.store.upsert(chunks, np.stack([point.dense for point in like]), [point.sparse for point in like])

    put([replace(point.chunk, text="Altered.") for point in stray], stray)
    put([replace(stray[0].chunk, id=stray[0].chunk.id[:-4] + "0000", document_id="/gone.txt")], stray[:1])
    found = maintenance.verify(rag.index)
    assert sorted((one.kind, one.document_id) for one in found.differences) == [
        ("altered", str(docs / "two.txt")),
        ("missing", str(docs / "one.txt")),
        ("orphaned", "/gone.txt"),
    ]
    repaired = maintenance.repair(rag.index)
    assert (len(repaired.found), repaired.rewritten, repaired.failed) == (3, 2, ())
    assert (repaired.removed, repaired.manifest_lost) == (1, False)
    assert digest(rag) == before


def test_repair_leaves_what_it_cannot_mend(rag: Rag, docs: Path) -> None:
    rag.ingest(docs)
    first = next(iter(rag.store.scan(where={"source": "files/two.txt"}))).chunk
    rag.store.upsert([replace(first, text="x")], np.eye(1, 256, dtype=np.float32), [SparseVector((), ())])
    (docs / "two.txt").unlink()
    repaired = maintenance.repair(rag.index)
    assert [failure.source for failure in repaired.failed] == ["files/two.txt"]
    assert len(rag.documents()) == 3


def test_repair_keeps_what_can_be_hashed_and_not_be_read(rag: Rag, docs: Path) -> None:
    (docs / "page.html").write_text("<p>A page with a sentence.</p>", encoding="utf-8")
    rag.ingest(docs)
    for name in ("page.html", "two.txt", "one.txt"):
        first = next(iter(rag.store.scan(where={"source": f"files/{name}"}))).chunk
        rag.store.upsert([replace(first, text="x")], np.eye(1, 256, dtype=np.float32), [SparseVector((), ())])
    (docs / "page.html").write_bytes(b"%PDF-1.4 nothing more")
    (docs / "two.txt").write_text("", encoding="utf-8")
    write(docs, one=lines("one", 2, 4))
    repaired = maintenance.repair(rag.index)
    assert [failure.source for failure in repaired.failed] == ["files/page.html", "files/two.txt"]
    assert (repaired.rewritten, len(rag.documents())) == (1, 4)
    assert rag.manifest.transitions() == []
    left = maintenance.verify(rag.index).differences
    assert [(one.kind, one.source) for one in left] == [
        ("altered", "files/page.html"),
        ("altered", "files/two.txt"),
    ]


def test_a_repair_that_is_cut_short_can_be_made_again(
    rag: Rag, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rag.ingest(docs)
    before = digest(rag)
    for name in ("upsert", "flush", "delete_document"):
        rag.store.delete_document(str(docs / "two.txt"))
        store = rag.store
        countdown = [{"flush": 2}.get(name, 1)]  # the first flush comes before anything is written
        with monkeypatch.context() as patched:
            patched.setattr(rag.index._pair, "_store", Faulty(store, {name}, countdown))
            with pytest.raises(OSError, match="Input/output"):
                maintenance.repair(rag.index)
        assert len(rag.documents()) == 3
        assert maintenance.repair(rag.index).failed == ()
        assert digest(rag) == before


def test_deleting_by_source(rag: Rag, docs: Path) -> None:
    rag.ingest(docs)
    with pytest.raises(UsageError, match=r"Did you mean 'files/one\.txt'"):
        maintenance.delete(rag.index, ["files/two.txt", "files/ane.txt"])
    assert len(rag.documents()) == 3
    assert maintenance.delete(rag.index, ["files/t*"]) == ["files/three.txt", "files/two.txt"]
    assert {one.chunk.source for one in rag.search("Line", top_k=50)} == {"files/one.txt"}
    assert maintenance.verify(rag.index).agrees


def test_a_reindex_takes_other_settings_and_keeps_the_old_until_it_is_done(
    rag: Rag, docs: Path, in_own_memory: Path
) -> None:
    rag.ingest(docs)
    rag.close()
    settings = rag.settings.model_copy(update={"chunking": ChunkingSettings(size=40, overlap=0)})
    (docs / "two.txt").rename(in_own_memory / "away.txt")
    with Rag(settings, embedder=HashedEmbedder(), sparse_encoder=HashedTerms()) as other:
        with pytest.raises(StoreError, match=r"files/two.txt.*old index stands"):
            maintenance.reindex(other.index)
        other.close()
        assert len(rag.search("Line", top_k=50)) == 13
        rag.close()
        (in_own_memory / "away.txt").rename(docs / "two.txt")
        assert maintenance.reindex(other.index).unchanged == 2
        assert len(other.search("Line", top_k=50)) == 26
    with pytest.raises(FingerprintError, match="other settings"):
        rag.search("Line")


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(rag: Rag, docs: Path) -> None:
    rag.ingest(docs)
    rag.store.delete_document(str(docs / "two.txt"))
    (docs / "two.txt").unlink()
    os.mkfifo(docs / "two.txt")
    for reads in (files.look, files.digest):
        with pytest.raises(OSError, match="no regular file"):
            reads(docs / "two.txt")
    (failure,) = maintenance.repair(rag.index).failed
    assert failure.reason == "cannot be read: it is no regular file"
    with pytest.raises(StoreError, match=r"files/two.txt \(cannot be read: it is no regular file\)"):
        maintenance.reindex(rag.index)
    assert len(rag.documents()) == 3
