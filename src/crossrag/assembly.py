"""Settings -> backends: which registry name gets which arguments. Joins nothing; that is the pipeline's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from . import chunking, context, likeness, loading, prompt, registry
from .errors import ConfigError, UsageError
from .freestanding import FreestandingReranker
from .last_resort import NoMeaning, SharedTerms
from .preparing import LocalEngine, Recipe
from .score_cache import remembering
from .types import Context

if TYPE_CHECKING:
    from .config import (
        EmbedderSettings,
        OpenAISettings,
        QdrantSettings,
        RerankHttpSettings,
        RerankingSettings,
        Settings,
        VerificationSettings,
    )
    from .protocols import Embedder, Generator, Grounder, Reranker, SparseEncoder, Store
    from .types import Chunk, Document, Turn

CHUNK_TOKENIZER = registry.BUNDLED_MODELS / "progressive-reranker" / "tokenizer.json"
"""What `chunking.unit = "tokens"` counts: the tokens that the bundled reranker sees."""

ADOPTED = "adopted"
"""The store that is read, never written."""
_PARSING = "1"
"""Another number whenever the same bytes give another text: documents are then read again, by themselves."""
_RESIDUAL = {"progressive", "torch"}
"""Rerankers that correct a first stage: for one that works elsewhere, and whose client cannot say so."""
_CHATS = {"openai", "langchain"}
"""Generators that are told what to do, and can be told something else."""
_NO_CONTEXT = Context(sources=(), tokens=0)


def embedder(settings: Settings) -> Embedder:
    """From `embedder.model`.

    Raises:
        ConfigError: A collection was adopted, and nobody said what its vectors were made with.
    """
    if settings.store == ADOPTED and "model" not in settings.embedder.model_fields_set:
        raise ConfigError(
            "An adopted collection does not say what its vectors were made with",
            hint="Set embedder.model to that model, such as langchain:openai:text-embedding-3-small",
        )
    wanted = settings.embedder
    return registry.load("embedders", wanted.model, threads=wanted.threads, **_device(wanted))


class Embeddings(Protocol):
    """LangChain's, as far as it is used here."""

    def embed_documents(self, texts: list[str], /) -> list[list[float]]:
        """N texts to n vectors."""
        ...

    def embed_query(self, text: str, /) -> list[float]:
        """One question to one vector."""
        ...


class ChatModel(Protocol):
    """LangChain's, as far as it is used here."""

    def stream(self, messages: Any, /) -> Iterator[Any]:
        """Messages to pieces of one."""
        ...


def given_embedder(given: Embedder | Embeddings) -> Embedder:
    """What the caller gave; LangChain's `Embeddings` in our shape."""
    if _of_langchain(given):
        return registry.load("embedders", "langchain", model=given)
    return cast("Embedder", given)


def given_generator(given: Generator | ChatModel) -> Generator:
    """What the caller gave; a chat model of LangChain's in our shape, with our prompt."""
    if _of_langchain(given):
        return registry.load("generators", "langchain", model=given, render=prompt.messages)
    return cast("Generator", given)


def given_completion(generator: Generator | ChatModel | None) -> Callable[[str], str] | None:
    """What a chat model of LangChain's can be asked beside the answer; None where it is something else."""
    if not _of_langchain(generator):
        return None
    return _completing(registry.load("generators", "langchain", model=generator, render=_as_it_is))


def _of_langchain(given: object) -> bool:
    """By the names of its classes: nothing is imported to find out. What has our shape too is ours."""
    kinds = type(given).__mro__
    return not hasattr(type(given), "fingerprint") and any(
        kind.__module__.partition(".")[0] == "langchain_core" for kind in kinds
    )


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
    backend, arguments = reranking.model.partition(":")[0], dict[str, Any](_device(reranking))
    if backend == "http":
        arguments |= _endpoint(settings.rerank_http)
    elif backend == "torch":
        arguments |= settings.rerank_torch.model_dump()
    made = registry.load("rerankers", reranking.model, threads=reranking.threads, **arguments)
    return made if reranking.cache is None else remembering(made, reranking.cache)


def freestanding(
    settings: Settings, reranker: Reranker, *, embedder: Embedder, sparse_encoder: SparseEncoder
) -> Reranker:
    """For texts in no index: a residual reranker gets the first stage that it builds on; others need none."""
    if not is_residual(reranker, settings.reranking.model):
        return reranker
    return FreestandingReranker(reranker, embedder=embedder, sparse_encoder=sparse_encoder)


