"""Which files of a folder are found: patterns, `.gitignore`, links, pipes, what stands beside documents."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from crossrag.errors import LoadError, UsageError
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


# --- patterns ---------------------------------------------------------------------------------------------


def names_below(folder: Path, **options: object) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_files(folder, **options).known]  # type: ignore[arg-type]


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x", encoding="utf-8")


def test_patterns_choose_and_exclude(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "b.txt", "docs/c.md", "docs/old/d.md", "src/e.py")
    assert names_below(tmp_path, glob=["*.md"]) == ["a.md", "docs/c.md", "docs/old/d.md"]
    assert names_below(tmp_path, glob=["/docs/**"], exclude=["old/"]) == ["docs/c.md"]
    assert names_below(tmp_path, glob=["*.md", "*.py"], exclude=["docs"]) == ["a.md", "src/e.py"]
    assert names_below(tmp_path, glob=["*.md", "!c.md"]) == ["a.md", "docs/old/d.md"]
    with pytest.raises(UsageError, match=r"'\[z-a\]' is no pattern: .* Write it as in a \.gitignore"):
        find_files(tmp_path, glob=["[z-a]"])


def test_patterns_hold_for_a_file_that_is_named_too(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "b.txt")
    assert find_files(tmp_path / "a.md", glob=["*.md"], exclude=["b*"]).known == (tmp_path / "a.md",)
    assert find_files(tmp_path / "b.txt", glob=["*.md"]) == Found((), ())
    assert find_files(tmp_path / "a.md", glob=["*.md", "!a.*"]) == Found((), ())
    assert find_files(tmp_path / "b.txt", exclude=["*.txt"]) == Found((), ())


def test_gitignore_is_honoured_as_git_honours_it(tmp_path: Path) -> None:
    names = [
        *("a.txt", "b.log", "keep.log", "build/x.txt", "sub/a.txt", "sub/build/y.txt", "sub/b.log"),
        *(
            "sub/deep/keep.log",
            "sub/deep/only.txt",
            "doc/frotz/z.txt",
            "a/doc/frotz/z.txt",
            "sub/c.md",
            "#x.txt",
        ),
    ]
    write(tmp_path, *names)
    (tmp_path / ".gitignore").write_text(
        "# a comment\n*.log\n!keep.log\n/build/\ndoc/frotz/\n\\#x.txt\n", encoding="utf-8"
    )
    (tmp_path / "sub/.gitignore").write_text("!b.log\n/c.md\n", encoding="utf-8")
    (tmp_path / "sub/deep/.gitignore").write_text("*\n!only.txt\n", encoding="utf-8")
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True, capture_output=True)  # noqa: S607
    listed = subprocess.run(
        ["git", "-C", tmp_path, "ls-files", "-z"],  # noqa: S607
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    by_git = sorted(name for name in listed if name and not Path(name).name.startswith("."))
    assert sorted(names_below(tmp_path)) == by_git
    assert sorted(names_below(tmp_path, gitignore=False)) == sorted(names)


def test_gitignore_files_above_count_within_the_repository(tmp_path: Path) -> None:
    write(tmp_path, "repo/docs/sub/a.txt", "repo/docs/sub/b.log", "repo/docs/sub/c.md", "repo/docs/sub/d.txt")
    (tmp_path / ".gitignore").write_text("*.md\n", encoding="utf-8")
    (tmp_path / "repo/.gitignore").write_text("*.log\n/docs/sub/d.*\n", encoding="utf-8")
    sub = tmp_path / "repo/docs/sub"
    assert names_below(sub) == ["a.txt"]
    (tmp_path / "repo/.git").mkdir()
    assert names_below(sub) == names_below(tmp_path / "repo/docs/sub") == ["a.txt", "c.md"]
    assert names_below(tmp_path) == ["repo/docs/sub/a.txt", "repo/docs/sub/c.md"]
    assert names_below(sub, gitignore=False) == ["a.txt", "b.log", "c.md", "d.txt"]
    (sub / ".gitignore").write_text("!*.log\n", encoding="utf-8")
    assert names_below(sub) == ["a.txt", "b.log", "c.md"]
    (sub / ".gitignore").unlink()
    (sub / ".git").touch()  # as in a submodule or a further work tree
    assert names_below(sub) == ["a.txt", "b.log", "c.md", "d.txt"]


def test_an_ignored_folder_that_is_named_is_read(tmp_path: Path) -> None:
    write(tmp_path, "data/deep/a.txt", "data/deep/b.log")
    (tmp_path / ".gitignore").write_text("/data/\n*.log\n", encoding="utf-8")
    assert names_below(tmp_path) == []
    for folder in (tmp_path / "data", tmp_path / "data/deep"):
        assert len(names_below(folder)) == 2
    assert find_files(tmp_path / "data/deep/b.log").known == (tmp_path / "data/deep/b.log",)


def test_a_relative_path_is_found_as_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "docs/sub/a.txt", "docs/sub/b.log")
    (tmp_path / "docs/.gitignore").write_text("*.log\n", encoding="utf-8")
    (tmp_path / "metadata.jsonl").write_text('{"source": "docs/sub/a.txt", "x": 1}', encoding="utf-8")
    monkeypatch.chdir(tmp_path / "docs")
    assert find_files(Path("sub")) == Found((Path("sub/a.txt"),), (), metadata={Path("sub/a.txt"): {"x": 1}})
    monkeypatch.chdir(tmp_path / "docs/sub")
    assert find_files(Path()) == Found((Path("a.txt"),), (), metadata={Path("a.txt"): {"x": 1}})


def test_a_gitignore_that_is_no_file_does_not_count(tmp_path: Path) -> None:
    write(tmp_path, "a.txt")
    os.mkfifo(tmp_path / ".gitignore")
    found = find_files(tmp_path)
    assert found.known == (tmp_path / "a.txt",)
    assert found.notices == (".gitignore is no regular file; it does not count",)


def test_a_pattern_made_to_hang_does_not(tmp_path: Path) -> None:
    write(tmp_path, *("a" * 240 + f"{number}.txt" for number in range(100)))
    (tmp_path / ".gitignore").write_text("*a*a*a*a*a*a*a*a*b\n*a*a*b\n", encoding="utf-8")
    started = time.perf_counter()
    found = find_files(tmp_path)
    assert len(found.known) == 100
    assert found.notices == (
        ".gitignore, line 1: the pattern has more than 3 wildcards *; it does not count",
    )
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("name", ["n" * 300, "n" * 5000, "nul\0byte", "a/" * 3000])
def test_a_name_that_no_file_can_have_is_an_error(name: str) -> None:
    with pytest.raises(LoadError, match="cannot be read"):
        find_files(Path(name))
    with pytest.raises(LoadError, match="cannot be read"):
        load(Path(name), document_id="1", source="x")


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path, "outside.txt", "docs/inside.txt")
    (tmp_path / "docs/link.txt").symlink_to(tmp_path / "outside.txt")
    (tmp_path / "docs/near.txt").symlink_to("inside.txt")
    found = find_files(tmp_path / "docs")
    assert found.known == (tmp_path / "docs/inside.txt", tmp_path / "docs/near.txt")
    assert found.skipped == ((tmp_path / "docs/link.txt", "is a link that leads out of the folder"),)
    assert find_files(tmp_path / "docs/link.txt").known == (tmp_path / "docs/link.txt",)
