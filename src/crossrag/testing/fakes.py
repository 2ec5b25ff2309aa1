"""Backends without models: deterministic, instant, and still able to tell what belongs together."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from crossrag.types import Context, Relevance, Scores, SparseVector, Turn

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


class OverlapGrounder:
    """Support is the share of the claim's words that the evidence holds."""

    fingerprint = "overlap"

    def support(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """One share per pair of evidence and claim; a claim without words has none."""
        return [_share(words(claim), words(evidence)) for evidence, claim in pairs]


def _share(wanted: Sequence[str], there: Sequence[str]) -> float:
    known = set(there)
    return sum(word in known for word in wanted) / len(wanted) if wanted else math.nan


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
