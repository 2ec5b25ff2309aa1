"""A collection that something else made, such as LangChain's `QdrantVectorStore`, read as it stands.

Every point with a text is a passage; nothing is written. What its vectors were made with, a collection does
not say: the caller does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Collection as Names
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Self

from qdrant_client import QdrantClient, models

from crossrag import filters
from crossrag.errors import ConfigError, FingerprintError, IndexMissingError, StoreError, UsageError
from crossrag.types import Chunk, Rankings, SparseVector, StoredPoint, Where

from . import points
from .conditions import translate
from .patience import Patience
from .plain import PlainDialect
from .points import DENSE, SPARSE, Scored
from .qdrant_connection import Connection, MissingError, Server
from .qdrant_ledger import NOBODY

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crossrag.filters import Filter


class AdoptedStore:
    """Reads a collection by its own vectors; `document_id` of a passage is the id of its point.

    Args:
        url: `http://HOST:6333` or `https://…`.
        collection: Its name or alias.
        dimension: Of the embedder that its vectors were made with.
        vector: Name of the dense vector; None for the only one there is.
        sparse: Name of a sparse vector that the caller's encoder makes; None for none.
        text: Key of the payload that holds the text.
        metadata: Key of the payload that holds the metadata; empty where it is the payload itself.
        clean: Repairs texts as they are when they are loaded.
        api_key: None for QDRANT_API_KEY.
        grpc: Whether to speak gRPC, at `grpc_port`.
        grpc_port: Usually 6334.
        timeout: Seconds for one request.
        deadline: Seconds after which nothing is tried again.
        max_retries: Further tries.
        client: In place of one made for the url.
        other: `fingerprint`, `create` and `tenant`, as other stores take them; and shapes of new collections.

    Raises:
        IndexMissingError: There is no such collection.
        FingerprintError: Its vectors are of another length.
        ConfigError: Its vectors are not compared by cosine, or there is no vector of that name.
        UsageError: A tenant is given.
        StoreError: The server cannot be reached, or refuses.
    """

    tenant = ""

    def __init__(  # noqa: PLR0913 - where a collection is, and how it is to be read
        self,
        url: str,
        *,
        collection: str,
        dimension: int,
        vector: str | None = None,
        sparse: str | None = None,
        text: str = "page_content",
        metadata: str = "metadata",
        clean: Callable[[str], str] = str,
        client: QdrantClient | None = None,
        **other: Any,
    ) -> None:
        if other.get("tenant"):
            raise UsageError("An adopted collection has no tenants", hint="Leave index.tenant out")
        patience = Patience(retries=other.get("max_retries", 4), deadline=other.get("deadline", 120.0))
        own = {key: other[key] for key in ("api_key", "grpc", "grpc_port", "timeout") if key in other}
        self._name, self._text, self._metadata, self._clean = collection, text, metadata, clean
        self._dialect = _ById(metadata)
        self._connection: Connection | None = Connection(Server(url=url, patience=patience, **own), client)
        try:
            self._names = self._checked(dimension, vector, sparse)
        except BaseException:
            self.close()
            raise

    def _checked(self, dimension: int, vector: str | None, sparse: str | None) -> dict[str, str]:
        """Leg -> name of its vector."""
        try:
            found = self._opened.call("open", lambda client: client.get_collection(self._name))
        except MissingError:
            raise IndexMissingError(
                f"There is no collection {self._name} at {self._opened.server.url}", hint="Check its name"
            ) from None
        self._with_ledgers = "crossrag" in (found.config.metadata or {})
        there = found.config.params.vectors or {}
        dense = there if isinstance(there, dict) else {"": there}
        name = next(iter(dense)) if vector is None and len(dense) == 1 else vector
        if name is None or name not in dense:
            raise ConfigError(
                f"The collection {self._name} has the dense vectors {sorted(dense)}",
                hint="Name one of them: adopt.vector",
            )
        if sparse is not None and sparse not in (known := found.config.params.sparse_vectors or {}):
            raise ConfigError(
                f"The collection {self._name} has the sparse vectors {sorted(known)}",
                hint="Name one of them, or none: adopt.sparse",
            )
        _check_vector(self._name, dense[name], dimension)
        return {DENSE: name} | ({} if sparse is None else {SPARSE: sparse})

    def search(
        self,
        dense: NDArray[np.float32] | None,
        sparse: SparseVector | None,
        *,
        limit: int,
        where: Where | None = None,
        hidden: Names[str] = (),  # noqa: ARG002 - nothing here is in transition
    ) -> Rankings:
        """As `Store.search`, with the legs that the collection has."""
        lexical = SPARSE in self._names
        vectors = points.legs(
            dense,
            sparse if lexical else None,
            lambda indices, values: models.SparseVector(indices=indices, values=values),
        )
        if not vectors:
            return Rankings((), (), lexical=lexical)
        found = points.rankings(partial(self._query, vectors, filters.parse(where)), limit, read=self._chunk)
        return Rankings(found.dense, found.sparse, lexical=lexical)

    def neighbours(self, chunk: Chunk, radius: int) -> list[Chunk]:  # noqa: ARG002 - as other stores'
        """The passage alone: how passages follow each other, a collection does not say."""
        return [chunk]

    def scan(
        self,
        *,
        limit: int = 256,
        after: str | None = None,
        where: Where | None = None,
        with_vectors: bool = False,
    ) -> Iterator[StoredPoint]:
        """Every passage, in order of id.

        Raises:
            UsageError: Vectors are asked for: they are of another making, and go into no other index.
        """
        if with_vectors:
            self._refuse()
        only, offset = self._only(filters.parse(where)), None if after is None else _point_id(after)
        while True:
            records, offset = self._opened.call(
                "read", partial(_scrolled, self._name, only, limit + (after is not None), offset)
            )
            for record in records:
                if str(record.id) != after:
                    yield StoredPoint(self._chunk(str(record.id), record.payload or {}))
            if offset is None:
                return
            after = None

    def count(self, document_id: str | None = None) -> int:
        """Exact number of points."""
        only = self._only(None if document_id is None else filters.Equals("document_id", document_id))
        return self._opened.call(
            "read", lambda client: client.count(self._name, count_filter=only, exact=True)
        ).count

    def for_tenant(self, tenant: str) -> Self:
        """This one, for the tenant without a name.

        Raises:
            UsageError: For any other.
        """
        if tenant:
            raise UsageError("An adopted collection has no tenants", hint="Leave index.tenant out")
        return self

    def upsert(
        self,
        chunks: Sequence[Chunk],  # noqa: ARG002 - as other stores'
        dense: NDArray[np.float32],  # noqa: ARG002
        sparse: Sequence[SparseVector],  # noqa: ARG002
    ) -> None:
        """Refused."""
        self._refuse()

    def delete_document(self, document_id: str, *, keep_generation: str | None = None) -> None:  # noqa: ARG002
        """Refused."""
        self._refuse()

    def flush(self) -> None:
        """Nothing was written."""

    def close(self) -> None:
        """Closing twice is fine."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _refuse(self) -> NoReturn:
        raise UsageError(
            f"The collection {self._name} was adopted: it is read, never written or copied",
            hint="Write with what made it, or make an index of crossrag's with `crossrag ingest`",
        )

    @property
    def _opened(self) -> Connection:
        if self._connection is None:
            raise StoreError("The collection was closed", hint="Open it again")
        return self._connection

    def _only(self, tree: Filter | None, *, ids: Names[str] | None = None) -> models.Filter | None:
        must: list[Any] = [] if tree is None else [translate(tree, self._dialect)]
        if ids is not None:
            must.append(models.HasIdCondition(has_id=[_point_id(one) for one in sorted(ids)]))
        if not self._with_ledgers:
            return models.Filter(must=must) if must else None
        # Crossrag's own collection, read as another's: its ledgers are no passages.
        ledgers = models.FieldCondition(key=points.TENANT, match=models.MatchValue(value=NOBODY))
        return models.Filter(must=must or None, must_not=[ledgers])

    def _query(
        self, vectors: Mapping[str, Any], tree: Filter | None, limit: int, ids: frozenset[str] | None
    ) -> dict[str, list[Scored]]:
        only = self._only(tree) if ids is None else self._only(None, ids=ids)
        requests = [
            models.QueryRequest(
                query=vector,
                using=self._names[leg] or None,
                filter=only,
                limit=limit,
                with_payload=ids is None,
            )
            for leg, vector in vectors.items()
        ]
        answers = self._opened.call("read", lambda client: client.query_batch_points(self._name, requests))
        return {
            leg: [Scored(str(point.id), point.score, point.payload or {}) for point in answer.points]
            for leg, answer in zip(vectors, answers, strict=True)
        }

    def _chunk(self, identity: str, payload: Mapping[str, Any]) -> Chunk:
        said = payload.get(self._text)
        if not isinstance(said, str):
            raise StoreError(
                f"Point {identity} of {self._name} has no text under {self._text!r}",
                hint=f"Its keys are {sorted(map(str, payload))}: set adopt.text",
            )
        text = self._clean(said)
        above = payload.get(self._metadata) if self._metadata else payload
        metadata = {str(key): value for key, value in (above or {}).items() if key != self._text}
        start, position = (_whole(metadata.get(key)) for key in ("start_index", "chunk_id"))
        title, source = metadata.get("title"), metadata.get("source")
        return Chunk(
            id=identity,
            document_id=identity,
            source=self._clean(str(source)) if source else identity,
            text=text,
            start=start,
            end=start + len(text),
            position=position,
            title=self._clean(title) if isinstance(title, str) else "",
            metadata=metadata,
        )


