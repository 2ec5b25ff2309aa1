"""A slip in a pattern empties no index, and what a pattern takes from it is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from crossrag import Rag, UsageError
from crossrag.planning import Selection

from .test_cli import crossrag
from .test_sync import opened, write


@pytest.fixture
def docs(in_own_memory: Path) -> Path:
    folder = in_own_memory / "files"
    write(folder, one="One.", two="Two.")
    (folder / "notes.md").write_text("# Notes\n\nOf many things.", encoding="utf-8")
    return folder


@pytest.fixture
def rag(in_own_memory: Path) -> Iterator[Rag]:
    with opened(in_own_memory / "index") as made:
        yield made


@pytest.mark.parametrize("pattern", ["", "  ", "# a comment"])
def test_an_empty_pattern_is_an_error(rag: Rag, docs: Path, pattern: str) -> None:
    rag.ingest(docs)
    for selection in (Selection(globs=(pattern,)), Selection(exclude=("*.md", pattern))):
        with pytest.raises(UsageError, match="fits no file whatever"):
            rag.ingest(docs, selection=selection)
    assert len(rag.documents()) == 3


@pytest.mark.parametrize(
    ("selection", "named"),
    [
        (Selection(globs=("*.xyz",)), r"--glob '\*\.xyz' leaves"),
        (Selection(globs=("*.md",), exclude=("notes*",)), r"--glob '\*\.md' --exclude 'notes\*' leaves"),
    ],
)
def test_patterns_that_leave_no_file_are_refused(
    rag: Rag, docs: Path, selection: Selection, named: str
) -> None:
    for rebuild in (False, True):
        with pytest.raises(UsageError, match=f"{named} none of the 3 files of .*files"):
            rag.ingest(docs, selection=selection, rebuild=rebuild)
    with pytest.raises(UsageError, match=named):
        rag.plan(docs, selection=selection)
    rag.ingest(docs)
    for run in (rag.ingest, rag.plan):
        with pytest.raises(UsageError, match=f"{named} no file .* would delete all 3 documents"):
            run(docs, selection=selection)
    with pytest.raises(UsageError, match=named):
        rag.ingest(docs, selection=selection, rebuild=True)
    assert len(rag.documents()) == 3


def test_files_that_no_parser_is_for_are_no_reason_to_empty_the_index(rag: Rag, docs: Path) -> None:
    (docs / "a.xyz").write_bytes(b"?")
    rag.ingest(docs)
    for rebuild in (False, True):
        with pytest.raises(UsageError, match=r"--glob '\*\.xyz' leaves no"):
            rag.ingest(docs, selection=Selection(globs=("*.xyz",)), rebuild=rebuild)
    assert len(rag.documents()) == 3


def test_nothing_is_refused_where_nothing_is_lost(rag: Rag, docs: Path) -> None:
    rag.ingest(docs)
    kept = rag.ingest(docs, selection=Selection(globs=("*.xyz",), prune=False))
    assert (kept.deleted, len(rag.documents())) == (0, 3)
    chosen = Selection(globs=("*.md",))
    rag.ingest(docs, selection=chosen)
    (docs / "notes.md").unlink()  # the last one of its kind, really gone
    report = rag.ingest(docs, selection=chosen)
    assert (report.deleted, report.notices) == (1, ())


def test_documents_that_are_not_chosen_are_told(rag: Rag, docs: Path) -> None:
    rag.ingest(docs)
    (docs / "two.txt").unlink()
    chosen = Selection(globs=("*.md",))
    planned = rag.plan(docs, selection=chosen).notices
    report = rag.ingest(docs, selection=chosen)
    assert report.deleted == 2
    (notice,) = report.notices
    assert planned == (notice,)
    assert "of the deleted documents, 1 still have their files" in notice
    assert "files/one.txt. --no-prune" in notice


def test_the_command_refuses_it(docs: Path) -> None:
    folder = docs.parent
    assert crossrag("ingest", "files", folder=folder).returncode == 0
    for pattern, reason in (("", "'' fits no file"), ("*.xyz", "--glob '*.xyz' leaves no file of files")):
        for more in ((), ("--dry-run",)):
            done = crossrag("ingest", "files", "--glob", pattern, *more, folder=folder)
            assert (done.returncode, done.stdout) == (2, "")
            assert reason in done.stderr
