"""Files -> store and manifest: what is new or changed is chunked, embedded and written; what is gone goes.

Order of writing per document: manifest row without hash, chunks, stale chunks away, flush, whole row. A run
that is cut short at any point is made good by the next one. Knows nothing of queries.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import loading
from .errors import LoadError
from .manifest import Entry, Manifest
from .types import Chunk, Document, Failure, IngestReport

if TYPE_CHECKING:
    from .protocols import Embedder, SparseEncoder, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file to be indexed."""

    path: Path
    document_id: str
    source: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ingestion is: `done` of `total` files, now at `source`."""

    done: int
    total: int
    source: str


@dataclass(slots=True)
class _Tally:
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    chunks: int = 0
    skipped: list[Failure] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)


class Indexer:
    """Writes documents into one store and one manifest; `split` makes chunks of a document's generation."""

    def __init__(
        self,
        *,
        store: Store,
        manifest: Manifest,
        embedder: Embedder,
        sparse_encoder: SparseEncoder,
        split: Callable[[Document, str], Sequence[Chunk]],
    ) -> None:
        self._store = store
        self._manifest = manifest
        self._embedder = embedder
        self._sparse_encoder = sparse_encoder
        self._split = split

    def run(
        self,
        files: Sequence[File],
        *,
        gone: Sequence[str] = (),
        skipped: Sequence[Failure] = (),
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> IngestReport:
        """Index `files`, remove the documents whose ids are in `gone`, and report.

        A file that cannot be read is reported and what is indexed of it stays; the run goes on.
        """
        started = time.perf_counter()
        known = self._manifest.entries()
        tally = _Tally(skipped=list(skipped))
        for done, file in enumerate(files):
            progress(Progress(done, len(files), file.source))
            self._index(file, known.get(file.document_id), tally)
        for document_id in gone:
            self._remove(document_id)
        progress(Progress(len(files), len(files), ""))
        return IngestReport(
            added=tally.added,
            updated=tally.updated,
            unchanged=tally.unchanged,
            deleted=len(gone),
            skipped=tuple(tally.skipped),
            failed=tuple(tally.failed),
            chunks=tally.chunks,
            seconds=time.perf_counter() - started,
        )

    def _index(self, file: File, known: Entry | None, tally: _Tally) -> None:
        try:
            data = file.path.read_bytes()
        except OSError as error:
            tally.failed.append(Failure(source=file.source, reason=f"cannot be read: {error.strerror}"))
            return
        content_hash = hashlib.sha256(data).hexdigest()
        if known is not None and known.content_hash == content_hash:
            tally.unchanged += 1
            return
        try:
            chunks = self._split(_loaded(data, file), content_hash[:16])
        except LoadError as error:
            tally.failed.append(Failure(source=file.source, reason=str(error)))
            return
        if not chunks:
            tally.skipped.append(Failure(source=file.source, reason="no text in it (a scan, perhaps)"))
            if known is not None:
                self._remove(file.document_id)
            return
        # The empty hash stands for "not whole": whatever happens now, the next run knows of the document.
        self._manifest.record(Entry(id=file.document_id, source=file.source, content_hash="", chunks=0))
        self._write(file, chunks)
        self._manifest.record(
            Entry(id=file.document_id, source=file.source, content_hash=content_hash, chunks=len(chunks))
        )
        tally.chunks += len(chunks)
        if known is None or not known.complete:
            tally.added += 1
        else:
            tally.updated += 1

    def _write(self, file: File, chunks: Sequence[Chunk]) -> None:
        # Title and headings say what a passage is about; the passage itself often does not.
        described = [chunk.described for chunk in chunks]
        self._store.upsert(
            chunks,
            self._embedder.embed_documents(described),
            self._sparse_encoder.encode_documents(described),
        )
        self._store.delete_document(file.document_id, keep_generation=chunks[0].generation)
        self._store.flush()

    def _remove(self, document_id: str) -> None:
        self._store.delete_document(document_id)
        self._store.flush()
        self._manifest.forget(document_id)


def collect(roots: Sequence[Path]) -> tuple[list[File], list[Failure]]:
    """Files below all roots, each once, in order; and those that no parser is for.

    Raises:
        LoadError: A folder cannot be listed.
    """
    files: dict[str, File] = {}
    unknown: dict[str, Failure] = {}
    for root in roots:
        found = loading.find_files(root)
        for path in found.known:
            source = f"{root.name}/{path.relative_to(root).as_posix()}" if path != root else path.name
            identity = identify(path)
            files.setdefault(
                identity, File(path=path, document_id=identity, source=loading.clean_text(source))
            )
        for path in found.unknown:
            reason = f"no parser for {path.suffix or 'its type'}"
            unknown.setdefault(identify(path), Failure(source=loading.clean_text(path.name), reason=reason))
    return list(files.values()), list(unknown.values())


def identify(path: Path) -> str:
    """Document id of a file: its whole path, with bytes that are no UTF-8 written out."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode("utf-8")


def is_below(document_id: str, roots: Sequence[Path]) -> bool:
    """Whether a document is one of the roots or in one of them."""
    return any(
        document_id == root or document_id.startswith(root.rstrip("/") + "/") for root in map(identify, roots)
    )


def _loaded(data: bytes, file: File) -> Document:
    try:
        return loading.load_bytes(
            data, suffix=file.path.suffix, document_id=file.document_id, source=file.source
        )
    except LoadError as error:
        raise LoadError(error.message.removeprefix(f"{file.source}: "), hint=error.hint) from None
