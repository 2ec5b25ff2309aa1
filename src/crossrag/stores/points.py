"""What a point of Qdrant holds, embedded or on a server: chunk, tenant, vectors; and which keys are indexed.

The tenant stands beside `metadata`, not in it, so that no filter can name it. Knows neither engine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID, uuid5

from crossrag.errors import FingerprintError, UsageError
from crossrag.filters import And, Equals, Filter, Range, is_date, is_key, moment
from crossrag.types import Chunk, Hit, Rankings, SparseVector, StoredPoint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DENSE, SPARSE = "dense", "bm25"
TENANT = "tenant"
_CHUNK_ID = "chunk_uuid"
_TENANT_NAME = re.compile(r"(?:[a-z0-9][a-z0-9_-]{0,62})?")
_OWN_NUMBERS = {"chunk_id", "page", "start", "end", "chunk_length"}
_MOST_EMBEDDED = 200

STANDING_INDEXES = {
    TENANT: "tenant",
    "metadata.document_id": "keyword",
    "metadata.source": "keyword",
    "metadata.generation": "keyword",
    "metadata.chunk_id": "number",
    "metadata.page": "number",
    "flags": "keyword",
}
"""Payload path -> kind, of every index that a new store has."""

SERVED_INDEXES = STANDING_INDEXES | {
    "metadata.title": "keyword",
    "metadata.title_path": "keyword",
    "metadata.page_name": "keyword",
    "metadata.variant": "keyword",
    "metadata.start": "number",
    "metadata.end": "number",
    "metadata.chunk_length": "number",
}
"""The same on a server, which may refuse filters on what has no index; embedded, they are only slower."""


class Scored(NamedTuple):
    """A point that a leg found; without payload where only its score was asked for."""

    id: str
    score: float
    payload: Mapping[str, Any]


Query = Callable[[int, frozenset[str] | None], Mapping[str, list[Scored]]]
"""(limit, only these ids) -> points of each leg that has a vector."""


def check_tenant(tenant: str) -> str:
    """The name as it was, if it is one.

    Raises:
        UsageError: It is not made of lower-case letters, digits, `_` and `-`, or is longer than 63.
    """
    if not _TENANT_NAME.fullmatch(tenant):
        raise UsageError(
            f"{tenant[:80]!r} cannot be a tenant",
            hint="Use up to 63 lower-case letters, digits, _ and -; the empty name is the default tenant",
        )
    return tenant


def point_id(chunk_id: str, tenant: str) -> str:
    """The same chunk of two tenants is two points; the default tenant's have the chunk's own id."""
    return str(uuid5(UUID(chunk_id), tenant)) if tenant else chunk_id


def payload(chunk: Chunk, tenant: str) -> dict[str, Any]:
    """`page_content` and `metadata` as `langchain_qdrant` reads them, the tenant, and what filters look at.

    Numbers, dates, true and false stand a second time, by type: an index over one type finds nothing of
    another, and `qdrant_edge` 0.9 cannot match true and false at all (it takes them for 1 and 0).
    """
    stored = chunk.payload() | {TENANT: tenant}
    if tenant:
        stored[_CHUNK_ID] = chunk.id
    typed: dict[str, dict[str, Any]] = {"numbers": {}, "dates": {}}
    flags = []
    for key, value in _leaves("", chunk.metadata):
        if isinstance(value, bool):
            flags.append(flag(key, value))
        elif isinstance(value, (int, float)):
            _put(typed["numbers"], key, value)
        elif isinstance(value, str) and is_date(value):
            _put(typed["dates"], key, moment(value).isoformat())
    return stored | {name: part for name, part in (*typed.items(), ("flags", flags)) if part}


def flag(key: str, value: bool) -> str:  # noqa: FBT001 - a value
    """How true and false are stored to be found: `draft=true`."""
    return f"{key}={'true' if value else 'false'}"


def number_path(key: str) -> str:
    """Where the numbers under a key of the metadata are found."""
    return f"metadata.{key}" if key in _OWN_NUMBERS else f"numbers.{key}"


def chunk_of(identity: str, stored: Mapping[str, Any]) -> Chunk:
    """The inverse of `payload`."""
    return Chunk.from_payload(stored.get(_CHUNK_ID, identity), stored)


def rounded(score: float) -> float:
    """What scores are ordered by: engines add up the same numbers in other orders, and differ behind this."""
    return round(score, 5)


def stored_point(identity: str, stored: Mapping[str, Any] | None, vectors: Any) -> StoredPoint:
    """Of a scroll's answer; `vectors` is None where they were not asked for."""
    import numpy as np

    chunk = chunk_of(identity, stored or {})
    if not vectors:
        return StoredPoint(chunk)
    sparse = vectors.get(SPARSE)
    terms = sorted(zip(sparse.indices, sparse.values, strict=True)) if sparse is not None else []
    return StoredPoint(
        chunk,
        np.asarray(vectors[DENSE], np.float32),
        SparseVector(tuple(index for index, _ in terms), tuple(value for _, value in terms)),
    )


