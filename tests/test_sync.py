"""What ingestion promises: equal to the files, embedded once, documents always whole, whatever fails."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from crossrag import (
    LoadError,
    Rag,
    Settings,
    files,
    indexing,
    loading,
    maintenance,
)
from crossrag.config import ChunkingSettings, IndexSettings, RerankingSettings, RetrievalSettings
from crossrag.planning import Selection
from crossrag.testing import HashedEmbedder, HashedTerms


def opened(index: Path, embedder: HashedEmbedder | None = None) -> Rag:
    settings = Settings(
        index=IndexSettings(path=index),
        reranking=RerankingSettings(model="none"),
        chunking=ChunkingSettings(size=80, overlap=0),
        retrieval=RetrievalSettings(duplicates=0),
    )
    return Rag(settings, embedder=embedder or HashedEmbedder(), sparse_encoder=HashedTerms())


def digest(rag: Rag) -> str:
    verdict = maintenance.verify(rag.index, vectors=True)
    assert verdict.agrees, verdict.differences
    return verdict.digest


def fresh(corpus: Path, folder: Path) -> str:
    with opened(folder) as rag:
        rag.ingest(corpus)
        return digest(rag)


def write(folder: Path, **texts: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def lines(name: str, version: int, count: int) -> str:
    return "".join(
        f"Line {line} of {name} is of version {version}, in so many words.\n\n" for line in range(count)
    )


@pytest.fixture
def tmp_path(in_own_memory: Path) -> Path:
    """In place of pytest's own: the same, in memory."""
    return in_own_memory


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    write(folder, one=lines("one", 1, 6), two=lines("two", 1, 3), three=lines("three", 1, 4))
    return folder


@pytest.fixture
def embedder() -> HashedEmbedder:
    return HashedEmbedder()


@pytest.fixture
def rag(tmp_path: Path, embedder: HashedEmbedder) -> Iterator[Rag]:
    with opened(tmp_path / "index", embedder) as made:
        yield made


# --- what is embedded, and what is read


def test_a_renamed_file_keeps_its_vectors(
    rag: Rag, docs: Path, embedder: HashedEmbedder, tmp_path: Path
) -> None:
    rag.ingest(docs)
    calls = embedder.calls
    (docs / "two.txt").rename(docs / "second.txt")
    (docs / "sub").mkdir()
    (docs / "three.txt").rename(docs / "sub" / "three.txt")
    report = rag.ingest(docs)
    assert (report.renamed, report.added, report.deleted, report.unchanged) == (2, 0, 0, 1)
    assert (embedder.calls, report.embedded) == (calls, 0)
    assert digest(rag) == fresh(docs, tmp_path / "fresh")
    found = rag.search("Line 1 of two", top_k=1)[0].chunk
    assert (found.source, found.document_id) == ("files/second.txt", str(docs / "second.txt"))


def test_an_edit_embeds_what_is_new_in_it(
    rag: Rag, docs: Path, embedder: HashedEmbedder, tmp_path: Path
) -> None:
    rag.ingest(docs)
    calls = embedder.calls
    write(docs, one=lines("one", 1, 6) + "An entirely new line at the end of the document.\n")
    report = rag.ingest(docs)
    assert report.updated == 1
    assert embedder.calls - calls == report.embedded == 1
    assert digest(rag) == fresh(docs, tmp_path / "fresh")


def test_a_copy_is_embedded_once(rag: Rag, docs: Path, embedder: HashedEmbedder, tmp_path: Path) -> None:
    rag.ingest(docs)
    calls = embedder.calls
    write(docs, copy=lines("one", 1, 6))
    assert rag.ingest(docs).added == 1
    assert embedder.calls == calls
    assert digest(rag) == fresh(docs, tmp_path / "fresh")


