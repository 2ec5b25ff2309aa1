"""Other libraries as targets of the conformance suite, with the bundled reranker's weights inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrag.evaluation.targets import target
from crossrag.registry import load
from crossrag.testing.conformance import DocumentTarget, Ranked
from weights import fastembed_encoder, flashrank_ranker, plug, read, standard_folder

if TYPE_CHECKING:
    from crossrag.testing.conformance import Passage, Target

_PACKAGES = (
    "crossrag",
    "sentence-transformers",
    "langchain-classic",
    "langchain-community",
    "langchain-qdrant",
    "llama-index-core",
    "haystack-ai",
    "sentence-transformers-haystack",
    "FlashRank",
    "rerankers",
    "fastembed",
    "qdrant-client",
    "torch",
)


def versions() -> dict[str, str]:
    """Of everything that is compared."""
    return {package: version(package) for package in _PACKAGES}


def targets(model: Path, scratch: Path) -> dict[str, Callable[[], Target]]:
    """Name -> what makes it."""

    def folder() -> Path:
        return standard_folder(model, scratch / "calibrated", calibrated=True)

    def network() -> Any:
        return read(model, calibrated=True)

    return {
        "crossrag progressive": lambda: target("progressive"),
        "crossrag Rag": lambda: target("rag"),
        "crossrag onnx": lambda: target(f"onnx:{folder()}"),
        "crossrag in LlamaIndex": _crossrag_llamaindex,
        "crossrag in Haystack": _crossrag_haystack,
        "sentence-transformers": lambda: _sentence_transformers(folder(), network()),
        "LangChain": lambda: _langchain(folder(), network()),
        "LlamaIndex": lambda: _llamaindex(folder(), network()),
        "Haystack": lambda: _haystack(folder(), network()),
        "FlashRank": lambda: _flashrank(folder(), scratch / "flashrank"),
        "rerankers": lambda: _rerankers(folder(), network()),
        "FastEmbed": lambda: _fastembed(folder()),
        "langchain-qdrant dense": lambda: LangChainQdrant("dense"),
        "langchain-qdrant hybrid": lambda: LangChainQdrant("hybrid"),
    }


# --- rerankers


def _sentence_transformers(folder: Path, network: Any) -> Target:
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(str(folder), local_files_only=True)
    plug(encoder, network)
    return DocumentTarget(
        documents=list,
        run=lambda query, texts, top_k: encoder.rank(
            query, texts, top_k=top_k, return_documents=True, show_progress_bar=False
        ),
        read=lambda row: Ranked(int(row["corpus_id"]), float(row["score"]), row["text"]),
    )


def _langchain(folder: Path, network: Any) -> Target:
    from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
    from langchain_community.cross_encoders import HuggingFaceCrossEncoder
    from langchain_core.documents import Document

    encoder = HuggingFaceCrossEncoder(model_name=str(folder), model_kwargs={"local_files_only": True})
    plug(encoder.client, network)
    return DocumentTarget(
        documents=lambda texts: [
            Document(text, metadata={"place": place}) for place, text in enumerate(texts)
        ],
        run=lambda query, documents, top_k: CrossEncoderReranker(
            model=encoder, top_n=top_k
        ).compress_documents(documents, query),
        read=lambda one: Ranked(
            one.metadata["place"], _first(one.metadata, "relevance_score", "score"), one.page_content
        ),
    )


def _llamaindex_documents(texts: Sequence[str]) -> list[Any]:
    from llama_index.core.schema import NodeWithScore, TextNode

    # A first-stage score, as a retriever leaves it.
    return [
        NodeWithScore(node=TextNode(id_=str(place), text=text), score=0.5) for place, text in enumerate(texts)
    ]


def _llamaindex_target(run: Callable[[str, list[Any], int], Sequence[Any]]) -> Target:
    return DocumentTarget(
        documents=_llamaindex_documents,
        run=run,
        read=lambda one: Ranked(
            int(one.node.node_id),
            None if one.score is None else float(one.score),
            one.node.get_content(),
            one.node.metadata.get("rerank_truncated"),
        ),
        snapshot=lambda one: (one.score, one.node.to_json()),
    )


def _llamaindex(folder: Path, network: Any) -> Target:
    from llama_index.core.postprocessor import SentenceTransformerRerank

    made = SentenceTransformerRerank(model=str(folder), top_n=5, device="cpu", trust_remote_code=False)
    plug(made._model, network)  # noqa: SLF001 - the library has no other way in

    def run(query: str, nodes: list[Any], top_k: int) -> Sequence[Any]:
        made.top_n = top_k
        return made.postprocess_nodes(nodes, query_str=query)

    return _llamaindex_target(run)


def _crossrag_llamaindex() -> Target:
    from crossrag.integrations.llamaindex import CrossRagRerank

    made = CrossRagRerank()

    def run(query: str, nodes: list[Any], top_k: int) -> Sequence[Any]:
        made.top_n = top_k
        return made.postprocess_nodes(nodes, query_str=query)

    return _llamaindex_target(run)


def _haystack_target(component: Any) -> Target:
    from haystack import Document

    return DocumentTarget(
        documents=lambda texts: [
            Document(id=str(place), content=text, score=0.5) for place, text in enumerate(texts)
        ],
        run=lambda query, documents, top_k: component.run(query=query, documents=documents, top_k=top_k)[
            "documents"
        ],
        read=lambda one: Ranked(int(one.id), one.score, one.content, one.meta.get("rerank_truncated")),
        snapshot=lambda one: one.to_dict(),
    )


def _haystack(folder: Path, network: Any) -> Target:
    from haystack_integrations.components.rankers.sentence_transformers import (
        SentenceTransformersSimilarityRanker,
    )

    ranker = SentenceTransformersSimilarityRanker(model=str(folder), token=None)
    ranker.warm_up()
    plug(ranker._cross_encoder, network)  # noqa: SLF001 - the library has no other way in
    return _haystack_target(ranker)


def _crossrag_haystack() -> Target:
    from crossrag.integrations.haystack import CrossRagRanker

    return _haystack_target(CrossRagRanker())


def _flashrank(folder: Path, cache: Path) -> Target:
    from flashrank import RerankRequest

    ranker = flashrank_ranker(folder, cache)
    return DocumentTarget(
        documents=lambda texts: [{"id": place, "text": text} for place, text in enumerate(texts)],
        run=lambda query, passages, top_k: ranker.rerank(RerankRequest(query=query, passages=passages))[
            :top_k
        ],
        read=lambda row: Ranked(row["id"], float(row["score"]), row["text"]),
    )


def _rerankers(folder: Path, network: Any) -> Target:
    from rerankers import Reranker

    ranker = Reranker(str(folder), model_type="cross-encoder", verbose=0, device="cpu")
    plug(ranker.model, network)
    return DocumentTarget(
        documents=list,
        run=lambda query, texts, top_k: ranker.rank(
            query=query, docs=texts, doc_ids=list(range(len(texts)))
        ).top_k(top_k),
        read=lambda one: Ranked(int(one.doc_id), float(one.score), one.text),
    )


def _fastembed(folder: Path) -> Target:
    encoder = fastembed_encoder(folder)

    def run(query: str, texts: list[str], top_k: int) -> Sequence[tuple[int, float, str]]:
        """It gives scores in the order of the texts; sorting is left to its user, here stably."""
        scores = [float(score) for score in encoder.rerank(query, texts)]
        order = sorted(range(len(texts)), key=lambda place: -scores[place])[:top_k]
        return [(place, scores[place], texts[place]) for place in order]

    return DocumentTarget(documents=list, run=run, read=lambda row: Ranked(*row))


def _first(metadata: Mapping[str, Any], *names: str) -> float | None:
    return next((float(metadata[name]) for name in names if name in metadata), None)


# --- retrievers


class LangChainQdrant:
    """`QdrantVectorStore` over Qdrant in memory, with the bundled embedder and BM25."""

    def __init__(self, mode: str) -> None:
        self._mode = mode

    def retriever(self, passages: Sequence[Passage]) -> LangChainQdrant:
        """The corpus as documents."""
        from langchain_core.documents import Document
        from langchain_core.embeddings import Embeddings
        from langchain_qdrant import QdrantVectorStore, RetrievalMode, SparseEmbeddings, SparseVector
        from qdrant_client import QdrantClient, models

        embedder, encoder = load("embedders", "onnx:bundled"), load("sparse_encoders", "bm25")

        class Dense(Embeddings):
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                rows: list[list[float]] = embedder.embed_documents(texts).tolist()
                return rows

            def embed_query(self, text: str) -> list[float]:
                row: list[float] = embedder.embed_query(text).tolist()
                return row

        class Sparse(SparseEmbeddings):
            def embed_documents(self, texts: list[str]) -> list[SparseVector]:
                return [
                    SparseVector(indices=list(one.indices), values=list(one.values))
                    for one in encoder.encode_documents(texts)
                ]

            def embed_query(self, text: str) -> SparseVector:
                one = encoder.encode_query(text)
                return SparseVector(indices=list(one.indices), values=list(one.values))

        client = QdrantClient(":memory:")
        client.create_collection(
            "conformance",
            vectors_config=models.VectorParams(size=embedder.dimension, distance=models.Distance.COSINE),
            sparse_vectors_config={"sparse": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        )
        self._store = QdrantVectorStore(
            client,
            "conformance",
            embedding=Dense(),
            sparse_embedding=Sparse(),
            sparse_vector_name="sparse",
            retrieval_mode=RetrievalMode(self._mode),
        )
        self._store.add_documents(
            [
                Document(passage.text, metadata={"name": passage.id, **passage.metadata})
                for passage in passages
            ]
        )
        return self

    def search(self, query: str, top_k: int, where: Mapping[str, str] | None = None) -> list[str]:
        """By `similarity_search`."""
        from qdrant_client import models

        only = models.Filter(
            must=[
                models.FieldCondition(key=f"metadata.{key}", match=models.MatchValue(value=value))
                for key, value in (where or {}).items()
            ]
        )
        found = self._store.similarity_search(query, k=top_k, filter=only if where else None)
        return [document.metadata["name"] for document in found]

    def mmr(self, query: str, top_k: int, fetch_k: int, lambda_mult: float) -> list[str]:
        """By `max_marginal_relevance_search`."""
        found = self._store.max_marginal_relevance_search(
            query, k=top_k, fetch_k=fetch_k, lambda_mult=lambda_mult
        )
        return [document.metadata["name"] for document in found]
