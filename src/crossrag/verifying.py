"""Manifest and store -> what differs between them, and a digest of everything that the store holds.

Reads only; what to do about a difference is for others to say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from . import chunking

if TYPE_CHECKING:
    from .manifest import Entry, Manifest
    from .protocols import Store
    from .types import StoredPoint

_PAGE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something that is not as the manifest says."""

    kind: Literal["missing", "altered", "orphaned", "unfinished"]
    """Chunks are not there; are not what was written; are known to nobody; a run was cut short."""
    document_id: str
    source: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was compared, and what was found."""

    documents: int
    chunks: int
    """Points in the store, whatever they belong to."""
    digest: str
    """SHA-256 of ids, payloads and vectors in order of id, vectors rounded to 6 decimals; empty if unread."""
    differences: tuple[Difference, ...]

    @property
    def agrees(self) -> bool:
        """Whether the store holds what the manifest says, no more and no less."""
        return not self.differences

    @property
    def manifest_lost(self) -> bool:
        """Whether the manifest knows nothing of what is there, as where its file was deleted."""
        return not self.documents and any(one.kind == "orphaned" for one in self.differences)


@dataclass(slots=True)
class _Seen:
    """Points of one generation of one document."""

    source: str
    positions: set[int] = field(default_factory=set)
    count: int = 0
    altered: int = 0


def verify(store: Store, manifest: Manifest, *, vectors: bool = False) -> Verdict:
    """Read every point and compare with the manifest; nobody may write meanwhile.

    Args:
        store: What is there.
        manifest: What should be.
        vectors: Read the vectors too: whether each is a unit vector, and for the digest.
    """
    known = manifest.entries()
    made = hashlib.sha256()
    seen: dict[tuple[str, str], _Seen] = {}
    points = 0
    for point in store.scan(limit=_PAGE, with_vectors=vectors):
        points += 1
        chunk = point.chunk
        group = seen.setdefault((chunk.document_id, chunk.generation), _Seen(chunk.source))
        group.count += 1
        group.positions.add(chunk.position)
        group.altered += not _as_written(point, vectors=vectors)
        if vectors:
            made.update(_told(point))
    differences = [*_unfinished(manifest, known), *_compared(known, seen, manifest)]
    return Verdict(
        documents=len(known),
        chunks=points,
        digest=made.hexdigest() if vectors else "",
        differences=tuple(differences),
    )


def digest(store: Store) -> str:
    """SHA-256 over all points in order of id: id, payload, dense vector to 6 decimals, sparse vector."""
    made = hashlib.sha256()
    for point in store.scan(limit=_PAGE, with_vectors=True):
        made.update(_told(point))
    return made.hexdigest()


def _told(point: StoredPoint) -> bytes:
    import numpy as np

    chunk, dense, sparse = point.chunk, point.dense, point.sparse
    words = [
        chunk.id,
        chunk.payload(),
        sparse and [sparse.indices, [round(value, 6) for value in sparse.values]],
    ]
    told = json.dumps(words, sort_keys=True, ensure_ascii=True).encode()
    # Whole millionths: no rounding can tell 0.0 from -0.0.
    return told if dense is None else told + np.rint(dense.astype(np.float64) * 1e6).astype("<i8").tobytes()


def _as_written(point: StoredPoint, *, vectors: bool) -> bool:
    """Whether a point's id fits its text, and its vectors are some."""
    chunk = point.chunk
    if chunk.id != chunking.identify(chunk.document_id, chunk.generation, chunk.position, chunk.text):
        return False
    if not vectors:
        return True
    if point.dense is None or point.sparse is None:
        return False
    return abs(float(point.dense @ point.dense) - 1.0) < 1e-3  # not so for NaN either


def _unfinished(manifest: Manifest, known: Mapping[str, Entry]) -> Iterator[Difference]:
    for transition in manifest.transitions():
        entry = known.get(transition.document_id)
        yield Difference(
            kind="unfinished",
            document_id=transition.document_id,
            source=entry.source if entry else transition.document_id,
            text=f"a run was cut short: generation {transition.generation} is {transition.state}",
        )


def _compared(
    known: Mapping[str, Entry], seen: Mapping[tuple[str, str], _Seen], manifest: Manifest
) -> Iterator[Difference]:
    expected = {(entry.id, entry.generation): entry for entry in known.values()}
    passing = {(one.document_id, one.generation) for one in manifest.transitions()}
    for key, entry in expected.items():
        group = seen.get(key, _Seen(entry.source))
        if group.positions != set(range(entry.chunks)) or group.count != entry.chunks:
            text = f"{group.count} chunks in place of {entry.chunks}"
            yield Difference(kind="missing", document_id=entry.id, source=entry.source, text=text)
        elif group.altered:
            text = f"{group.altered} of {entry.chunks} chunks are not what was written"
            yield Difference(kind="altered", document_id=entry.id, source=entry.source, text=text)
    for key in sorted(seen.keys() - expected.keys() - passing):
        text = f"{seen[key].count} chunks that the manifest does not know"
        yield Difference(kind="orphaned", document_id=key[0], source=seen[key].source, text=text)
