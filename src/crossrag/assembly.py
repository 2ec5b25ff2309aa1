"""Settings -> backends: which registry name gets which arguments. Joins nothing; that is the pipeline's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import answering, chunking, registry
from .errors import UsageError
from .score_cache import CachedReranker

if TYPE_CHECKING:
    from .config import OpenAISettings, RerankHttpSettings, Settings
    from .protocols import Embedder, Generator, Reranker, SparseEncoder, Store

CHUNK_TOKENIZER = registry.BUNDLED_MODELS / "progressive-reranker" / "tokenizer.json"
"""What `chunking.unit = "tokens"` counts: the tokens that the bundled reranker sees."""


def embedder(settings: Settings) -> Embedder:
    """From `embedder.model`."""
    return registry.load("embedders", settings.embedder.model, threads=settings.embedder.threads)


def sparse_encoder(settings: Settings) -> SparseEncoder:
    """From `sparse.model`."""
    sparse = settings.sparse
    return registry.load(
        "sparse_encoders", sparse.model, language=sparse.language, average_length=sparse.average_length
    )


def reranker(settings: Settings) -> Reranker | None:
    """From `reranking.model`, remembering where `reranking.cache` says so; None where the model is `none`."""
    reranking = settings.reranking
    if reranking.model == "none":
        return None
    arguments = _endpoint(settings.rerank_http) if reranking.model.partition(":")[0] == "http" else {}
    made = registry.load("rerankers", reranking.model, threads=reranking.threads, **arguments)
    return made if reranking.cache is None else CachedReranker(made, reranking.cache.expanduser())


def generator(settings: Settings, *, reranker: Reranker | None, embedder: Embedder) -> Generator:
    """From `generator.model`.

    Raises:
        UsageError: The extractive generator is wanted and there is no reranker.
    """
    name = settings.generator.model
    if name.partition(":")[0] == "openai":
        return registry.load("generators", name, render=answering.messages, **_endpoint(settings.openai))
    if reranker is None:
        raise UsageError(
            "The extractive answer needs a reranker",
            hint="Set reranking.model, or generator.model to openai:MODEL",
        )
    return registry.load("generators", name, reranker=reranker, embedder=embedder)


def store(settings: Settings, *, embedder: Embedder, sparse_encoder: SparseEncoder, create: bool) -> Store:
    """From `index.store`, with the fingerprint of everything that its contents depend on."""
    return registry.load(
        "stores",
        settings.index.store,
        path=settings.index.path,
        dimension=embedder.dimension,
        fingerprint=fingerprint(settings, embedder=embedder, sparse_encoder=sparse_encoder),
        create=create,
    )


def fingerprint(settings: Settings, *, embedder: Embedder, sparse_encoder: SparseEncoder) -> dict[str, str]:
    """Everything that the contents of an index depend on, part by part."""
    cut = settings.chunking
    return {
        "format": "2",
        "embedder": embedder.fingerprint,
        "sparse": sparse_encoder.fingerprint,
        "chunking": chunking.fingerprint(cut.size, cut.overlap, cut.unit, CHUNK_TOKENIZER),
    }


def _endpoint(section: OpenAISettings | RerankHttpSettings) -> dict[str, Any]:
    """The section as arguments, its key in the clear."""
    key = section.api_key.get_secret_value() if section.api_key else None
    return section.model_dump(exclude={"api_key"}) | {"api_key": key}
