"""Folder -> the files in it, in order of their path, with a reason for each that is left out.

Knows `.gitignore` and patterns of the same kind, and reads `metadata.jsonl`, also those of the folders above,
so that a document is the same whichever folder is named. No other file is opened.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from crossrag.errors import LoadError

from .documents import check_regular, read_regular, unreadable
from .formats import PARSERS, reason_against
from .ignoring import Ignored, Patterns, is_there
from .sidecar import SIDECAR, read_sidecar

_LARGEST_SIDECAR = 32 * 2**20
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}
"""What the system says of a link to nowhere. Any other error may pass, and says nothing of the file."""


@dataclass(frozen=True, slots=True)
class Found:
    """Files below a root, in order of their path."""

    known: tuple[Path, ...]
    unknown: tuple[Path, ...]
    """Regular files whose suffix no parser is for, or one that is not installed."""
    skipped: tuple[tuple[Path, str], ...] = ()
    """What is no file that may be read, such as a pipe, and why."""
    failed: tuple[tuple[Path, str], ...] = ()
    """Files and folders that could not be looked at, and why: they may be there, and hold anything."""
    metadata: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)
    """What `metadata.jsonl` files say of known files; the nearer one goes before."""
    notices: tuple[str, ...] = ()
    """Lines of `metadata.jsonl` and `.gitignore` that could not be used, and why."""


def find_files(
    root: Path,
    *,
    glob: Collection[str] = (),
    exclude: Collection[str] = (),
    gitignore: bool = True,
    reason_to_pass: Callable[[Path], str] = lambda _: "",
) -> Found:
    """Regular files below `root`, hidden ones left out; what is named is found though hidden or ignored.

    Links to folders are not followed, so that no loop can hold the walk, nor links that lead out of `root`;
    devices and pipes are never opened. What is hidden, ignored or excluded is left out without a word.

    Args:
        root: A folder, or one file.
        glob: If any, only files that match one of these patterns, as in `.gitignore`: `*.md`, `docs/**`.
            They are compared with the path below `root`, or with the name of `root` if it is a file.
        exclude: Patterns of files and folders to leave out, likewise.
        gitignore: Whether `.gitignore` files count, in `root`, below, and above within the same repository.
        reason_to_pass: Gives, for a folder below `root`, why it is not to be entered; nothing where it is.

    Raises:
        LoadError: `root` is neither a folder nor a regular file, or cannot be listed.
        UsageError: A pattern cannot be used.
    """
    wanted, unwanted = Patterns.of(glob), Patterns.of(exclude)
    if not _is_folder(root):
        check_regular(root, str(root))
        if unwanted.match(root.name) or (glob and not wanted.match(root.name)):
            return Found((), ())
        if root.suffix.lower() not in PARSERS:
            return Found((), (root,))
        metadata, told = _described([], [root], root)
        return Found((root,), (), metadata=metadata, notices=tuple(told))
    walk = _Walk(root, unwanted, Ignored(root) if gitignore else None, reason_to_pass)
    regular = []
    for path in sorted(walk.paths()):
        if glob and not wanted.match(path.relative_to(root).as_posix()):
            continue
        try:
            reason = _reason_against(path, walk.real_root)
        except OSError as error:
            walk.failed.append((path, f"cannot be read: {error.strerror}"))
            continue
        if reason:
            walk.skipped.append((path, reason))
        else:
            regular.append(path)
    known_files = tuple(path for path in regular if not reason_against(path.suffix))
    metadata, notices = _described(walk.sidecars, known_files, root)
    return Found(
        known=known_files,
        unknown=tuple(path for path in regular if reason_against(path.suffix)),
        skipped=tuple(sorted(walk.skipped)),
        failed=tuple(sorted(walk.failed)),
        metadata=metadata,
        notices=(*walk.notices, *notices),
    )


class _Walk:
    """One walk over a tree: what it comes by, and what it could not enter."""

    def __init__(
        self,
        root: Path,
        unwanted: Patterns,
        ignored: Ignored | None,
        reason_to_pass: Callable[[Path], str],
    ) -> None:
        self.real_root = Path(os.path.realpath(root))
        self.sidecars: list[Path] = []
        self.skipped: list[tuple[Path, str]] = []
        self.failed: list[tuple[Path, str]] = []
        self._root = root
        self._unwanted = unwanted
        self._ignored = ignored
        self._reason_to_pass = reason_to_pass

    @property
    def notices(self) -> tuple[str, ...]:
        return self._ignored.notices.told() if self._ignored is not None else ()

    def paths(self) -> Iterator[Path]:
        """Everything but folders that is neither hidden nor ignored nor excluded."""
        for top, folders, names in os.walk(self._root, onerror=self._refuse):
            above = Path(top)
            ignoring, repository = ".gitignore" in names, ".git" in names or ".git" in folders
            if self._ignored is not None and (ignoring or repository):
                self._ignored.enter(above, ignoring=ignoring, repository=repository)
            # Path.is_symlink raises where a path is too long.
            links = [name for name in folders if os.path.islink(above / name)]  # noqa: PTH114
            folders[:] = [name for name in folders if name not in links and self._is_entered(above / name)]
            self.skipped += [
                (above / name, "is a link to a folder")
                for name in links
                if self._is_wanted(above / name, folder=True)
            ]
            for name in names:
                path = above / name
                if name == SIDECAR:
                    self.sidecars.append(path)
                elif self._is_wanted(path, folder=False):
                    yield path

    def _is_entered(self, folder: Path) -> bool:
        if not self._is_wanted(folder, folder=True):
            return False
        if reason := self._reason_to_pass(folder):
            self.skipped.append((folder, reason))
        return not reason

    def _is_wanted(self, path: Path, *, folder: bool) -> bool:
        if path.name.startswith("."):
            return False
        if self._ignored is not None and self._ignored.covers(path, folder=folder):
            return False
        return not self._unwanted.match(path.relative_to(self._root).as_posix() + ("/" if folder else ""))

    def _refuse(self, error: OSError) -> None:
        folder = Path(error.filename)
        if error.errno == errno.ENAMETOOLONG:  # nobody can have indexed what is in there
            self.skipped.append((folder, "is nested too deeply to be opened"))
        elif folder == self._root:
            raise unreadable(str(folder), error)
        elif error.errno != errno.ENOENT:  # one that is gone by now has no files
            self.failed.append((folder, f"cannot be listed: {error.strerror}"))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError) as error:  # a name that is too long, or has a NUL in it
        raise unreadable(str(path), error) from None


def _reason_against(path: Path, root: Path) -> str:
    """Why a path that was come by is not to be read; nothing where it is.

    Raises:
        OSError: It may be a file, and cannot be looked at now.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "is a link that leads in a circle"
        if error.errno in _NOT_THERE:
            return f"cannot be read: {error.strerror}"
        raise
    if stat.S_ISREG(mode):
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
            return "is a link that leads out of the folder"
        return ""
    return "is a pipe" if stat.S_ISFIFO(mode) else "is a socket" if stat.S_ISSOCK(mode) else "is a device"


