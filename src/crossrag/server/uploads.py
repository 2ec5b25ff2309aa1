"""Uploaded files -> files of our own naming -> documents. What a caller calls a file is a label, no path."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import unicodedata
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from crossrag.files import File, identify
from crossrag.loading.formats import PARSERS

from .documents import entries
from .wire import document_id

if TYPE_CHECKING:
    from crossrag.manifest import Entry
    from crossrag.pipeline import Rag

_LONGEST = 200
_PARTIAL = ".partial"
_BLOCK = 1 << 20
_FORGOTTEN = 86_400.0
"""Seconds after which a file that is not whole belongs to no upload any more."""


@dataclass(frozen=True, slots=True)
class Given:
    """An uploaded file."""

    name: str
    content: BinaryIO


def label(name: str) -> str:
    """What a reader sees: the last part of the name, without what no name needs; never empty."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    clean = "".join(
        letter for letter in unicodedata.normalize("NFC", last) if unicodedata.category(letter)[0] != "C"
    )
    stem, dot, suffix = clean.strip().rpartition(".")
    if not dot:
        stem, suffix = suffix, ""
    stem = stem.strip(". ")[:_LONGEST] or "file"
    return f"{stem}.{suffix[:16]}" if suffix else stem


def store(rag: Rag, folder: Path, given: Sequence[Given]) -> dict[str, Any]:
    """Write the files, index them, and say of each what became of it; `schemas.UploadReply`.

    Args:
        rag: Whose index it is.
        folder: Where the files are kept, for this collection and tenant alone.
        given: In the order of the reply.
    """
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = folder.resolve()
    _sweep(folder)
    # The same label twice in one upload: the last one is meant.
    names = [label(one.name) for one in given]
    before = entries(rag)
    wanted: dict[str, File] = {}
    replaced: dict[str, Path | None] = {}
    for name, one in dict(zip(names, given, strict=True)).items():
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in PARSERS:
            path = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}{suffix}"
            replaced[name] = _write(path, one.content)
            wanted[name] = File(path=path, document_id=identify(path), source=name)
    failures: dict[str, str] = {}
    notices: tuple[str, ...] = ()
    after: dict[str, Entry] = {}
    if wanted:
        try:
            report = rag.index.ingest_files(list(wanted.values()), prune=False)
        finally:
            after = entries(rag)
            for name, file in wanted.items():
                _settle(file, replaced[name], before, after)
        failures = {one.source: one.reason for one in (*report.failed, *report.skipped)}
        notices = report.notices
    rows = [_row(name, wanted.get(name), failures.get(name), before, after) for name in names]
    return {"files": rows, "seconds": time.perf_counter() - started, "notices": list(notices)}


def _settle(file: File, replaced: Path | None, before: dict[str, Entry], after: dict[str, Entry]) -> None:
    """Leave the file that the index is of: the new one, or the one that it was to replace, or none."""
    old, new = before.get(file.document_id), after.get(file.document_id)
    if new is None:
        file.path.unlink(missing_ok=True)
    elif replaced is not None and old is not None and old.generation == new.generation:
        replaced.replace(file.path)
        return
    if replaced is not None:
        replaced.unlink(missing_ok=True)


def remove(rag: Rag, folder: Path, entry: Entry) -> bool:
    """Delete an uploaded document and its file; False where it was not uploaded."""
    if not uploaded(folder, entry):
        return False
    with rag.index.only_writer():
        rag.index.indexer().remove([entry.id])
    Path(entry.id).unlink(missing_ok=True)
    return True


def uploaded(folder: Path, entry: Entry) -> bool:
    """Whether the document came through here."""
    return Path(entry.id).parent == folder.resolve()


def _write(path: Path, content: BinaryIO) -> Path | None:
    """In one step: an upload that is cut short leaves the old file. Where that is kept, if there was one."""
    # A name of its own: the same file may be uploaded twice at once.
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=_PARTIAL, delete=False) as file:
        partial = Path(file.name)
        try:
            while block := content.read(_BLOCK):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            kept = path.with_name(f"{path.stem}.{uuid.uuid4().hex}{_PARTIAL}")
            with suppress(FileNotFoundError):
                os.link(path, kept)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    return kept if kept.exists() else None


def _sweep(folder: Path) -> None:
    """Remove what processes left that were killed in an upload."""
    for partial in folder.glob(f"*{_PARTIAL}"):
        with suppress(FileNotFoundError):
            if partial.stat().st_mtime < time.time() - _FORGOTTEN:
                partial.unlink()


def _row(
    name: str, file: File | None, reason: str | None, before: dict[str, Entry], after: dict[str, Entry]
) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "document_id": None, "chunks": 0, "reason": reason}
    if file is None:
        suffix = PurePosixPath(name).suffix
        return row | {"status": "skipped", "reason": f"no parser for {suffix or 'its type'}"}
    entry = after.get(file.document_id)
    if reason is not None or entry is None:
        return row | {"status": "failed", "reason": reason or "it holds no text"}
    old = before.get(file.document_id)
    status = "added" if old is None else "updated" if old.generation != entry.generation else "unchanged"
    return row | {"status": status, "document_id": document_id(entry.id), "chunks": entry.chunks}