class _ById(PlainDialect):
    """`document_id` is the id of a point; what has no `chunk_id` counts as 0, as a passage shows it."""

    def match(self, path: str, value: str) -> Any:
        if path == "metadata.document_id":
            return models.HasIdCondition(has_id=[_point_id(value)])
        return super().match(path, value)

    def match_any(self, path: str, values: Any) -> Any:
        if path == "metadata.document_id":
            return models.HasIdCondition(has_id=[_point_id(value) for value in values])
        return super().match_any(path, values)

    def numbers(self, path: str, bounds: Mapping[str, float]) -> Any:
        wanted = super().numbers(path, bounds)
        if path != "metadata.chunk_id" or not _holds_zero(bounds):
            return wanted
        return models.Filter(
            should=[wanted, models.IsEmptyCondition(is_empty=models.PayloadField(key=wanted.key))]
        )


def _holds_zero(bounds: Mapping[str, float]) -> bool:
    above = bounds.get("gt", -1) < 0 and bounds.get("gte", 0) <= 0
    return above and bounds.get("lt", 1) > 0 and bounds.get("lte", 0) >= 0


def _check_vector(name: str, vector: Any, dimension: int) -> None:
    if vector.multivector_config is not None or vector.distance != models.Distance.COSINE:
        kind = "several vectors a point" if vector.multivector_config else str(vector.distance.value)
        raise ConfigError(
            f"The vectors of {name} are compared by {kind}",
            hint="Only cosine means something to a reranker: adopt a collection made with it",
        )
    if vector.size != dimension:
        raise FingerprintError(
            f"The vectors of {name} have {vector.size} numbers, the embedder's {dimension}",
            hint="Set embedder.model to the model that they were made with",
        )


def _scrolled(
    name: str, only: models.Filter | None, limit: int, offset: Any, client: QdrantClient
) -> tuple[list[models.Record], Any]:
    return client.scroll(name, scroll_filter=only, limit=limit, offset=offset, with_payload=True)


def _point_id(identity: str) -> int | str:
    return int(identity) if identity.isdecimal() and identity.isascii() else identity


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