def _is_among(files: Collection[Path], folder: Path, name: str) -> bool:
    return folder / name in files


def _described(
    sidecars: Sequence[Path], known: Sequence[Path], root: Path
) -> tuple[dict[Path, Mapping[str, Any]], list[str]]:
    """Metadata by path; what a nearer sidecar says goes before.

    All folders above count, whatever repository they are in: a filter may keep documents from people by what
    a sidecar says of them, and must not depend on which folder was named.
    """
    place = root.resolve()
    above = [folder / SIDECAR for folder in place.parents if is_there(folder / SIDECAR)]
    below = [place / path.relative_to(root) for path in sidecars]
    metadata: dict[Path, Mapping[str, Any]] = {}
    notices = []
    files = {place / path.relative_to(root): path for path in known} if above or below else {}
    for path in sorted([*above, *below], key=lambda path: (len(path.parts), path)):
        folder = path.parent
        try:
            data = read_regular(path, str(path), limit=_LARGEST_SIDECAR)
        except LoadError as error:
            notices.append(f"{error.message}; it does not count")
            continue
        is_document = partial(_is_among, files, folder)
        sidecar = read_sidecar(data, is_document=is_document, others=path in above)
        notices += [f"{path.as_posix()}, {notice}" for notice in sidecar.notices]
        for name, values in sidecar.by_path.items():
            described = files[folder / name]
            metadata[described] = {**metadata.get(described, {}), **values}
    return metadata, notices
