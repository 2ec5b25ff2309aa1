"""Which files are to be indexed, and how each looks from outside: identity, label, stamp, hash.

Knows nothing of what is in them, nor of what is indexed already.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import loading
from .types import Failure

_RACY_NANOSECONDS = 2_000_000_000
"""A file that changed this shortly before a look may change again within the same tick of its clock."""
_BLOCK = 1 << 20
_WRITTEN_OUT = re.compile(r"\\u(dc[0-9a-f]{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file to be indexed."""

    path: Path
    document_id: str
    source: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What is said of it elsewhere; a change of this is a change of the document."""


@dataclass(frozen=True, slots=True)
class Found:
    """Files below the roots, each once, in order; and what was left out, with the reason."""

    files: tuple[File, ...]
    skipped: tuple[Failure, ...]
    notices: tuple[str, ...] = ()
    """What could not be used of `metadata.jsonl` and `.gitignore`, and why."""
    failed: Mapping[str, Failure] = field(default_factory=dict)
    """By identity: files and folders that may be there, and hold nobody knows what."""


def collect(
    roots: Sequence[Path],
    *,
    globs: Sequence[str] = (),
    exclude: Sequence[str] = (),
    gitignore: bool = True,
    reason_to_pass: Callable[[Path], str] = lambda _: "",
) -> Found:
    """Files below all roots that a parser is for, with what `metadata.jsonl` says of them.

    Args:
        roots: Whole paths of files and folders.
        globs: Only files that one of these patterns fits, as in `.gitignore`.
        exclude: No file, and nothing in a folder, that one of these fits.
        gitignore: Whether `.gitignore` files count.
        reason_to_pass: Gives, for a folder, why it is not to be entered; nothing where it is.

    Raises:
        LoadError: A root cannot be listed.
        UsageError: A pattern cannot be used.
    """
    chosen: dict[str, File] = {}
    skipped: dict[str, Failure] = {}
    failed: dict[str, Failure] = {}
    notices: list[str] = []
    for root in roots:
        found = loading.find_files(
            root, glob=globs, exclude=exclude, gitignore=gitignore, reason_to_pass=reason_to_pass
        )
        notices += found.notices
        for path in found.known:
            identity = identify(path)
            file = File(
                path=path,
                document_id=identity,
                source=_label(path, root),
                metadata=found.metadata.get(path, {}),
            )
            before = chosen.get(identity)
            if before is None or is_wider(file.source, before.source):
                chosen[identity] = file
        unread = [(path, loading.reason_against(path.suffix)) for path in found.unknown]
        for path, reason in (*unread, *found.skipped):
            skipped.setdefault(identify(path), Failure(source=_label(path, root), reason=reason))
        for path, reason in found.failed:
            failed.setdefault(identify(path), Failure(source=_label(path, root), reason=reason))
    return Found(
        files=tuple(chosen.values()),
        skipped=tuple(skipped.values()),
        notices=tuple(dict.fromkeys(notices)),
        failed=failed,
    )


def _label(path: Path, root: Path) -> str:
    """What a reader sees: the path from the root's own name on."""
    below = path.name if path == root else f"{root.name}/{path.relative_to(root).as_posix()}"
    return loading.clean_text(below)


def is_wider(label: str, than: str) -> bool:
    """Whether a label of a document begins at a folder further up than another label of the same document."""
    return label.count("/") > than.count("/")


def identify(path: Path) -> str:
    """Document id of a file: its whole path, with bytes that are no UTF-8 written out."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode("utf-8")


def locate(document_id: str) -> Path:
    """The path that a document's id stands for: the inverse of `identify`, where the file is there."""
    path = Path(document_id)
    if path.exists():
        return path
    return Path(_WRITTEN_OUT.sub(lambda code: chr(int(code[1], 16)), document_id))


def is_there(document_id: str) -> bool:
    """Whether a document's file can be seen now."""
    return os.path.exists(locate(document_id))  # noqa: PTH110 - Path.exists raises where it cannot be looked at


def is_below(document_id: str, places: Collection[str]) -> bool:
    """Whether a document is one of the places, which are identities, or in one of them."""
    if document_id in places:
        return True
    end = document_id.rfind("/")
    while end >= 0:
        # A folder's own name ends in no slash, except that of the root of a file system.
        if document_id[:end] in places or document_id[: end + 1] in places:
            return True
        end = document_id.rfind("/", 0, end)
    return False


@dataclass(frozen=True, slots=True)
class Look:
    """How a file looked at one moment."""

    stamp: str
    """Size, times and inode in one string."""
    settled: bool
    """Whether its last change was long enough ago for another one to show in the stamp."""

    @property
    def size(self) -> int:
        """In bytes."""
        return int(self.stamp.partition(":")[0])

    @property
    def proof(self) -> str:
        """What to remember: while the file has this stamp, it has the same bytes; empty if that is unsure."""
        return self.stamp if self.settled else ""


def look(path: Path) -> Look:
    """Look at a file without reading it.

    The time of the last change of the inode is in the stamp, which no program can set: a file that was edited
    and given its old date again looks different.

    Raises:
        OSError: The file is not there, or no regular file.
    """
    now = time.time_ns()
    seen = path.stat()
    _check_regular(seen)
    return Look(
        f"{seen.st_size}:{seen.st_mtime_ns}:{seen.st_ctime_ns}:{seen.st_ino}",
        max(seen.st_mtime_ns, seen.st_ctime_ns) < now - _RACY_NANOSECONDS,
    )


def digest(path: Path) -> str:
    """SHA-256 of the bytes, in hex, read block by block. A pipe or a device is never waited for.

    Raises:
        OSError: The file cannot be read, or is no regular file.
    """
    made = hashlib.sha256()
    # A pipe may have taken the file's place since it was looked at; opening must not wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        _check_regular(os.fstat(descriptor))
        while block := file.read(_BLOCK):
            made.update(block)
    return made.hexdigest()


def _check_regular(seen: os.stat_result) -> None:
    if not stat.S_ISREG(seen.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
