"""Backends without models: deterministic, instant, and still able to tell what belongs together."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from crossrag.types import (
    Chunk,
    Context,
    Hit,
    Rankings,
    Relevance,
    Scores,
    SparseVector,
    StoredPoint,
    Turn,
    Where,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Lower-cased words with a crude plural rule: `Dogs` and `dog` are one."""
    return [word.removesuffix("s") if len(word) > 3 else word for word in _WORD.findall(text.lower())]


def _term(word: str) -> int:
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")


class HashedEmbedder:
    """Bag of words hashed into `dimension` buckets: texts that share words point the same way."""

    def __init__(self, *, dimension: int = 256) -> None:
        self.dimension = dimension
        self.fingerprint = f"hashed:{dimension}"
        self.calls = 0
        """Number of documents embedded so far."""

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """N texts to unit vectors."""
        import numpy as np

        self.calls += len(texts)
        return (
            np.stack([self.embed_query(text) for text in texts])
            if texts
            else np.zeros((0, self.dimension), "f4")
        )

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """One text to a unit vector; a text without words points along the first axis."""
        import numpy as np

        vector = np.zeros(self.dimension, np.float32)
        for word in words(text):
            vector[_term(word) % self.dimension] += 1
        norm = float(np.linalg.norm(vector))
        if norm == 0:
            vector[0] = norm = 1.0
        unit: NDArray[np.float32] = vector / norm
        return unit


class HashedTerms:
    """Each word is a term, its count the weight."""

    fingerprint = "hashed-terms"

    def encode_documents(self, texts: Sequence[str]) -> list[SparseVector]:
        """One vector per text."""
        return [self.encode_query(text) for text in texts]

    def encode_query(self, text: str) -> SparseVector:
        """Distinct words in ascending order of their hash."""
        counts = Counter(_term(word) for word in words(text))
        indices = sorted(counts)
        return SparseVector(tuple(indices), tuple(float(counts[index]) for index in indices))


class OverlapReranker:
    """Relevance is the share of the question's words that the text holds."""

    fingerprint = "overlap"

    def score(
        self,
        query: str,
        texts: Sequence[str],
        *,
        first_stage: Sequence[Scores] | None = None,  # noqa: ARG002 - part of the seam
        top_k: int | None = None,  # noqa: ARG002 - part of the seam
        deadline: float | None = None,  # noqa: ARG002 - part of the seam
    ) -> Relevance:
        """One share per text, in [0, 1]; the logit is its log-odds."""
        wanted = set(words(query))
        shares = [len(wanted & set(words(text))) / max(1, len(wanted)) for text in texts]
        return Relevance(
            relevance=tuple(shares),
            logit=tuple(math.log((share + 1e-6) / (1 - share + 1e-6)) for share in shares),
            truncated=(False,) * len(texts),
            unread=(False,) * len(texts),
        )


class CannedGenerator:
    """Says what it was told to say, piece by piece, and remembers what it was asked."""

    fingerprint = "canned"

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = pieces
        self.asked: list[tuple[str, Context]] = []

    def stream(self, question: str, context: Context, history: Sequence[Turn] = ()) -> Iterator[str]:  # noqa: ARG002
        """The pieces, in order."""
        self.asked.append((question, context))
        yield from self.pieces


class MemoryStore:
    """Exact search over a dictionary: the reference that every store is judged by."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[Chunk, NDArray[np.float32], SparseVector]] = {}

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
        rarities = {} if sparse is None else self._rarities(sparse)
        hits = [
            Hit(
                chunk,
                0.0 if dense is None else float(row @ dense),
                _overlap(rarities, terms),
            )
            for chunk, row, terms in self._rows.values()
            if _passes(chunk, where or {}) and chunk.generation not in hidden
        ]
        by_dense = sorted(hits, key=lambda hit: (-hit.dense, *hit.chunk.place)) if dense is not None else []
        by_sparse = sorted(
            (hit for hit in hits if hit.sparse > 0), key=lambda hit: (-hit.sparse, *hit.chunk.place)
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
        for key in sorted(self._rows):
            chunk, dense, sparse = self._rows[key]
            if (after is None or key > after) and _passes(chunk, where or {}):
                yield StoredPoint(chunk, dense, sparse) if with_vectors else StoredPoint(chunk)

    def delete_document(self, document_id: str, *, keep_generation: str | None = None) -> None:
        """All chunks of a document but those of the generation kept."""
        self._rows = {
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


def _passes(chunk: Chunk, where: Where) -> bool:
    metadata = chunk.payload()["metadata"]
    return all(
        metadata.get(key) == wanted if isinstance(wanted, (str, int)) else metadata.get(key) in wanted
        for key, wanted in where.items()
    )
