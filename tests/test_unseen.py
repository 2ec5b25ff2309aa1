"""What cannot be looked at for the moment is not gone: it fails, and its documents stay."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crossrag import LoadError, Rag
from crossrag.files import is_below
from crossrag.loading import find_files

from .test_sync import lines, opened, write


@pytest.fixture
def docs(in_own_memory: Path) -> Path:
    folder = in_own_memory / "files"
    write(folder, one=lines("one", 1, 3))
    write(folder / "sub", two=lines("two", 1, 2), three="Three.")
    return folder


@pytest.fixture
def rag(in_own_memory: Path) -> Iterator[Rag]:
    with opened(in_own_memory / "index") as made:
        yield made


def stat_fails(monkeypatch: pytest.MonkeyPatch, broken: Path, number: int) -> None:
    real = Path.stat

    def stat(path: Path, **named: Any) -> os.stat_result:
        if path == broken:
            raise OSError(number, os.strerror(number), str(path))
        return real(path, **named)

    monkeypatch.setattr(Path, "stat", stat)


def listing_fails(monkeypatch: pytest.MonkeyPatch, broken: Path, number: int) -> None:
    real = os.scandir

    def scandir(path: Any) -> Any:
        if not isinstance(path, int) and Path(path) == broken:
            raise OSError(number, os.strerror(number), str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_file_that_cannot_be_looked_at_stays(
    rag: Rag, docs: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    rag.ingest(docs)
    with monkeypatch.context() as patched:
        stat_fails(patched, docs / "one.txt", number)
        report = rag.ingest(docs)
        assert [(one.source, one.reason) for one in report.failed] == [
            ("files/one.txt", f"cannot be read: {os.strerror(number)}")
        ]
        assert (report.deleted, report.skipped, len(rag.documents())) == (0, (), 3)
        with pytest.raises(LoadError, match=r"files/one\.txt.*--fail-fast"):
            rag.ingest(docs, fail_fast=True)
    assert rag.ingest(docs).unchanged == 3


def test_what_is_below_a_folder_that_cannot_be_looked_at_stays(
    rag: Rag, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rag.ingest(docs)
    (docs / "one.txt").unlink()
    with monkeypatch.context() as patched:
        listing_fails(patched, docs / "sub", errno.EIO)
        report = rag.ingest(docs)
        assert [one.source for one in report.failed] == ["files/sub"]
        assert (report.deleted, len(rag.documents())) == (1, 2)


def test_a_failure_says_whether_an_earlier_version_is_found_still(
    rag: Rag, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rag.ingest(docs)
    (docs / "sub" / "two.txt").write_bytes(b"\x00\x01" * 500)  # was good, and is no text now
    (docs / "new.txt").write_bytes(b"\x00\x01" * 500)
    with (docs / "one.txt").open("wb") as huge:
        huge.truncate(2**40)
    assert [one.answers_still for one in rag.plan(docs).failed] == [True]
    failed = rag.ingest(docs).failed
    assert {one.source: one.answers_still for one in failed} == {
        "files/one.txt": True,
        "files/sub/two.txt": True,
        "files/new.txt": False,
    }
    assert all(("earlier version stays" in str(one)) == one.answers_still for one in failed)
    with monkeypatch.context() as patched:
        listing_fails(patched, docs / "sub", errno.EIO)
        told = {one.source: one.answers_still for one in rag.ingest(docs).failed}
    assert told["files/sub"]
    assert len(rag.documents()) == 3


def test_what_is_gone_while_the_folder_is_walked_goes(
    rag: Rag, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rag.ingest(docs)
    stat_fails(monkeypatch, docs / "one.txt", errno.ENOENT)
    listing_fails(monkeypatch, docs / "sub", errno.ENOENT)
    report = rag.ingest(docs)
    assert (report.deleted, report.failed) == (3, ())


def test_a_root_that_cannot_be_listed_is_an_error(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing_fails(monkeypatch, docs, errno.EIO)
    with pytest.raises(LoadError, match="Input/output error"):
        find_files(docs)


def test_what_is_below_what() -> None:
    assert is_below("/a/b/c.txt", {"/a/b"})
    assert is_below("/a/b/c.txt", {"/a/b/c.txt"})
    assert is_below("/a/b/c.txt", {"/"})
    assert is_below("C:/a.txt", {"C:/"})
    assert not is_below("/a/bc/d.txt", {"/a/b", "/a/b/c"})
