"""langchain_qdrant's vector store with the guide's arguments, whose retriever is the cross-encoder's.

And crossrag's BM25 for its sparse and hybrid modes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid5

import langchain_qdrant
from langchain_qdrant.sparse_embeddings import SparseEmbeddings, SparseVector

from crossrag import registry
from crossrag.errors import UsageError
from crossrag.loading import clean_text

from .retriever import CrossEncoderRetriever

if TYPE_CHECKING:
    from crossrag.protocols import SparseEncoder

_NAMESPACE = UUID("5f0c1b0e-6c53-5d0a-9a53-3f9f1d7c2a10")


class QdrantVectorStore(langchain_qdrant.QdrantVectorStore):
    """As langchain_qdrant's, but for three things that the guide takes for granted.

    `index_name` is the collection's name; documents that are added again replace themselves, since their ids
    are made of source, place and text; and `as_retriever` gives a `CrossEncoderRetriever` over this store,
    so that `search_type="mmr"` chooses after reranking, and `lambda_mult=1` is pure relevance
    (langchain_qdrant 1.1 takes it for pure diversity, and so does `max_marginal_relevance_search` here).
    """

    @classmethod
    def from_texts(
        cls, texts: list[str], *arguments: Any, index_name: str | None = None, **options: Any
    ) -> QdrantVectorStore:
        """A collection of these texts; arguments as langchain_qdrant's, and `index_name`.

        Raises:
            UsageError: It is named twice, differently.
        """
        if index_name is not None and options.setdefault("collection_name", index_name) != index_name:
            raise UsageError("index_name and collection_name differ", hint="Give one of them")
        return cast("QdrantVectorStore", super().from_texts(texts, *arguments, **options))

    def add_texts(  # type: ignore[override]
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        ids: Sequence[str | int] | None = None,
        batch_size: int = 64,
        **options: Any,
    ) -> list[str | int]:
        """Embed and write them; without `ids`, under ids that the same text at the same place has again."""
        texts = list(texts)
        ids = ids or _ids(texts, metadatas or [{}] * len(texts))
        added: list[str | int] = super().add_texts(texts, metadatas, ids, batch_size, **options)
        return added

    def as_retriever(self, **options: Any) -> CrossEncoderRetriever:  # type: ignore[override]
        """A cross-encoder over this store; `search_type` and `search_kwargs` as LangChain's, and its own."""
        search = {name: value for name, value in options.items() if name not in {"search_kwargs", "tags"}}
        tags = [*(options.get("tags") or []), *self._get_retriever_tags()]
        return CrossEncoderRetriever(base=self, tags=tags, **search, **(options.get("search_kwargs") or {}))


class CrossRagSparseEmbeddings(SparseEmbeddings):
    """The BM25 of crossrag's indexes, for `RetrievalMode.SPARSE` and `HYBRID` with the vector named `bm25`.

    Args:
        encoder: Such as `rag.sparse_encoder`; None for the default one.
    """

    def __init__(self, encoder: SparseEncoder | None = None) -> None:
        self._encoder = encoder or registry.load("sparse_encoders", "bm25")

    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        """One vector per text, in order."""
        found = self._encoder.encode_documents([clean_text(text) for text in texts])
        return [SparseVector(indices=list(one.indices), values=list(one.values)) for one in found]

    def embed_query(self, text: str) -> SparseVector:
        """The question's terms."""
        found = self._encoder.encode_query(clean_text(text))
        return SparseVector(indices=list(found.indices), values=list(found.values))


def _ids(texts: Sequence[str], metadatas: Sequence[Mapping[str, Any]]) -> list[str]:
    """One for each text, the same in every run; of equal texts at one place, each its own."""
    seen: dict[str, int] = {}
    made = []
    for text, metadata in zip(texts, metadatas, strict=True):
        name = "\n".join((str(metadata.get("source", "")), str(metadata.get("start_index", "")), text))
        seen[name] = seen.get(name, -1) + 1
        made.append(str(uuid5(_NAMESPACE, f"{seen[name]}\n{name}")))
    return made
