"""Plan -> store and manifest: what is new or changed is embedded and written; what is gone goes.

`preparing` makes documents ready; there is one writer, this one. Order of writing, per batch of documents:
their generations are begun in the manifest, written to the store, flushed, and become the documents' in one
transaction; then the old ones are deleted, flushed and forgotten. A run that is cut short at any point is
made good by the next one. Knows nothing of queries.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

from .errors import LoadError, ModelError
from .manifest import Entry, Manifest
from .protocols import SharedStore
from .types import Chunk, Failure, IngestReport, StoredPoint

if TYPE_CHECKING:
    from .planning import Change, Plan
    from .preparing import Engine, Prepared, Vectors
    from .protocols import Embedder, SparseEncoder, Store

_BATCH = 1024
"""Chunks that are embedded and written together; always the same ones, whatever else happens."""
_UNSETTLED_BATCHES = 4
_UNSETTLED_SECONDS = 5.0
"""Most that is written between two flushes, each of a third of a second, and done again after a kill."""
_DELETED_AT_ONCE = 256
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is: `done` of `total` files, now at `source`; chunks written so far."""

    stage: Literal["comparing", "indexing"]
    done: int
    total: int
    source: str
    chunks: int = 0


@dataclass(slots=True)
class _Unsettled:
    """What is written and not yet the truth."""

    entries: list[Entry] = field(default_factory=list)
    replaced: list[Entry] = field(default_factory=list)
    """Their earlier generations."""
    origins: list[Entry] = field(default_factory=list)
    """The documents that some of them were renamed from."""
    batches: int = 0
    since: float = field(default_factory=time.monotonic)

    @property
    def is_due(self) -> bool:
        return self.batches >= _UNSETTLED_BATCHES or time.monotonic() - self.since > _UNSETTLED_SECONDS


@dataclass(slots=True)
class _Tally:
    added: int = 0
    updated: int = 0
    renamed: int = 0
    unchanged: int = 0
    chunks: int = 0
    embedded: int = 0
    settled: set[str] = field(default_factory=set)
    """Documents that are gone and need no removal: renamed, or kept because the renamed file failed."""
    emptied: list[str] = field(default_factory=list)
    """Documents whose files have no text any more."""
    skipped: list[Failure] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


