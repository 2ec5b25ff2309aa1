"""BM25 term weights by Qdrant Edge's own `Bm25`: the same weights embedded and on a server.

The inverse document frequency is the store's part (Qdrant's `Modifier.IDF`). Robertson and Zaragoza (2009),
"The Probabilistic Relevance Framework: BM25 and Beyond".
"""

from __future__ import annotations

from collections.abc import Sequence

from crossrag.errors import ConfigError
from crossrag.types import SparseVector


class EdgeBm25:
    """Lower-cased, stemmed words without stop words; k1 = 1.2, b = 0.75.

    Args:
        language: Name of the stemmer and stop-word list, such as `english`.
        average_length: Typical number of terms of a passage; Qdrant takes it as given instead of counting.
    """

    def __init__(self, *, language: str = "english", average_length: float = 80.0) -> None:
        from qdrant_edge import Bm25, Bm25Config

        self.fingerprint = f"edge-bm25:{language}:{average_length:g}:v1"
        try:
            self._bm25 = Bm25(Bm25Config(language=language, avg_len=average_length))
        except Exception as error:  # noqa: BLE001
            # qdrant-edge raises bare Exception.
            raise ConfigError(
                f"BM25 does not take this setting: {error}", hint="See sparse.language"
            ) from None

    def encode_documents(self, texts: Sequence[str]) -> list[SparseVector]:
        """Saturated term frequencies, one vector per text."""
        return [_vector(self._bm25.embed_document(text)) for text in texts]

    def encode_query(self, text: str) -> SparseVector:
        """Weight 1 for each distinct term."""
        return _vector(self._bm25.embed_query(text))


def _vector(raw: object) -> SparseVector:
    return SparseVector(tuple(raw.indices), tuple(raw.values))  # type: ignore[attr-defined]
