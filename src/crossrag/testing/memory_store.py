"""A store in a dictionary: exact, plain, and the reference for every other one's filters and rankings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from crossrag import filters
from crossrag.filters import And, AnyOf, DateRange, Equals, Filter, Not, Or, Prefix, Range
from crossrag.types import Chunk, Hit, Rankings, SparseVector, StoredPoint, Where

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Row = tuple[Chunk, "NDArray[np.float32]", SparseVector]


class MemoryStore:
    """Exact search over a dictionary; one for each tenant."""

    def __init__(self, *, tenant: str = "") -> None:
        self.tenant = tenant
        self._tenants: dict[str, dict[str, Row]] = {}

    def for_tenant(self, tenant: str) -> MemoryStore:
        """The same memory for somebody else."""
        other = MemoryStore(tenant=tenant)
        other._tenants = self._tenants
        return other

    @property
    def _rows(self) -> dict[str, Row]:
        return self._tenants.setdefault(self.tenant, {})

    def upsert(
        self, chunks: Sequence[Chunk], dense: NDArray[np.float32], sparse: Sequence[SparseVector]
    ) -> None:
        """Replace by id."""
        for chunk, row, terms in zip(chunks, dense, sparse, strict=True):
            self._rows[chunk.id] = chunk, row, terms

    def search(
        self,
        dense: NDArray[np.float32] | None,
        sparse: SparseVector | None,
        *,
        limit: int,
        where: Where | None = None,
        hidden: Collection[str] = (),
    ) -> Rankings:
        """Score everything that passes the filter."""
        only = filters.parse(where)
        rarities = {} if sparse is None else self._rarities(sparse)
        hits = [
            Hit(
                chunk,
                0.0 if dense is None else float(row @ dense),
                _overlap(rarities, terms),
            )
            for chunk, row, terms in self._rows.values()
            if _passes(chunk, only) and chunk.generation not in hidden
        ]
        # Engines add up the same numbers in other orders, and differ behind the fifth digit.
        by_dense = (
            sorted(hits, key=lambda hit: (-round(hit.dense, 5), *hit.chunk.place))
            if dense is not None
            else []
        )
        by_sparse = sorted(
            (hit for hit in hits if hit.sparse > 0), key=lambda hit: (-round(hit.sparse, 5), *hit.chunk.place)
        )
        return Rankings(tuple(by_dense[:limit]), tuple(by_sparse[:limit]))

    def neighbours(self, chunk: Chunk, radius: int) -> list[Chunk]:
        """By position within the document."""
        near = [
            other
            for other, _, _ in self._rows.values()
            if (other.document_id, other.generation) == (chunk.document_id, chunk.generation)
            and abs(other.position - chunk.position) <= radius
        ]
        return sorted(near, key=lambda other: other.position)

    def scan(
        self,
        *,
        limit: int = 256,  # noqa: ARG002 - everything is at hand
        after: str | None = None,
        where: Where | None = None,
        with_vectors: bool = False,
    ) -> Iterator[StoredPoint]:
        """In order of id."""
        only = filters.parse(where)
        for key in sorted(self._rows):
            chunk, dense, sparse = self._rows[key]
            if (after is None or key > after) and _passes(chunk, only):
                yield StoredPoint(chunk, dense, sparse) if with_vectors else StoredPoint(chunk)

    def delete_document(self, document_id: str, *, keep_generation: str | None = None) -> None:
        """All chunks of a document but those of the generation kept."""
        self._tenants[self.tenant] = {
            key: row
            for key, row in self._rows.items()
            if row[0].document_id != document_id or row[0].generation == keep_generation
        }

    def count(self, document_id: str | None = None) -> int:
        """Exact."""
        return sum(document_id in {None, chunk.document_id} for chunk, _, _ in self._rows.values())

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def _rarities(self, query: SparseVector) -> dict[int, float]:
        """Inverse document frequency of each query term, times its weight."""
        holders = Counter(index for _, _, terms in self._rows.values() for index in terms.indices)
        return {
            index: value * math.log((len(self._rows) - holders[index] + 0.5) / (holders[index] + 0.5) + 1.0)
            for index, value in zip(query.indices, query.values, strict=True)
        }


def _overlap(rarities: dict[int, float], terms: SparseVector) -> float:
    return sum(
        rarities[index] * value
        for index, value in zip(terms.indices, terms.values, strict=True)
        if index in rarities
    )


def _passes(chunk: Chunk, only: Filter | None) -> bool:
    return only is None or matches(only, chunk.payload()["metadata"])


def matches(tree: Filter, metadata: Mapping[str, Any]) -> bool:
    """What a filter means, said in Python: the engines must agree with this."""
    match tree:
        case And(parts):
            return all(matches(part, metadata) for part in parts)
        case Or(parts):
            return any(matches(part, metadata) for part in parts)
        case Not(part):
            return not matches(part, metadata)
        case _:
            return any(_holds(tree, value) for value in _values(tree.key, metadata))


def _holds(condition: Equals | AnyOf | Range | DateRange | Prefix, value: object) -> bool:
    match condition:
        case Equals(_, wanted):
            return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted
        case AnyOf(_, values):
            return not isinstance(value, bool) and value in values
        case Prefix(_, text):
            return isinstance(value, str) and value.startswith(text)
        case Range():
            return _is_number(value) and _within(condition, value)
        case DateRange():
            return (
                isinstance(value, str)
                and filters.is_date(value)
                and _within(condition, filters.moment(value))
            )


def _within(bounds: Range | DateRange, value: Any) -> bool:
    return (
        (bounds.gt is None or value > bounds.gt)
        and (bounds.gte is None or value >= bounds.gte)
        and (bounds.lt is None or value < bounds.lt)
        and (bounds.lte is None or value <= bounds.lte)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _values(key: str, metadata: Mapping[str, Any]) -> list[Any]:
    """What stands under a dotted key: nothing, one value, or the elements of a list."""
    found: Any = metadata
    for name in key.split("."):
        if not isinstance(found, Mapping) or name not in found:
            return []
        found = found[name]
    return list(found) if isinstance(found, (list, tuple)) else [found]