def test_a_file_that_looks_as_before_is_not_read(
    rag: Rag, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_RACY_NANOSECONDS", -60_000_000_000)
    rag.ingest(docs)
    read: list[Path] = []
    real = files.digest

    def counted(path: Path) -> str:
        read.append(path)
        return real(path)

    monkeypatch.setattr(files, "digest", counted)
    assert rag.ingest(docs).unchanged == 3
    assert read == []
    assert rag.ingest(docs, selection=Selection(checksum=True)).unchanged == 3
    assert len(read) == 3


def test_an_edit_under_the_old_date_is_seen(rag: Rag, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_RACY_NANOSECONDS", -60_000_000_000)
    rag.ingest(docs)
    seen = (docs / "one.txt").stat()
    text = (docs / "one.txt").read_text(encoding="utf-8")
    (docs / "one.txt").write_text(text.replace("version 1", "version 2"), encoding="utf-8")
    os.utime(docs / "one.txt", ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert (docs / "one.txt").stat().st_size == seen.st_size
    assert rag.ingest(docs).updated == 1


def test_a_file_that_changed_a_moment_ago_is_read_again(rag: Rag, docs: Path) -> None:
    rag.ingest(docs)
    assert {entry.stamp for entry in rag.documents()} == {""}


def test_a_file_that_changes_while_it_is_read_is_indexed_as_it_ended(
    rag: Rag, docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loading.Loader.load
    changed: list[Path] = []

    def meddling(loader: loading.Loader, path: Path, **named: Any) -> Any:
        document = real(loader, path, **named)
        if path.name == "two.txt" and not changed:
            changed.append(path)
            write(docs, two=lines("two", 2, 5))
        return document

    with monkeypatch.context() as patched:
        patched.setattr(loading.Loader, "load", meddling)
        rag.ingest(docs)
    assert digest(rag) == fresh(docs, tmp_path / "fresh")

    def never_done(loader: loading.Loader, path: Path, **named: Any) -> Any:
        write(docs, two=os.urandom(4).hex())
        return real(loader, path, **named)

    monkeypatch.setattr(loading.Loader, "load", never_done)
    write(docs, two="x")
    (failure,) = rag.ingest(docs).failed
    assert failure.reason.startswith("changes while it is read")


def test_a_file_that_is_too_large_is_not_read(rag: Rag, docs: Path) -> None:
    with (docs / "huge.txt").open("wb") as huge:
        huge.truncate(2**40)  # full of holes, and weeks of hashing
    (failure,) = rag.plan(docs).failed
    assert failure.reason == ("has 1048576 MiB, more than the 256 MiB allowed. Split it, or leave it out")
    assert rag.ingest(docs).failed == (failure,)
    assert len(rag.documents()) == 3


# --- which files


def test_globs_and_exclusions_choose_what_is_indexed(rag: Rag, docs: Path) -> None:
    (docs / "drafts").mkdir()
    write(docs / "drafts", four="A draft.")
    (docs / "notes.md").write_text("# Notes", encoding="utf-8")

    def names(**selection: Any) -> list[str]:
        rag.ingest(docs, selection=Selection(**selection))
        return [entry.source.removeprefix("files/") for entry in rag.documents()]

    assert names(globs=("*.md",)) == ["notes.md"]
    assert names(globs=("drafts/*", "one.*"), prune=False) == ["drafts/four.txt", "notes.md", "one.txt"]
    assert names(exclude=("drafts", "t*.txt")) == ["notes.md", "one.txt"]
    assert len(names()) == 5


def test_a_plan_says_what_an_ingestion_does_and_writes_nothing(rag: Rag, docs: Path, tmp_path: Path) -> None:
    plan = rag.plan(docs)
    assert [change.kind for change in plan.changes] == ["new"] * 3
    assert not (tmp_path / "index").exists()
    rag.ingest(docs)
    (docs / "two.txt").rename(docs / "second.txt")
    write(docs, one="Other.", new="New.")
    (docs / "three.txt").unlink()
    plan = rag.plan(docs)
    assert sorted((change.kind, change.file.path.stem) for change in plan.changes) == [
        ("changed", "one"),
        ("new", "new"),
        ("renamed", "second"),
    ]
    assert [entry.source for entry in plan.deleted] == ["files/three.txt"]
    report = rag.ingest(docs)
    assert (report.added, report.updated, report.renamed, report.deleted) == (1, 1, 1, 1)


def test_fail_fast_stops_at_the_first_and_keeps_what_went_before(rag: Rag, docs: Path) -> None:
    (docs / "pdf.pdf").write_bytes(b"no pdf")
    with pytest.raises(LoadError, match=r"files/pdf.pdf.*--fail-fast"):
        rag.ingest(docs, fail_fast=True)
    assert [entry.source for entry in rag.documents()] == ["files/one.txt"]
    assert rag.ingest(docs).added == 2


# --- failing at every call


class Faulty:
    """Passes calls on, and raises at the n-th of those that count."""

    def __init__(self, inner: Any, names: set[str], countdown: list[int]) -> None:
        self._inner, self._names, self._countdown = inner, names, countdown

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return failing(found, self._countdown) if name in self._names else found


def failing(call: Callable[..., Any], countdown: list[int]) -> Callable[..., Any]:
    def counted(*arguments: Any, **named: Any) -> Any:
        countdown[0] -= 1
        if countdown[0] == 0:
            raise OSError(5, "Input/output error")
        return call(*arguments, **named)

    return counted


def snapshot(rag: Rag) -> dict[str, list[str]]:
    """What searches can find, by source."""
    hidden = rag.manifest.view().hidden
    found: dict[str, list[tuple[int, str]]] = {}
    for point in rag.store.scan():
        if point.chunk.generation not in hidden:
            found.setdefault(point.chunk.source, []).append((point.chunk.position, point.chunk.text))
    return {source: [text for _, text in sorted(rows)] for source, rows in found.items()}


def test_failing_any_call_leaves_the_old_or_the_new(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "_BATCH", 2)
    countdown, number = [0], 0
    with opened(tmp_path / "index") as rag:
        while countdown[0] <= 0:
            number += 1
            write(docs, one=lines("one", 1, 6), two=lines("two", 1, 3), three=lines("three", 1, 4))
            (docs / "moved.txt").unlink(missing_ok=True)
            rag.ingest(docs)
            old = snapshot(rag)
            write(docs, one=lines("one", number + 1, 4), moved=(docs / "two.txt").read_text(encoding="utf-8"))
            (docs / "two.txt").unlink()
            countdown = [number]
            fail_at(rag, docs, countdown, monkeypatch)
            between = snapshot(rag)
            rag.ingest(docs)
            new = snapshot(rag)
            assert maintenance.verify(rag.index).agrees
            for source, texts in between.items():
                assert texts in (old.get(source), new.get(source)), (number, source)
            assert {"files/one.txt", "files/three.txt"} <= set(between), number
            assert len({"files/two.txt", "files/moved.txt"} & set(between)) == 1, number
    assert number > 12


def fail_at(rag: Rag, docs: Path, countdown: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ingest, and let the call fail that the countdown tells."""
    store, manifest = rag.store, rag.manifest
    with monkeypatch.context() as patched:
        patched.setattr(
            rag.index._pair,
            "_store",
            Faulty(store, {"upsert", "flush", "delete_document", "scan"}, countdown),
        )
        patched.setattr(
            rag.index._pair, "_manifest", Faulty(manifest, {"begin", "flip", "forget", "restamp"}, countdown)
        )
        patched.setattr(rag.embedder, "embed_documents", failing(rag.embedder.embed_documents, countdown))
        patched.setattr(loading.Loader, "load", failing(loading.Loader.load, countdown))
        with suppress(OSError):
            rag.ingest(docs)


# --- searching meanwhile


def test_a_search_sees_one_version_whole_while_documents_are_written(docs: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "index") as rag:
        rag.ingest(docs)
        seen: list[list[str]] = []
        stop = threading.Event()

        def look() -> None:
            while not stop.is_set():
                found = rag.search("Line of one in so many words version", top_k=100)
                seen.append(sorted(one.chunk.text for one in found if one.chunk.source == "files/one.txt"))

        reader = threading.Thread(target=look)
        reader.start()
        versions = [lines("one", 1, 6)]
        for version in range(2, 14):
            count = len(seen)
            while len(seen) < count + 2 and reader.is_alive():  # the second one began after the ingestion
                time.sleep(0.001)
            versions.append(lines("one", version, 1 + version % 5))
            write(docs, one=versions[-1])
            rag.ingest(docs)
        stop.set()
        reader.join()
    whole = [sorted(text.strip() for text in version.split("\n\n") if text) for version in versions]
    assert len(seen) > 10
    assert all(one in whole for one in seen), next(one for one in seen if one not in whole)
    assert {str(one) for one in whole[:-1]} <= {str(one) for one in seen}


def test_a_reindex_lets_searches_go_on(docs: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "index") as rag:
        rag.ingest(docs)
        for name in ("one", "two", "three"):
            write(docs, **{name: lines(name, 2, 5)})
        seen: list[set[str]] = []
        stop, begun = threading.Event(), threading.Event()

        def look() -> None:
            while not stop.is_set():
                found = rag.search("Line is of version", top_k=100)
                seen.append({one.chunk.text.split("version ")[1][0] for one in found})
                begun.set()

        reader = threading.Thread(target=look)
        reader.start()
        begun.wait()
        report = maintenance.reindex(rag.index)
        count = len(seen)
        while len(seen) < count + 2 and reader.is_alive():
            time.sleep(0.001)
        stop.set()
        reader.join()
        assert report.added == 3
        assert digest(rag) == fresh(docs, tmp_path / "fresh")
    assert {frozenset(one) for one in seen} == {frozenset("1"), frozenset("2")}
    assert sorted(entry.name for entry in (tmp_path / "index").iterdir()) == ["current", "index-1"]