def is_residual(reranker: Reranker, name: str) -> bool:
    """Whether it corrects what a first stage says, and ranks far worse without one.

    Args:
        reranker: Says so itself by an attribute `residual`, through whatever wraps it.
        name: As in the registry; counts where the object says nothing.
    """
    said = getattr(reranker, "residual", None)
    return name.partition(":")[0] in _RESIDUAL if said is None else bool(said)


def generator(settings: Settings, *, reranker: Reranker | None, embedder: Embedder) -> Generator:
    """From `generator.model`.

    Raises:
        UsageError: The extractive generator is wanted and there is no reranker.
    """
    name = settings.generator.model
    if name.partition(":")[0] in _CHATS:
        return _chat(settings, name, prompt.messages)
    if reranker is None:
        raise UsageError(
            "The extractive answer needs a reranker",
            hint="Set reranking.model, or generator.model to openai:MODEL",
        )
    return registry.load("generators", name, reranker=reranker, embedder=embedder)


def last_resort(sparse_encoder: SparseEncoder) -> Generator:
    """What quotes sentences by their words alone."""
    return registry.load(
        "generators", "extractive", reranker=SharedTerms(sparse_encoder), embedder=NoMeaning()
    )


def completion(settings: Settings) -> Callable[[str], str] | None:
    """What asks the language model something else than the answer; None where there is no model.

    From `expansion.model`, else from `generator.model`.
    """
    name = settings.expansion.model or settings.generator.model
    if name.partition(":")[0] not in _CHATS:
        return None
    return _completing(_chat(settings, name, _as_it_is))


def _completing(chat: Generator) -> Callable[[str], str]:
    return lambda text: "".join(chat.stream(text, _NO_CONTEXT))


def _chat(
    settings: Settings,
    name: str,
    render: Callable[[str, Context, Sequence[Turn]], list[dict[str, str]]],
) -> Generator:
    if name.partition(":")[0] == "openai":
        return registry.load("generators", name, render=render, **_endpoint(settings.openai))
    chat = settings.openai
    return registry.load(
        "generators",
        name,
        render=render,
        temperature=chat.temperature,
        timeout=chat.timeout,
        max_tokens=chat.max_tokens,
    )


def _as_it_is(text: str, _: Context, __: Sequence[Turn]) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def token_counter(settings: Settings) -> Callable[[str], int]:
    """How the model that reads the context counts: by its tokenizer where that is here, else an estimate.

    Raises:
        ConfigError: `context.tokenizer` is no tokenizer.
    """
    file = settings.context.tokenizer
    if file is None and settings.generator.model.partition(":")[0] in _CHATS:
        return context.estimate_tokens
    return _counter(file.expanduser() if file else CHUNK_TOKENIZER)


@cache
def _counter(file: Path) -> Callable[[str], int]:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001 - tokenizers raises bare Exception
        raise ConfigError(f"{file} is no tokenizer: {error}", hint="See context.tokenizer") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def fallback(settings: Settings, *, reranker: Reranker | None, embedder: Embedder) -> Generator | None:
    """What quotes sentences when the language model is down; None where it is not wanted or cannot be."""
    own = settings.generator.model.partition(":")[0] == "extractive"
    if own or not settings.generator.fallback or reranker is None:
        return None
    return registry.load("generators", "extractive", reranker=reranker, embedder=embedder)


def grounder(settings: Settings) -> Grounder | None:
    """From `verification.model`; None where that is `none`."""
    wanted = settings.verification
    if wanted.model == "none":
        return None
    return registry.load("grounders", wanted.model, threads=wanted.threads, **_device(wanted))


def loader(settings: Settings) -> loading.Loader:
    """From `loading`: reads files in child processes with limits, which are started when they are needed."""
    given = settings.loading.model_dump()
    workers, fields = given.pop("workers"), given.pop("fields")
    return loading.Loader(loading.Limits(**given), workers or None, fields=fields)


def recipe(settings: Settings) -> Recipe:
    """From `chunking` and `loading.fields`: how a file becomes chunks, marked for near-duplicates."""
    cut = settings.chunking
    cutting = chunking.fingerprint(cut.size, cut.overlap, cut.unit, CHUNK_TOKENIZER)
    fields = "".join(f" field:{name}" for name in settings.loading.fields)
    return Recipe(
        split=partial(_cut, settings),
        fingerprint=f"parsing:{_PARSING}{fields} {cutting} {likeness.FINGERPRINT}",
    )


