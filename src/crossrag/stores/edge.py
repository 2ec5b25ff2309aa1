"""The embedded store: Qdrant's Rust engine in process (`qdrant-edge-py`), one folder, one process at a time.

Writes reach its log before they return; `flush` makes them survive a power cut. Knows nothing of documents'
history: that is the manifest's.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from crossrag.errors import FingerprintError, IndexMissingError, StoreError, StoreLockedError, UsageError
from crossrag.types import Chunk, Hit, Rankings, SparseVector, StoredPoint, Where

if TYPE_CHECKING:
    import numpy as np
    import qdrant_edge
    from numpy.typing import NDArray

DENSE, SPARSE = "dense", "bm25"
_FILTER_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}(\.[A-Za-z_][A-Za-z0-9_]{0,63}){0,4}")
_BATCH = 512


class EdgeStore:
    """A Qdrant Edge shard with named vectors `dense` (cosine) and `bm25` (IDF by the engine).

    Args:
        path: Folder of the shard; made if `create`, else it must hold one.
        dimension: Length of the dense vectors.
        fingerprint: What the vectors and chunks were made with, part by part. Written beside a new shard,
            compared with an old one.
        create: Whether to make a shard where there is none.

    Raises:
        IndexMissingError: There is none and `create` is False.
        StoreLockedError: Another process has it open.
        FingerprintError: It was built with other parts.
    """

    def __init__(
        self, path: Path, *, dimension: int, fingerprint: Mapping[str, str], create: bool = False
    ) -> None:
        import qdrant_edge

        self._edge = qdrant_edge
        self._path = path
        self._shard: qdrant_edge.EdgeShard | None = None
        shard, record = path / "shard", path / "fingerprint.json"
        if not (create or record.is_file()):
            raise IndexMissingError(
                f"There is no index at {path}", hint="Make one with `crossrag ingest PATH`"
            )
        with self._translated("open"):
            if record.is_file():
                # The lock first: whoever goes on after a FingerprintError must not meet another process.
                self._shard = qdrant_edge.EdgeShard.load(str(shard))
            else:
                shard.mkdir(parents=True, exist_ok=True)
                self._shard = self._created(shard, dimension)
        try:
            self._claim(record, fingerprint)
        except BaseException:
            self.close()
            raise

    def _claim(self, record: Path, fingerprint: Mapping[str, str]) -> None:
        """Compare or write the fingerprint, and say who holds the index."""
        if record.is_file():
            _check_fingerprint(record, fingerprint, self._path)
        with self._translated("write to"):
            if not record.is_file():
                # Last, and in one step: a shard without its fingerprint is one whose creation was cut short.
                _write_whole(record, json.dumps(dict(fingerprint), indent=1, sort_keys=True))
            holder = {"pid": os.getpid(), "command": Path(sys.argv[0]).name}
            _write_whole(self._path / "holder.json", json.dumps(holder))

    def upsert(
        self, chunks: Sequence[Chunk], dense: NDArray[np.float32], sparse: Sequence[SparseVector]
    ) -> None:
        """Write chunks in batches; each batch is in the log when the call returns."""
        edge = self._edge
        points = [
            edge.Point(
                chunk.id,
                {DENSE: row.tolist(), SPARSE: edge.SparseVector(list(terms.indices), list(terms.values))},
                chunk.payload(),
            )
            for chunk, row, terms in zip(chunks, dense, sparse, strict=True)
        ]
        with self._translated("write to"):
            for start in range(0, len(points), _BATCH):
                self._open.update(edge.UpdateOperation.upsert_points(points[start : start + _BATCH]))

    def search(
        self,
        dense: NDArray[np.float32] | None,
        sparse: SparseVector | None,
        *,
        limit: int,
        where: Where | None = None,
        hidden: Collection[str] = (),
    ) -> Rankings:
        """Both legs in one `query_batch`; a second one gives each hit the score of the leg that missed it."""
        vectors: dict[str, Any] = {}
        if dense is not None:
            vectors[DENSE] = dense.tolist()
        if sparse is not None and sparse.indices:
            vectors[SPARSE] = self._edge.SparseVector(list(sparse.indices), list(sparse.values))
        found = self._query(vectors, limit, self._filter(where, hidden), with_payload=True)
        chunks = {
            str(point.id): Chunk.from_payload(str(point.id), point.payload or {})
            for points in found.values()
            for point in points
        }
        scores = {leg: {str(point.id): point.score for point in points} for leg, points in found.items()}
        self._complete(vectors, scores, chunks)
        rankings = {
            leg: tuple(
                Hit(
                    chunks[str(point.id)],
                    scores.get(DENSE, {}).get(str(point.id), 0.0),
                    scores.get(SPARSE, {}).get(str(point.id), 0.0),
                )
                for point in sorted(points, key=lambda point: (-point.score, *chunks[str(point.id)].place))
            )
            for leg, points in found.items()
        }
        return Rankings(rankings.get(DENSE, ()), rankings.get(SPARSE, ()))

    def neighbours(self, chunk: Chunk, radius: int) -> list[Chunk]:
        """Of the same document and generation, from `position - radius` to `position + radius`, in order."""
        edge = self._edge
        around = edge.RangeFloat(gte=chunk.position - radius, lte=chunk.position + radius)
        same = {"document_id": chunk.document_id, "generation": chunk.generation}
        conditions = [
            *_conditions(edge, same),
            edge.FieldCondition(key="metadata.chunk_id", range=around),
        ]
        with self._translated("read"):
            records, _ = self._open.scroll(
                edge.ScrollRequest(
                    limit=2 * radius + 1, filter=edge.Filter(must=conditions), with_payload=True
                )
            )
        found = [Chunk.from_payload(str(record.id), record.payload or {}) for record in records]
        return sorted(found, key=lambda neighbour: neighbour.position)

    def scan(
        self,
        *,
        limit: int = 256,
        after: str | None = None,
        where: Where | None = None,
        with_vectors: bool = False,
    ) -> Iterator[StoredPoint]:
        """Scroll in order of id, `limit` points at a time."""
        only, offset, follows = self._filter(where), after, True
        while follows:
            request = self._edge.ScrollRequest(
                # The offset itself is given again: one more, and leave it out.
                limit=limit + 1,
                offset=offset,
                filter=only,
                with_payload=True,
                with_vector=with_vectors,
            )
            with self._translated("read"):
                records, following = self._open.scroll(request)
            page = [record for record in records if str(record.id) != offset][:limit]
            yield from map(_stored_point, page)
            follows = following is not None and bool(page)
            offset = str(page[-1].id) if page else None

    def delete_document(self, document_id: str, *, keep_generation: str | None = None) -> None:
        """Remove by filter, so that also chunks of a run that was cut short go."""
        edge = self._edge
        kept = None if keep_generation is None else _conditions(edge, {"generation": keep_generation})
        doomed = edge.Filter(must=_conditions(edge, {"document_id": document_id}), must_not=kept)
        with self._translated("write to"):
            self._open.update(edge.UpdateOperation.delete_points_by_filter(doomed))

    def count(self, document_id: str | None = None) -> int:
        """Exact number of chunks."""
        only = self._filter(None if document_id is None else {"document_id": document_id})
        with self._translated("read"):
            return int(self._open.count(self._edge.CountRequest(exact=True, filter=only)))

    def flush(self) -> None:
        """Return when everything is on disk."""
        with self._translated("write to"):
            self._open.flush()

    def close(self) -> None:
        """Flush, let go of the lock; closing twice is fine."""
        if self._shard is not None:
            with self._translated("close"):
                self._shard.close()
            self._shard = None
            (self._path / "holder.json").unlink(missing_ok=True)

    def _filter(self, where: Where | None, hidden: Collection[str] = ()) -> Any:
        """None where everything passes."""
        must = _conditions(self._edge, where or {})
        must_not = _conditions(self._edge, {"generation": sorted(hidden)}) if hidden else []
        return self._edge.Filter(must=must, must_not=must_not) if must or must_not else None

    @property
    def _open(self) -> qdrant_edge.EdgeShard:
        if self._shard is None:
            raise StoreError("The index was closed", hint="Open it again with Rag.open")
        return self._shard

    def _query(
        self, vectors: Mapping[str, Any], limit: int, only: Any, *, with_payload: bool
    ) -> dict[str, list[qdrant_edge.ScoredPoint]]:
        edge = self._edge
        if not vectors:
            return {}
        requests = [
            edge.QueryRequest(
                limit=limit,
                query=edge.Query.Nearest(vector, using=leg),
                filter=only,
                with_payload=with_payload,
            )
            for leg, vector in vectors.items()
        ]
        with self._translated("read"):
            return dict(zip(vectors, self._open.query_batch(edge.QueryBatchRequest(requests)), strict=True))

    def _complete(
        self, vectors: Mapping[str, Any], scores: dict[str, dict[str, float]], chunks: Mapping[str, Chunk]
    ) -> None:
        missing: set[int | UUID | str] = {
            point for leg in vectors for point in chunks if point not in scores[leg]
        }
        if missing:
            only = self._edge.Filter(must=[self._edge.HasIdCondition(set(missing))])
            found = self._query(vectors, len(missing), only, with_payload=False)
            for leg, points in found.items():
                for point in points:
                    scores[leg].setdefault(str(point.id), point.score)

    def _created(self, shard: Path, dimension: int) -> qdrant_edge.EdgeShard:
        edge = self._edge
        for leftover in shard.iterdir():
            raise StoreError(
                f"{shard} holds {leftover.name} but no index that was made to the end",
                hint=f"If a first `crossrag ingest` was interrupted, delete {shard} and run it again",
            )
        config = edge.EdgeConfig(
            vectors={DENSE: edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine)},
            sparse_vectors={SPARSE: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        )
        made: qdrant_edge.EdgeShard = edge.EdgeShard.create(str(shard), config)
        for key in ("document_id", "source", "generation", "chunk_id"):
            schema = getattr(edge.PayloadSchemaType, "Integer" if key == "chunk_id" else "Keyword")
            made.update(edge.UpdateOperation.create_field_index(f"metadata.{key}", schema))
        return made

    @contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        """Qdrant Edge raises bare Exception: the text is all there is to tell them apart."""
        try:
            yield
        except (StoreError, UsageError):
            raise
        except Exception as error:
            if "WouldBlock" in str(error):
                raise StoreLockedError(
                    f"The index at {self._path} is open in another process{_holder(self._path)}",
                    hint="Wait until it ends or stop it; several users at once need a Qdrant server",
                ) from None
            raise StoreError(
                f"Could not {verb} the index at {self._path}: {str(error)[:300]}",
                hint="Check free space and permissions there, then run the same command again",
            ) from error


def _conditions(edge: Any, where: Where) -> list[Any]:
    conditions = []
    for key, wanted in where.items():
        if not _FILTER_KEY.fullmatch(key):
            raise UsageError(
                f"{key!r} cannot be a filter key", hint="Use letters, digits, _ and dots: source, team.name"
            )
        match = edge.MatchValue(wanted) if isinstance(wanted, (str, int)) else edge.MatchAny(list(wanted))
        conditions.append(edge.FieldCondition(key=f"metadata.{key}", match=match))
    return conditions


def _stored_point(record: qdrant_edge.Record) -> StoredPoint:
    import numpy as np

    chunk = Chunk.from_payload(str(record.id), record.payload or {})
    vectors: Any = record.vector
    if not vectors:
        return StoredPoint(chunk)
    sparse = vectors.get(SPARSE)
    terms = sorted(zip(sparse.indices, sparse.values, strict=True)) if sparse is not None else []
    return StoredPoint(
        chunk,
        np.asarray(vectors[DENSE], np.float32),
        SparseVector(tuple(index for index, _ in terms), tuple(value for _, value in terms)),
    )


def _check_fingerprint(record: Path, expected: Mapping[str, str], path: Path) -> None:
    try:
        stored = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stored = None
    if not isinstance(stored, dict):
        raise StoreError(
            f"{record} is damaged", hint="Build the index anew with `crossrag ingest --rebuild PATH`"
        )
    differing = sorted(part for part in {*stored, *expected} if stored.get(part) != expected.get(part))
    if differing:
        changes = "; ".join(f"{part}: {stored.get(part)} -> {expected.get(part)}" for part in differing)
        raise FingerprintError(
            f"The index at {path} was built with other settings ({changes})",
            hint="Restore the setting, or build the index anew with `crossrag ingest --rebuild PATH`",
        )


def _write_whole(path: Path, text: str) -> None:
    """Write so that a reader sees the old file or the new one, never half of it."""
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _holder(path: Path) -> str:
    try:
        holder = json.loads((path / "holder.json").read_text(encoding="utf-8"))
        return f" (process {holder['pid']}, {holder['command']})"
    except (OSError, ValueError, KeyError):
        return ""
