"""The embedded store: Qdrant's Rust engine in process (`qdrant-edge-py`), one folder, one process at a time.

Writes reach its log before they return; `flush` makes them survive a power cut. Knows nothing of documents'
history: that is the manifest's.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from crossrag import filters
from crossrag.filters import AnyOf, Equals, Filter
from crossrag.types import Chunk, Rankings, SparseVector, StoredPoint, Where

from . import points
from .conditions import translate
from .edge_shard import Shard
from .points import DENSE, SPARSE, TENANT, Scored

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BATCH = 512


class EdgeStore:
    """A Qdrant Edge shard with named vectors `dense` (cosine) and `bm25` (IDF by the engine).

    Args:
        path: Folder of the shard; made if `create`, else it must hold one.
        dimension: Length of the dense vectors.
        fingerprint: What the vectors and chunks were made with, part by part. Written beside a new shard,
            compared with an old one; None takes an old one, whatever it was made with.
        create: Whether to make a shard where there is none.
        tenant: Whose chunks are read and written; those of others are not there. Tenants share the
            folder and its fingerprint.

    Raises:
        IndexMissingError: There is none and `create` is False.
        StoreLockedError: Another process has it open.
        FingerprintError: It was built with other parts.
        UsageError: The tenant's name is none.
    """

    def __init__(
        self,
        path: Path,
        *,
        dimension: int,
        fingerprint: Mapping[str, str] | None,
        create: bool = False,
        tenant: str = "",
    ) -> None:
        import qdrant_edge

        self._edge = qdrant_edge
        self._dialect = _EdgeDialect()
        self.tenant = points.check_tenant(tenant)
        self._shard = Shard(path, dimension=dimension, fingerprint=fingerprint, create=create)

    def for_tenant(self, tenant: str) -> Self:
        """The same open shard for somebody else; closing either closes both.

        Raises:
            UsageError: The tenant's name is none.
        """
        other = copy.copy(self)
        other.tenant = points.check_tenant(tenant)
        return other

    def upsert(
        self, chunks: Sequence[Chunk], dense: NDArray[np.float32], sparse: Sequence[SparseVector]
    ) -> None:
        """Write chunks in batches; each batch is in the log when the call returns."""
        edge = self._edge
        given = [
            edge.Point(
                points.point_id(chunk.id, self.tenant),
                {DENSE: row.tolist(), SPARSE: edge.SparseVector(list(terms.indices), list(terms.values))},
                points.payload(chunk, self.tenant),
            )
            for chunk, row, terms in zip(chunks, dense, sparse, strict=True)
        ]
        with self._shard.translated("write to"):
            self._shard.index(points.new_indexes(chunks, self._shard.indexed))
            for start in range(0, len(given), _BATCH):
                self._shard.opened.update(edge.UpdateOperation.upsert_points(given[start : start + _BATCH]))

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
        vectors = points.legs(dense, sparse, self._edge.SparseVector)
        if not vectors:
            return Rankings((), ())
        only = self._only(filters.parse(where), hidden=hidden)
        return points.rankings(partial(self._query, vectors, only), limit)

    def neighbours(self, chunk: Chunk, radius: int) -> list[Chunk]:
        """Of the same document and generation, from `position - radius` to `position + radius`, in order."""
        request = self._edge.ScrollRequest(
            limit=2 * radius + 1, filter=self._only(points.around(chunk, radius)), with_payload=True
        )
        with self._shard.translated("read"):
            records, _ = self._shard.opened.scroll(request)
        return points.in_order(records)

    def scan(
        self,
        *,
        limit: int = 256,
        after: str | None = None,
        where: Where | None = None,
        with_vectors: bool = False,
    ) -> Iterator[StoredPoint]:
        """Scroll in order of id, `limit` points at a time."""
        only = self._only(filters.parse(where))
        start = None if after is None else points.point_id(after, self.tenant)

        def page(count: int, offset: str | None) -> tuple[Sequence[Any], Any]:
            request = self._edge.ScrollRequest(
                limit=count, offset=offset, filter=only, with_payload=True, with_vector=with_vectors
            )
            with self._shard.translated("read"):
                return self._shard.opened.scroll(request)

        yield from points.scrolled(page, limit, start)

    def delete_document(self, document_id: str, *, keep_generation: str | None = None) -> None:
        """Remove by filter, so that also chunks of a run that was cut short go."""
        kept = () if keep_generation is None else (keep_generation,)
        doomed = self._only(Equals("document_id", document_id), hidden=kept)
        with self._shard.translated("write to"):
            self._shard.opened.update(self._edge.UpdateOperation.delete_points_by_filter(doomed))

    def count(self, document_id: str | None = None) -> int:
        """Exact number of chunks."""
        only = self._only(None if document_id is None else Equals("document_id", document_id))
        with self._shard.translated("read"):
            return int(self._shard.opened.count(self._edge.CountRequest(exact=True, filter=only)))

    def flush(self) -> None:
        """Return when everything is on disk."""
        with self._shard.translated("write to"):
            self._shard.opened.flush()

    def close(self) -> None:
        """Flush, let go of the lock; closing twice is fine."""
        self._shard.close()

    def _only(
        self, tree: Filter | None, *, hidden: Collection[str] = (), ids: Collection[str] | None = None
    ) -> Any:
        """The filter of every read and delete: this tenant's points, and of these what is asked for."""
        edge = self._edge
        must = [edge.FieldCondition(key=TENANT, match=edge.MatchValue(self.tenant))]
        if tree is not None:
            must.append(translate(tree, self._dialect))
        if ids is not None:
            must.append(edge.HasIdCondition(set(ids)))
        without = [translate(AnyOf("generation", tuple(sorted(hidden))), self._dialect)] if hidden else None
        return edge.Filter(must=must, must_not=without)

    def _query(
        self, vectors: Mapping[str, Any], only: Any, limit: int, ids: frozenset[str] | None
    ) -> dict[str, list[Scored]]:
        edge = self._edge
        # How rare a term is is counted within the tenant: scores tell nothing of other tenants' documents.
        corpus = edge.SearchParams(idf=edge.IdfParams(corpus=self._only(None)))
        requests = [
            edge.QueryRequest(
                limit=limit,
                query=edge.Query.Nearest(vector, using=leg),
                filter=only if ids is None else self._only(None, ids=ids),
                with_payload=ids is None,
                params=corpus if leg == SPARSE else None,
            )
            for leg, vector in vectors.items()
        ]
        with self._shard.translated("read"):
            answers = self._shard.opened.query_batch(edge.QueryBatchRequest(requests))
        return {
            leg: [Scored(str(point.id), point.score, point.payload or {}) for point in answer]
            for leg, answer in zip(vectors, answers, strict=True)
        }


class _EdgeDialect:
    """Conditions of `qdrant_edge`."""

    def __init__(self) -> None:
        import qdrant_edge

        self._edge = qdrant_edge

    def match(self, path: str, value: str) -> Any:
        return self._edge.FieldCondition(key=path, match=self._edge.MatchValue(value))

    def match_any(self, path: str, values: Sequence[str]) -> Any:
        return self._edge.FieldCondition(key=path, match=self._edge.MatchAny(list(values)))

    def prefix(self, path: str, text: str) -> Any:
        return self._edge.FieldCondition(key=path, match=self._edge.MatchPrefix(text))

    def numbers(self, path: str, bounds: Mapping[str, float]) -> Any:
        return self._edge.FieldCondition(key=path, range=self._edge.RangeFloat(**bounds))

    def dates(self, path: str, bounds: Mapping[str, datetime]) -> Any:
        written = {name: bound.isoformat() for name, bound in bounds.items()}
        return self._edge.FieldCondition(key=path, range=self._edge.RangeDateTime(**written))

    def group(
        self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()
    ) -> Any:
        return self._edge.Filter(
            must=list(must) or None, should=list(should) or None, must_not=list(must_not) or None
        )
