"""Files -> store and manifest: what is new or changed is chunked, embedded and written; what is gone goes.

Order of writing per document: chunks, stale chunks away, flush, manifest row. A run that is cut short at any
point is made good by the next one. Knows nothing of queries.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import LoadError
from .types import Chunk, Document, Failure, IngestReport

if TYPE_CHECKING:
    from .manifest import Entry, Manifest
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
    """Writes documents into one store and one manifest.

    Args:
        load: File bytes to Document.
        split: Document to chunks.
        entry: Makes a manifest row.
    """

    def __init__(
        self,
        *,
        store: Store,
        manifest: Manifest,
        embedder: Embedder,
        sparse_encoder: SparseEncoder,
        load: Callable[[bytes, File], Document],
        split: Callable[[Document], Sequence[Chunk]],
        entry: Callable[..., Entry],
    ) -> None:
        self._store = store
        self._manifest = manifest
        self._embedder = embedder
        self._sparse_encoder = sparse_encoder
        self._load = load
        self._split = split
        self._entry = entry

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
            chunks = self._split(self._load(data, file))
        except LoadError as error:
            tally.failed.append(Failure(source=file.source, reason=str(error)))
            return
        if not chunks:
            tally.skipped.append(Failure(source=file.source, reason="no text in it (a scan, perhaps)"))
            if known is not None:
                self._remove(file.document_id)
            return
        self._write(file, chunks)
        self._manifest.record(
            self._entry(
                id=file.document_id, source=file.source, content_hash=content_hash, chunks=len(chunks)
            )
        )
        tally.chunks += len(chunks)
        if known is None:
            tally.added += 1
        else:
            tally.updated += 1

    def _write(self, file: File, chunks: Sequence[Chunk]) -> None:
        # Title and headings say what a passage is about; the passage itself often does not.
        described = [_described(chunk) for chunk in chunks]
        self._store.upsert(
            chunks,
            self._embedder.embed_documents(described),
            self._sparse_encoder.encode_documents(described),
        )
        self._store.delete_document(file.document_id, keep=[chunk.id for chunk in chunks])
        self._store.flush()

    def _remove(self, document_id: str) -> None:
        self._store.delete_document(document_id)
        self._store.flush()
        self._manifest.forget(document_id)


def _described(chunk: Chunk) -> str:
    heading = " > ".join(dict.fromkeys(part for part in (chunk.title, *chunk.title_path) if part))
    return f"{heading}\n{chunk.text}" if heading else chunk.text
