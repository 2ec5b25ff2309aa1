"""The store on a Qdrant server, in Qdrant Cloud or on a cluster (`qdrant-client`): same points, same ranking.

What the name of the collection means is looked up at opening; IndexMissingError says that it was replaced.
A write has been applied when the call returns. A time-out does not say whether it was, and is tried again:
ids are the chunks' own, so nothing is there twice.
"""

from __future__ import annotations

import copy
from collections.abc import Collection as Names
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self
from uuid import uuid4

from qdrant_client import QdrantClient, models

from crossrag import filters
from crossrag.errors import IndexMissingError, StoreError
from crossrag.filters import AnyOf, Equals, Filter
from crossrag.types import Chunk, Rankings, SparseVector, StoredPoint, View, Where

from . import points
from .conditions import translate
from .patience import Patience
from .points import SPARSE, TENANT, Scored
from .qdrant_collection import Collection, Found, Quantization, Shape
from .qdrant_connection import Connection, Server
from .qdrant_indexes import Indexes
from .qdrant_ledger import NOBODY, Ledger
from .qdrant_points import ClientDialect, batches
from .qdrant_shards import TenantShards

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ReadConsistency = Literal["one", "majority", "quorum", "all"]
_CONSISTENCY = {"one": None} | {str(kind): kind for kind in models.ReadConsistencyType}


