"""An embedder of crossrag's as LangChain's `Embeddings`; the async twins run in threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_core.embeddings import Embeddings

from crossrag import registry
from crossrag.loading import clean_text

if TYPE_CHECKING:
    from crossrag.protocols import Embedder


class CrossRagEmbeddings(Embeddings):
    """The vectors that an index of crossrag's is made of, so that LangChain finds the same in it.

    Args:
        model: As in `embedder.model`; `onnx:bundled` is 384 numbers of unit length, made here.
        embedder: An object in its place, such as `rag.embedder`.
        threads: For the model; 0 is one per core.
    """

    def __init__(
        self, model: str = "onnx:bundled", *, embedder: Embedder | None = None, threads: int = 0
    ) -> None:
        self._embedder = embedder or registry.load("embedders", model, threads=threads)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector per text, in order."""
        return [
            [float(value) for value in row]
            for row in self._embedder.embed_documents([clean_text(text) for text in texts])
        ]

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question, which need not be that of the same words as a document."""
        return [float(value) for value in self._embedder.embed_query(clean_text(text))]