def legs(
    dense: NDArray[np.float32] | None,
    sparse: SparseVector | None,
    made: Callable[[list[int], list[float]], Any],
) -> dict[str, Any]:
    """A question's vectors by the name of their leg; `made` gives the engine's sparse ones."""
    vectors: dict[str, Any] = {}
    if dense is not None:
        vectors[DENSE] = dense.tolist()
    if sparse is not None and sparse.indices:
        vectors[SPARSE] = made(list(sparse.indices), list(sparse.values))
    return vectors


def rankings(
    query: Query, limit: int, *, read: Callable[[str, Mapping[str, Any]], Chunk] = chunk_of
) -> Rankings:
    """Both legs; a second query gives each hit the score of the leg that missed it."""
    found = query(limit, None)
    chunks = {point.id: read(point.id, point.payload) for leg in found.values() for point in leg}
    scores = {leg: {point.id: point.score for point in points} for leg, points in found.items()}
    if missing := frozenset(key for known in scores.values() for key in chunks if key not in known):
        for leg, points in query(len(missing), missing).items():
            for point in points:
                scores[leg].setdefault(point.id, point.score)
    legs = {
        leg: tuple(
            Hit(
                chunks[point.id],
                scores.get(DENSE, {}).get(point.id, 0.0),
                scores.get(SPARSE, {}).get(point.id, 0.0),
            )
            for point in sorted(points, key=lambda point: (-rounded(point.score), *chunks[point.id].place))
        )
        for leg, points in found.items()
    }
    return Rankings(legs.get(DENSE, ()), legs.get(SPARSE, ()))


def new_indexes(
    chunks: Iterable[Chunk], known: Mapping[str, str], *, room: int | None = None
) -> dict[str, str]:
    """Path -> kind, of metadata keys that have no index yet: `keyword`, `number` or `date`.

    Args:
        chunks: Whose metadata.
        known: Path -> kind, of indexes that there are.
        room: Most of them; None for what the embedded engine may have.
    """
    if room is None:
        room = _MOST_EMBEDDED + len(STANDING_INDEXES) - len(known)
    found: dict[str, str] = {}
    for chunk in chunks:
        for key, value in _leaves("", chunk.metadata):
            for path, kind in _paths(key, value):
                if path not in known and len(found) < room:
                    found.setdefault(path, kind)
    return found


def check_fingerprint(stored: Mapping[str, Any], expected: Mapping[str, str], place: object) -> None:
    """Compare part by part.

    Raises:
        FingerprintError: A part differs, is missing or is new.
    """
    differing = sorted(part for part in {*stored, *expected} if stored.get(part) != expected.get(part))
    if differing:
        changes = "; ".join(f"{part}: {stored.get(part)} -> {expected.get(part)}" for part in differing)
        raise FingerprintError(
            f"The index at {place} was built with other settings ({changes})",
            hint="Restore the setting, or build the index anew from the same files with `crossrag reindex`,"
            " or from PATH with `crossrag ingest --rebuild PATH`",
        )


def _leaves(above: str, metadata: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted key and value; each element of a list by itself. What no filter can name is left out."""
    for name, value in metadata.items():
        key = f"{above}{name}"
        if not is_key(key) or "." in str(name):
            continue
        if isinstance(value, Mapping):
            yield from _leaves(f"{key}.", value)
        else:
            yield from (
                (key, element) for element in (value if isinstance(value, (list, tuple)) else (value,))
            )


def _paths(key: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # Not Qdrant's integer index: it does not find 2021.5 where most values are whole.
        yield f"numbers.{key}", "number"
    elif isinstance(value, str):
        yield f"metadata.{key}", "keyword"
        if is_date(value):
            yield f"dates.{key}", "date"


def _put(tree: dict[str, Any], key: str, value: object) -> None:
    *above, name = key.split(".")
    for part in above:
        tree = tree.setdefault(part, {})
    tree.setdefault(name, []).append(value)


def around(chunk: Chunk, radius: int) -> Filter:
    """Of the chunk's document and generation, from `position - radius` to `position + radius`."""
    return And(
        (
            Equals("document_id", chunk.document_id),
            Equals("generation", chunk.generation),
            Range(key="chunk_id", gte=chunk.position - radius, lte=chunk.position + radius),
        )
    )


def in_order(records: Iterable[Any]) -> list[Chunk]:
    """The chunks of one document's records, by position."""
    found = [chunk_of(str(record.id), record.payload or {}) for record in records]
    return sorted(found, key=lambda chunk: chunk.position)


def scrolled(
    page: Callable[[int, str | None], tuple[Sequence[Any], Any]], limit: int, offset: str | None
) -> Iterator[StoredPoint]:
    """All records in order of id, `limit` at a time, after the one of id `offset`.

    Args:
        page: (count, offset) -> records from `offset` on, itself included, and what follows if anything.
        limit: Records used of one page.
        offset: None begins at the first.
    """
    follows = True
    while follows:
        # The offset itself is given again: one more, and leave it out.
        records, following = page(limit + 1, offset)
        found = [record for record in records if str(record.id) != offset]
        for record in found[:limit]:
            yield stored_point(str(record.id), record.payload, record.vector)
        follows = bool(found) and (following is not None or len(found) > limit)
        offset = str(found[:limit][-1].id) if found else None
