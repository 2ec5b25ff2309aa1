"""crossrag in LangChain: retriever, compressor, cross-encoder, embeddings, and the functions of the guide.

    from crossrag.integrations.langchain import CrossEncoderRetriever, create_cross_encoder_chain

    retriever = CrossEncoderRetriever(index="./index", k=6)
    print(create_cross_encoder_chain(retriever, llm).invoke("How do I restore a backup?"))

Needs the extra `crossrag[langchain]`. What works with `langchain_qdrant` is loaded when it is asked for.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from crossrag.errors import MissingExtraError

if find_spec("langchain_core") is None:
    raise MissingExtraError(
        "crossrag.integrations.langchain needs the package langchain_core",
        hint="pip install 'crossrag[langchain]'",
    )

from .embeddings import CrossRagEmbeddings as CrossRagEmbeddings
from .guide import create_cross_encoder_chain as create_cross_encoder_chain
from .guide import create_rag_with_sources as create_rag_with_sources
from .guide import evaluate_rag as evaluate_rag
from .guide import load_and_process_documents as load_and_process_documents
from .reranking import CrossEncoderCompressor as CrossEncoderCompressor
from .reranking import CrossRagCrossEncoder as CrossRagCrossEncoder
from .retriever import CrossEncoderRetriever as CrossEncoderRetriever

if TYPE_CHECKING:
    from .vectorstore import CrossRagSparseEmbeddings as CrossRagSparseEmbeddings
    from .vectorstore import QdrantVectorStore as QdrantVectorStore

_WITH_QDRANT = {"CrossRagSparseEmbeddings", "QdrantVectorStore"}


def __getattr__(name: str) -> Any:
    if name not in _WITH_QDRANT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if find_spec("langchain_qdrant") is None:
        raise MissingExtraError(
            f"{name} needs the package langchain_qdrant", hint="pip install 'crossrag[langchain]'"
        )
    from . import vectorstore

    return getattr(vectorstore, name)