class QdrantStore:
    """A collection with named vectors `dense` (cosine) and `bm25` (IDF by the server).

    Args:
        url: `http://HOST:6333` or `https://…`.
        dimension: Length of the dense vectors.
        fingerprint: What the vectors and chunks were made with; kept in the collection's metadata. None takes
            one that is there, whatever it was made with.
        collection: Its name, which becomes an alias of `NAME-1`.
        create: Whether to make one where there is none.
        beside: Whether to open another one than the name means, which nobody sees until `take_over`.
        identity: Of a collection that is made, and of the one beside; a random one where it is empty.
        tenant: Whose chunks are read and written; those of others are not there.
        api_key: None for QDRANT_API_KEY.
        grpc: Whether to speak gRPC, at `grpc_port`.
        grpc_port: Usually 6334.
        timeout: Seconds for one request.
        deadline: Seconds after which nothing is tried again.
        max_retries: Further tries.
        shard_number: Of a new collection; None is one, on which alone scores are those of other stores.
        replication_factor: Copies of each shard; None leaves it to the server, and so below.
        write_consistency_factor: Copies that must have a write before it counts.
        read_consistency: Copies that a read asks: `one`, `majority`, `quorum` or `all`.
        tenant_shards: Whether a new collection has shards of its own for each tenant.
        quantization: `none`, `scalar` or `binary`.
        on_disk: Whether vectors are read from disk rather than held in memory.
        client: In place of one made for the url.

    Raises:
        IndexMissingError: There is none and `create` is False.
        FingerprintError: It was made with other parts.
        StoreError: The server cannot be reached, or refuses.
        ConfigError: The address or the name is none.
        UsageError: The tenant's name is none.
    """

    def __init__(  # noqa: PLR0913 - a server's settings are its arguments
        self,
        url: str,
        *,
        dimension: int,
        fingerprint: Mapping[str, str] | None,
        collection: str = "crossrag",
        create: bool = False,
        beside: bool = False,
        identity: str = "",
        tenant: str = "",
        api_key: str | None = None,
        grpc: bool = False,
        grpc_port: int = 6334,
        timeout: float = 30.0,
        deadline: float = 120.0,
        max_retries: int = 4,
        shard_number: int | None = None,
        replication_factor: int | None = None,
        write_consistency_factor: int | None = None,
        read_consistency: ReadConsistency = "one",
        tenant_shards: bool = False,
        quantization: Quantization = "none",
        on_disk: bool = False,
        client: QdrantClient | None = None,
    ) -> None:
        self.tenant = points.check_tenant(tenant)
        self._dialect = ClientDialect()
        server = Server(
            url=url,
            api_key=api_key,
            grpc=grpc,
            grpc_port=grpc_port,
            timeout=timeout,
            patience=Patience(retries=max_retries, deadline=deadline),
        )
        shape = Shape(
            dimension=dimension,
            shard_number=shard_number,
            replication_factor=replication_factor,
            write_consistency_factor=write_consistency_factor,
            quantization=quantization,
            on_disk=on_disk,
            tenant_shards=tenant_shards,
        )
        self._consistency = _CONSISTENCY[read_consistency]
        self._connection: Connection | None = Connection(server, client)
        try:
            self._collection = Collection(
                self._opened,
                collection,
                shape=shape,
                fingerprint=fingerprint,
                identity=identity or uuid4().hex,
            )
            self._attend(self._found(create=create, beside=beside))
        except BaseException:
            self.close()
            raise

    def _attend(self, found: Found) -> None:
        # Its own name: what the alias means may change between two requests.
        self._name, self._identity = found.name, found.identity
        self._indexes = Indexes(self._collection, found)
        self._shards = TenantShards(lambda: self._opened, self._name, custom=found.custom)
        self._ledger = Ledger(lambda: self._opened, self._name, self._shards, self._consistency)

    def _found(self, *, create: bool, beside: bool) -> Found:
        if beside:
            return self._collection.open_beside(create=create)
        try:
            return self._collection.open()
        except IndexMissingError:
            if not create:
                raise
            self._collection.create()
            return self._collection.open()

    @property
    def identity(self) -> str:
        """Of the collection; an empty one is of an earlier crossrag."""
        return self._identity

    def for_tenant(self, tenant: str) -> Self:
        """The same connection for somebody else; closing either closes the client of both.

        Raises:
            UsageError: The tenant's name is none.
        """
        other = copy.copy(self)
        other.tenant = points.check_tenant(tenant)
        return other

    def take_over(self) -> None:
        """From now on, in one step, the name means this collection; what it takes the place of is deleted."""
        self._collection.point_to(self._name)

    def drop(self) -> None:
        """Delete the collection, of all tenants."""
        self._collection.drop()

    def upsert(
        self, chunks: Sequence[Chunk], dense: NDArray[np.float32], sparse: Sequence[SparseVector]
    ) -> None:
        """Write chunks in batches below 5 MB; each has been applied when the next one is sent."""
        self._indexes.make(chunks)
        for batch in batches(chunks, dense, sparse, self.tenant):
            self._write(batch)

    def search(
        self,
        dense: NDArray[np.float32] | None,
        sparse: SparseVector | None,
        *,
        limit: int,
        where: Where | None = None,
        hidden: Names[str] = (),
    ) -> Rankings:
        """Both legs in one request; a second one gives each hit the score of the leg that missed it."""
        vectors = points.legs(
            dense, sparse, lambda indices, values: models.SparseVector(indices=indices, values=values)
        )
        if not vectors:
            return Rankings((), ())
        only = self._only(filters.parse(where), hidden=hidden)
        return points.rankings(partial(self._query, vectors, only), limit)

    def neighbours(self, chunk: Chunk, radius: int) -> list[Chunk]:
        """Of the same document and generation, from `position - radius` to `position + radius`, in order."""
        around, shard = self._only(points.around(chunk, radius)), self._shard
        records, _ = self._opened.call(
            "read",
            lambda client: client.scroll(
                self._name,
                scroll_filter=around,
                limit=2 * radius + 1,
                with_payload=True,
                consistency=self._consistency,
                shard_key_selector=shard,
            ),
        )
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
        yield from points.scrolled(partial(self._page, only, with_vectors=with_vectors), limit, start)

    def delete_document(self, document_id: str, *, keep_generation: str | None = None) -> None:
        """Remove by filter, so that also chunks of a run that was cut short go."""
        shard = self._shard
        kept = () if keep_generation is None else (keep_generation,)
        doomed = models.FilterSelector(filter=self._only(Equals("document_id", document_id), hidden=kept))
        self._opened.call_long(
            "write to",
            lambda client: client.delete(self._name, doomed, wait=True, shard_key_selector=shard),
        )

    def count(self, document_id: str | None = None) -> int:
        """Exact number of chunks."""
        shard = self._shard
        only = self._only(None if document_id is None else Equals("document_id", document_id))
        return self._opened.call(
            "read",
            lambda client: client.count(self._name, count_filter=only, exact=True, shard_key_selector=shard),
        ).count

    @property
    def notices(self) -> tuple[str, ...]:
        """Indexes that could not be had."""
        return self._indexes.notices

    def view(self) -> View:
        """What this tenant's writer told last; one request, by id."""
        return self._ledger.read(self.tenant)

    def tell(self, view: View) -> None:
        """One request, which exchanges one point."""
        self._ledger.write(self.tenant, view)

    def others(self) -> int:
        """Of all other tenants, in whatever shards; points of an earlier crossrag have none."""
        own = self._dialect.match_any(TENANT, (self.tenant, NOBODY))
        nobody = models.IsEmptyCondition(is_empty=models.PayloadField(key=TENANT))
        foreign = models.Filter(must_not=[own, nobody])
        return self._opened.call(
            "read", lambda client: client.count(self._name, count_filter=foreign, exact=True)
        ).count

    def flush(self) -> None:
        """Nothing to do: every write was applied and logged when it returned.

        The server writes its log to disk by itself, every few seconds; a power cut of the server can cost
        what came after.
        """

    def close(self) -> None:
        """Closing twice is fine."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def _shard(self) -> str | None:
        """Where this tenant's points are, in a collection that keeps tenants in shards of their own."""
        return self._shards.key(self.tenant)

    @property
    def _opened(self) -> Connection:
        if self._connection is None:
            raise StoreError("The index was closed", hint="Open it again with Rag.open")
        return self._connection

    def _write(self, batch: list[models.PointStruct]) -> None:
        shard = self._shard
        self._opened.call_long(
            "write to",
            lambda client: client.upsert(self._name, batch, wait=True, shard_key_selector=shard),
        )

    def _page(
        self, only: models.Filter, count: int, offset: str | None, *, with_vectors: bool
    ) -> tuple[list[models.Record], Any]:
        shard = self._shard
        # With their vectors points are read to be written again, by what may take its time.
        call = self._opened.call_long if with_vectors else self._opened.call
        return call(
            "read",
            lambda client: client.scroll(
                self._name,
                scroll_filter=only,
                limit=count,
                offset=offset,
                with_payload=True,
                with_vectors=with_vectors,
                consistency=self._consistency,
                shard_key_selector=shard,
            ),
        )

    def _only(
        self, tree: Filter | None, *, hidden: Names[str] = (), ids: Names[str] | None = None
    ) -> models.Filter:
        """The filter of every read and delete: this tenant's points, and of these what is asked for."""
        must: list[Any] = [self._dialect.match(TENANT, self.tenant)]
        if tree is not None:
            must.append(translate(tree, self._indexes.dialect()))
        if ids is not None:
            must.append(models.HasIdCondition(has_id=sorted(ids)))
        without = [translate(AnyOf("generation", tuple(sorted(hidden))), self._dialect)] if hidden else None
        return models.Filter(must=must, must_not=without)

    def _query(
        self, vectors: Mapping[str, Any], only: models.Filter, limit: int, ids: frozenset[str] | None
    ) -> dict[str, list[Scored]]:
        shard = self._shard
        # How rare a term is is counted within the tenant: scores tell nothing of other tenants' documents.
        corpus = models.SearchParams(idf=models.IdfCorpusParams(corpus=self._only(None)))
        requests = [
            models.QueryRequest(
                query=vector,
                using=leg,
                filter=only if ids is None else self._only(None, ids=ids),
                limit=limit,
                with_payload=ids is None,
                params=corpus if leg == SPARSE else None,
                shard_key=shard,
            )
            for leg, vector in vectors.items()
        ]
        answers = self._opened.call(
            "read",
            lambda client: client.query_batch_points(self._name, requests, consistency=self._consistency),
        )
        return {
            leg: [Scored(str(point.id), point.score, point.payload or {}) for point in answer.points]
            for leg, answer in zip(vectors, answers, strict=True)
        }
