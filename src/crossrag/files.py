"""Which files are to be indexed, and how each looks from outside: identity, label, stamp, hash.

Knows nothing of what is in them, nor of what is indexed already.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
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


def collect(roots: Sequence[Path], *, globs: Sequence[str] = (), exclude: Sequence[str] = ()) -> Found:
    """Files below all roots that a parser is for.

    Args:
        roots: Whole paths of files and folders.
        globs: Only files that one of these patterns fits: by name, or by path below the root where the
            pattern has a slash. `*` fits slashes too.
        exclude: No file, and nothing in a folder, that one of these fits.

    Raises:
        LoadError: A folder cannot be listed.
    """
    files: dict[str, File] = {}
    unknown: dict[str, Failure] = {}
    for root in roots:
        found = loading.find_files(root)
        for path in found.known:
            below = path.relative_to(root).as_posix() if path != root else path.name
            if not _wanted(below, globs, exclude):
                continue
            source = f"{root.name}/{below}" if path != root else below
            identity = identify(path)
            files.setdefault(
                identity, File(path=path, document_id=identity, source=loading.clean_text(source))
            )
        for path in found.unknown:
            if _wanted(path.relative_to(root).as_posix() if path != root else path.name, globs, exclude):
                reason = f"no parser for {path.suffix or 'its type'}"
                unknown.setdefault(
                    identify(path), Failure(source=loading.clean_text(path.name), reason=reason)
                )
    return Found(tuple(files.values()), tuple(unknown.values()))


def identify(path: Path) -> str:
    """Document id of a file: its whole path, with bytes that are no UTF-8 written out."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode("utf-8")


def locate(document_id: str) -> Path:
    """The path that a document's id stands for: the inverse of `identify`, where the file is there."""
    path = Path(document_id)
    if path.exists():
        return path
    return Path(_WRITTEN_OUT.sub(lambda code: chr(int(code[1], 16)), document_id))


def is_below(document_id: str, roots: Sequence[Path]) -> bool:
    """Whether a document is one of the roots or in one of them."""
    return any(
        document_id == root or document_id.startswith(root.rstrip("/") + "/") for root in map(identify, roots)
    )


@dataclass(frozen=True, slots=True)
class Look:
    """How a file looked at one moment."""

    stamp: str
    """Size, times and inode in one string."""
    settled: bool
    """Whether its last change was long enough ago for another one to show in the stamp."""

    @property
    def proof(self) -> str:
        """What to remember: while the file has this stamp, it has the same bytes; empty if that is unsure."""
        return self.stamp if self.settled else ""


def look(path: Path) -> Look:
    """Look at a file without reading it.

    The time of the last change of the inode is in the stamp, which no program can set: a file that was edited
    and given its old date again looks different.

    Raises:
        OSError: The file is not there.
    """
    now = time.time_ns()
    seen = path.stat()
    return Look(
        f"{seen.st_size}:{seen.st_mtime_ns}:{seen.st_ctime_ns}:{seen.st_ino}",
        max(seen.st_mtime_ns, seen.st_ctime_ns) < now - _RACY_NANOSECONDS,
    )


def digest(path: Path) -> str:
    """SHA-256 of the bytes, in hex, read block by block.

    Raises:
        OSError: The file cannot be read.
    """
    made = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            made.update(block)
    return made.hexdigest()


def _wanted(below: str, globs: Sequence[str], exclude: Sequence[str]) -> bool:
    if globs and not any(_fits(below, pattern) for pattern in globs):
        return False
    parts = below.split("/")
    folders = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    return not any(_fits(part, pattern.rstrip("/")) for part in folders for pattern in exclude)


def _fits(below: str, pattern: str) -> bool:
    subject = below if "/" in pattern else below.rpartition("/")[2]
    return fnmatchcase(subject, pattern.removeprefix("./").removeprefix("**/"))