class Indexer:
    """Writes documents into one store and one manifest.

    Args:
        store: Where chunks go.
        manifest: What is said of documents.
        embedder: Texts to dense vectors.
        sparse_encoder: Texts to terms.
        engine: Prepares documents.
        room: Called with the bytes that are about to be written; raises StoreError if they would not fit.
    """

    def __init__(
        self,
        *,
        store: Store,
        manifest: Manifest,
        embedder: Embedder,
        sparse_encoder: SparseEncoder,
        engine: Engine,
        room: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._manifest = manifest
        self._embedder = embedder
        self._sparse_encoder = sparse_encoder
        self._engine = engine
        self._room = room

    def recover(self) -> int:
        """Remove what a run that was cut short has left behind; how many generations that were."""
        # A run may have ended between a change of the manifest and the telling of it.
        self._manifest.tell()
        left = self._manifest.transitions()
        if left:
            known = self._manifest.entries()
            for transition in left:
                current = known.get(transition.document_id)
                self._store.delete_document(
                    transition.document_id, keep_generation=current.generation if current else None
                )
            self._store.flush()
            self._manifest.forget([transition.generation for transition in left])
        return len(left)

    def run(
        self,
        plan: Plan,
        *,
        fail_fast: bool = False,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> IngestReport:
        """Do what the plan says, and report.

        A file that cannot be read is reported and what is indexed of it stays; the run goes on.

        Raises:
            LoadError: A file cannot be read and `fail_fast` is set; those before it are indexed.
            ModelError: The engine embeds with other models than the index is made with.
        """
        started = time.perf_counter()
        self._check_models()
        self.recover()
        tally = _Tally(skipped=list(plan.skipped), failed=list(plan.failed), notices=list(plan.notices))
        self._stop_at_failures(tally, fail_fast=fail_fast)
        total = len(plan.changes) + plan.unchanged + len(plan.failed)
        with self._engine.prepared(plan.changes, self._known) as prepared:
            self._make(plan.changes, prepared, tally, fail_fast=fail_fast, total=total, progress=progress)
        self._remove(tally.emptied)
        self._stop_at_failures(tally, fail_fast=fail_fast)
        doomed = [entry.id for entry in plan.gone if entry.id not in tally.settled]
        self._remove(doomed)
        if plan.stamps:
            self._manifest.restamp(plan.stamps)
        progress(Progress(stage="indexing", done=total, total=total, source="", chunks=tally.chunks))
        return IngestReport(
            added=tally.added,
            updated=tally.updated,
            renamed=tally.renamed,
            unchanged=plan.unchanged + tally.unchanged,
            deleted=len(doomed),
            skipped=tuple(tally.skipped),
            failed=tuple(tally.failed),
            chunks=tally.chunks,
            embedded=tally.embedded,
            seconds=time.perf_counter() - started,
            notices=(*tally.notices, *self._told()),
        )

    def _told(self) -> Sequence[str]:
        return self._store.notices if isinstance(self._store, SharedStore) else ()

    def _check_models(self) -> None:
        own = (self._embedder.fingerprint, self._sparse_encoder.fingerprint)
        if self._engine.models and self._engine.models != own:
            raise ModelError(
                f"The engine embeds with {', '.join(self._engine.models)}, the index with {', '.join(own)}",
                hint="It makes its models from the settings: set embedder.model, and give no embedder to Rag",
            )

    def remove(self, document_ids: Sequence[str]) -> None:
        """Let documents go, whatever their files hold."""
        self.recover()
        self._remove(document_ids)

    @staticmethod
    def _stop_at_failures(tally: _Tally, *, fail_fast: bool) -> None:
        if fail_fast and tally.failed:
            first = tally.failed[0]
            raise LoadError(str(first), hint="Mend or exclude the file, or leave out --fail-fast")

    def _make(
        self,
        changes: Sequence[Change],
        prepared: Iterator[Prepared],
        tally: _Tally,
        *,
        fail_fast: bool,
        total: int,
        progress: Callable[[Progress], None],
    ) -> None:
        """Embed and write documents, batch by batch."""
        waiting: list[Prepared] = []
        unsettled = _Unsettled()
        for number, change in enumerate(changes, start=total - len(changes)):
            now = Progress(
                stage="indexing", done=number, total=total, source=change.file.source, chunks=tally.chunks
            )
            progress(now)
            waiting += self._taken(next(prepared), tally)
            if tally.failed and fail_fast:
                break
            if sum(len(ready.chunks) for ready in waiting) >= _BATCH:
                self._write(waiting, unsettled, tally)
                waiting = []
                if unsettled.is_due:
                    self._settle(unsettled, tally)
                    unsettled = _Unsettled()
        self._write(waiting, unsettled, tally)
        self._settle(unsettled, tally)

    def _taken(self, one: Prepared, tally: _Tally) -> list[Prepared]:
        """The document, if there is something to be written of it; what else came of it is noted."""
        change, source = one.change, one.change.file.source
        tally.notices += one.notices
        if one.failure:
            is_renamed = change.kind == "renamed" and change.twin is not None
            stays = not change.damaged and (change.previous is not None or is_renamed)
            tally.failed.append(Failure(source=source, reason=one.failure, answers_still=stays))
            if change.kind == "renamed" and change.twin is not None:
                tally.settled.add(change.twin.id)  # found under its old name until the new one can be read
        elif one.unchanged:
            tally.unchanged += 1
        elif one.chunks:
            return [one]
        else:
            tally.skipped.append(Failure(source=source, reason="no text in it (a scan, perhaps)"))
            if change.previous is not None and not change.damaged:
                tally.emptied.append(change.previous.id)
        return []

    def _write(self, batch: Sequence[Prepared], unsettled: _Unsettled, tally: _Tally) -> None:
        """Embed and write documents, which nobody sees yet."""
        if not batch:
            return
        entries = [_entry(ready) for ready in batch]
        damaged = [ready.change.previous for ready in batch if ready.change.damaged and ready.change.previous]
        # What is damaged is hidden too, since its points go before the new ones come: they may bear the same
        # ids. The manifest knows the document all the while, so that after a kill it can be mended again.
        self._manifest.begin({entry.generation: entry.id for entry in (*damaged, *entries)})
        for old in damaged:
            self._store.delete_document(old.id)
        if damaged:
            self._store.flush()
        kept = self._kept_vectors(batch)
        ahead = {text: made for ready in batch for text, made in ready.vectors.items()}
        for part in _parts([chunk for ready in batch for chunk in ready.chunks], _BATCH):
            tally.embedded += self._put(part, kept, ahead)
        tally.chunks += sum(entry.chunks for entry in entries)
        unsettled.batches += 1
        unsettled.entries += entries
        for change in (ready.change for ready in batch):
            if change.previous is not None:
                unsettled.replaced.append(change.previous)
            elif change.kind == "renamed" and change.twin is not None:
                unsettled.origins.append(change.twin)

    def _settle(self, unsettled: _Unsettled, tally: _Tally) -> None:
        """Let searches see all of the new and none of the old, in one step."""
        entries, replaced, origins = unsettled.entries, unsettled.replaced, unsettled.origins
        if not entries:
            return
        self._store.flush()
        self._manifest.flip(entries, gone=[origin.id for origin in origins])
        if replaced or origins:
            current = {entry.id: entry.generation for entry in entries}
            for old in (*replaced, *origins):
                self._store.delete_document(old.id, keep_generation=current.get(old.id))
            self._store.flush()
            self._manifest.forget([old.generation for old in (*replaced, *origins)])
        tally.settled.update(origin.id for origin in origins)
        tally.renamed += len(origins)
        tally.updated += len(replaced)
        tally.added += len(entries) - len(replaced) - len(origins)

    def _known(self, change: Change) -> set[str]:
        """Described texts of which the index holds vectors, for one document."""
        return {point.chunk.described for donor in _donors(change) for point in self._points(donor)}

    def _kept_vectors(self, batch: Sequence[Prepared]) -> Mapping[str, Vectors]:
        """Vectors of what the index holds already, by the text that they were made of."""
        donors = {donor.id: donor for ready in batch for donor in _donors(ready.change)}
        kept: dict[str, Vectors] = {}
        for donor in donors.values():
            for point in self._points(donor, with_vectors=True):
                if point.dense is not None and point.sparse is not None:
                    kept[point.chunk.described] = point.dense, point.sparse
        return kept

    def _points(self, donor: Entry, *, with_vectors: bool = False) -> Iterator[StoredPoint]:
        where = {"document_id": donor.id, "generation": donor.generation}
        return self._store.scan(limit=256, where=where, with_vectors=with_vectors)

    def _put(self, chunks: Sequence[Chunk], kept: Mapping[str, Vectors], ahead: Mapping[str, Vectors]) -> int:
        """Write chunks with their vectors; for how many texts the embedder was called, here or ahead."""
        import numpy as np

        # Title and headings say what a passage is about; the passage itself often does not.
        described = [chunk.described for chunk in chunks]
        new = list(dict.fromkeys(text for text in described if text not in kept))
        self._room(sum(map(len, described)) + 4 * self._embedder.dimension * len(chunks))
        vectors = {**ahead, **kept}
        if missing := [text for text in new if text not in ahead]:
            made = self._embedder.embed_documents(missing), self._sparse_encoder.encode_documents(missing)
            vectors.update(zip(missing, zip(*made, strict=True), strict=True))
        self._store.upsert(
            chunks,
            np.stack([vectors[text][0] for text in described]),
            [vectors[text][1] for text in described],
        )
        return len(new)

    def _remove(self, document_ids: Sequence[str]) -> None:
        known = self._manifest.entries() if document_ids else {}
        present = [one for one in document_ids if one in known]
        for part in _parts(present, _DELETED_AT_ONCE):
            self._manifest.flip([], gone=part)
            for document_id in part:
                self._store.delete_document(document_id)
            self._store.flush()
            self._manifest.forget([known[one].generation for one in part])


def _donors(change: Change) -> tuple[Entry, ...]:
    """Documents of the index that may hold some of the same texts."""
    return () if change.damaged else tuple(donor for donor in (change.previous, change.twin) if donor)


def _entry(ready: Prepared) -> Entry:
    change = ready.change
    return Entry(
        id=change.file.document_id,
        source=change.file.source,
        content_hash=change.content_hash,
        generation=ready.chunks[0].generation,
        chunks=len(ready.chunks),
        stamp=change.look.proof,
        metadata=change.file.metadata,
    )


def _parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
