"""Which files of a folder are found: patterns, `.gitignore`, links, pipes, what stands beside documents."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crossrag.errors import LoadError
from crossrag.loading import Found, find_files, load


def test_files_are_found_sorted_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b/z.md", "b/a.txt", "a.html", "c.xyz", ".hidden.md", ".git/x.md", "b.md", "B.PDF"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x", encoding="utf-8")
    names = ("B.PDF", "a.html", "b/a.txt", "b/z.md", "b.md")
    assert find_files(tmp_path) == Found(
        known=tuple(tmp_path / name for name in names), unknown=(tmp_path / "c.xyz",)
    )


def test_a_single_file_gives_itself_even_if_hidden(tmp_path: Path) -> None:
    path, other = tmp_path / ".notes.md", tmp_path / "LICENSE"
    path.touch()
    other.touch()
    assert find_files(path) == Found((path,), ())
    assert find_files(other) == Found((), (other,))


def test_links_and_pipes_cannot_hold_the_walk(tmp_path: Path) -> None:
    real = tmp_path / "real.md"
    real.write_text("x", encoding="utf-8")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self.md").symlink_to(tmp_path / "self.md")
    (tmp_path / "gone.md").symlink_to(tmp_path / "nowhere.md")
    (tmp_path / "link.md").symlink_to(real)
    os.mkfifo(tmp_path / "pipe.md")
    assert find_files(tmp_path) == Found(
        (tmp_path / "link.md", real),
        (),
        skipped=(
            (tmp_path / "gone.md", "cannot be read: No such file or directory"),
            (tmp_path / "loop", "is a link to a folder"),
            (tmp_path / "pipe.md", "is a pipe"),
            (tmp_path / "self.md", "is a link that leads in a circle"),
        ),
    )
    for opens in (find_files, lambda path: load(path, document_id="x", source="pipe.md")):
        with pytest.raises(LoadError, match=r"pipe\.md is no regular file"):
            opens(tmp_path / "pipe.md")


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(LoadError, match="Permission denied"):
        find_files(tmp_path)