def _cut(settings: Settings, document: Document, generation: str) -> Sequence[Chunk]:
    cut = settings.chunking
    chunks = chunking.split(
        document,
        size=cut.size,
        overlap=cut.overlap,
        unit=cut.unit,
        tokenizer_file=CHUNK_TOKENIZER,
        generation=generation,
    )
    return [replace(chunk, minhash=likeness.mark(chunk.text)) for chunk in chunks]


def local_engine(settings: Settings) -> LocalEngine:
    """What prepares documents in this process, with parsers in children of it."""
    return LocalEngine(recipe(settings), partial(loader, settings))


def index_folder(settings: Settings) -> Path:
    """What is kept here of an index: all of it, or what is known of the one on a server.

    What is on one server says nothing of what is on another, or in the folder itself.
    """
    if settings.store not in {"qdrant", ADOPTED}:
        return settings.index.path
    kind = "server" if settings.store == "qdrant" else ADOPTED
    where = f"{str(settings.qdrant.url).rstrip('/')}\n{settings.qdrant.collection}"
    return settings.index.path / f"{kind}-{sha256(where.encode()).hexdigest()[:12]}"


def manifest_name(settings: Settings) -> str:
    """One for each tenant: who shares an index still has documents of one's own."""
    tenant = settings.index.tenant
    return f"manifest-{tenant}.sqlite" if tenant else "manifest.sqlite"


def check_no_other_tenant(settings: Settings, home: Path) -> None:
    """Before a whole index is thrown away or built anew.

    Raises:
        UsageError: It holds documents of other tenants too.
    """
    own = manifest_name(settings)
    if others := sorted(file.name for file in home.glob("manifest*.sqlite") if file.name != own):
        raise UsageError(
            f"The index holds documents of other tenants too ({', '.join(others)})",
            hint="This would throw theirs away: give this tenant an index of its own, "
            "or delete the folder and ingest for every tenant",
        )


def store(
    settings: Settings,
    *,
    dimension: int = 1,
    fingerprint: Mapping[str, str] | None = None,
    create: bool = False,
    **shared: Any,
) -> Store:
    """From `index.store`.

    Args:
        settings: All of them.
        dimension: Length of the dense vectors; of no meaning for one that is there.
        fingerprint: Everything that its contents depend on; None opens it whatever that is.
        create: Whether to make an index where there is none.
        shared: What only a store on a server takes.
    """
    return registry.load(
        "stores",
        settings.store,
        **_place(settings),
        dimension=dimension,
        fingerprint=fingerprint,
        create=create,
        tenant=settings.index.tenant,
        **shared,
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


def diagnose_store(settings: Settings) -> str | None:
    """A sentence on the server that holds the index; None where it is a folder.

    Raises:
        CrossragError: It cannot be reached or used.
    """
    return registry.diagnose("stores", settings.store, **_place(settings))


def place(settings: Settings) -> str:
    """Where the index is, for people."""
    if settings.store == "edge":
        return str(settings.index.path)
    return f"{settings.qdrant.url}, collection {settings.qdrant.collection}"


def _place(settings: Settings) -> dict[str, Any]:
    """Where the store is: a folder, or a server."""
    if settings.store not in {"qdrant", ADOPTED}:
        return {"path": settings.index.path}
    if not settings.qdrant.url:
        raise ConfigError(f"index.store is {settings.store} and there is no address", hint="Set qdrant.url")
    if settings.store == ADOPTED:
        return {**_endpoint(settings.qdrant), **settings.adopt.model_dump(), "clean": loading.clean_text}
    return _endpoint(settings.qdrant)


def _device(section: EmbedderSettings | RerankingSettings | VerificationSettings) -> dict[str, str]:
    """Only where one is said: other people's backends need not take it."""
    return {} if section.device is None else {"device": section.device}


def _endpoint(section: OpenAISettings | RerankHttpSettings | QdrantSettings) -> dict[str, Any]:
    """The section as arguments, its key in the clear."""
    key = section.api_key.get_secret_value() if section.api_key else None
    return section.model_dump(exclude={"api_key"}) | {"api_key": key}
