"""`backend:model` names -> where the backend lives and which extra it needs. Loaded lazily, from strings.

Third parties add backends through entry points named `crossrag.embedders`, `crossrag.rerankers`,
`crossrag.sparse_encoders`, `crossrag.stores`, `crossrag.generators` and `crossrag.grounders`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from .errors import ConfigError, MissingExtraError, did_you_mean

if TYPE_CHECKING:
    from .protocols import Embedder, Generator, Grounder, Reranker, SparseEncoder, Store

Kind = Literal["embedders", "sparse_encoders", "rerankers", "stores", "generators", "grounders"]
BUNDLED_MODELS = Path(__file__).parent / "models"


@dataclass(frozen=True, slots=True)
class Backend:
    """Where a backend lives. `model` names the argument that takes what follows the colon."""

    target: str
    """`module:attribute`."""
    summary: str
    model: str | None = None
    bundled: str | None = None
    """Folder under `crossrag/models` that `:bundled` stands for."""
    needs: str | None = None
    """Module that must be importable."""
    extra: str | None = None
    device: bool = False
    """Whether it takes a device, and may run on a GPU."""
    diagnosis: str | None = None
    """`module:function` that takes the same arguments and says in a sentence how the other side is."""


BACKENDS: dict[Kind, dict[str, Backend]] = {
    "embedders": {
        "onnx": Backend(
            "crossrag.embedders.onnx:OnnxEmbedder",
            "any folder with model.onnx and tokenizer.json, or `bundled`",
            model="directory",
            bundled="minilm-l6-embedder",
            device=True,
        ),
        "static": Backend(
            "crossrag.embedders.static:StaticEmbedder",
            "a folder with a table of token vectors, for very large folders of documents",
            model="directory",
        ),
        "langchain": Backend(
            "crossrag.embedders.langchain:LangChainEmbedder",
            "any LangChain embeddings, such as langchain:openai:text-embedding-3-small",
            model="model",
            needs="langchain",
            extra="langchain",
        ),
    },
    "sparse_encoders": {"bm25": Backend("crossrag.embedders.bm25:EdgeBm25", "BM25 by Qdrant Edge")},
    "rerankers": {
        "progressive": Backend(
            "crossrag.rerankers.progressive:ProgressiveReranker",
            "crossrag's own: `bundled`, or a folder that `crossrag train` made",
            model="directory",
            bundled="progressive-reranker",
            device=True,
        ),
        "torch": Backend(
            "crossrag.rerankers.torch:TorchReranker",
            "the same folders in torch, for a GPU",
            model="directory",
            bundled="progressive-reranker",
            needs="torch",
            extra="training",
            device=True,
        ),
        "onnx": Backend(
            "crossrag.rerankers.onnx:OnnxReranker",
            "any cross-encoder in a folder with model.onnx and tokenizer.json",
            model="directory",
            device=True,
        ),
        "sentence-transformers": Backend(
            "crossrag.rerankers.sentence_transformers:SentenceTransformersReranker",
            "any CrossEncoder in a folder on this machine, on a GPU where there is one",
            model="model",
            needs="sentence_transformers",
            extra="sentence-transformers",
            device=True,
        ),
        "http": Backend(
            "crossrag.rerankers.http:HttpReranker",
            "a rerank endpoint: http:cohere, http:jina, http:vllm or http:tei",
            model="dialect",
            needs="httpx",
            extra="http",
        ),
    },
    "stores": {
        "edge": Backend("crossrag.stores.edge:EdgeStore", "Qdrant's engine in process"),
        "qdrant": Backend(
            "crossrag.stores.qdrant:QdrantStore",
            "a Qdrant server, Qdrant Cloud or a cluster",
            needs="qdrant_client",
            extra="qdrant",
            diagnosis="crossrag.stores.qdrant_diagnosis:diagnose",
        ),
        "adopted": Backend(
            "crossrag.stores.adopted:AdoptedStore",
            "a collection of Qdrant's that something else made, read as it is",
            needs="qdrant_client",
            extra="qdrant",
            diagnosis="crossrag.stores.qdrant_diagnosis:diagnose",
        ),
    },
    "generators": {
        "extractive": Backend(
            "crossrag.generators.extractive:ExtractiveGenerator",
            "the best sentences, verbatim; no model needed",
        ),
        "openai": Backend(
            "crossrag.generators.openai:OpenAIGenerator",
            "any OpenAI-compatible endpoint, such as openai:gpt-4o-mini",
            model="model",
            needs="openai",
            extra="openai",
        ),
        "langchain": Backend(
            "crossrag.generators.langchain:LangChainGenerator",
            "any LangChain chat model, such as langchain:anthropic:claude-haiku-4-5",
            model="model",
            needs="langchain",
            extra="langchain",
        ),
    },
    "grounders": {
        "onnx": Backend(
            "crossrag.grounders.onnx:OnnxGrounder",
            "crossrag's own: `bundled`, or a folder of that kind",
            model="directory",
            bundled="grounding",
            device=True,
        ),
    },
}


@overload
def load(kind: Literal["embedders"], name: str, **arguments: Any) -> Embedder: ...
@overload
def load(kind: Literal["sparse_encoders"], name: str, **arguments: Any) -> SparseEncoder: ...
@overload
def load(kind: Literal["rerankers"], name: str, **arguments: Any) -> Reranker: ...
@overload
def load(kind: Literal["stores"], name: str, **arguments: Any) -> Store: ...
@overload
def load(kind: Literal["generators"], name: str, **arguments: Any) -> Generator: ...
@overload
def load(kind: Literal["grounders"], name: str, **arguments: Any) -> Grounder: ...
def load(kind: Kind, name: str, **arguments: Any) -> Any:
    """Make the backend that `name` stands for.

    Args:
        kind: Which seam.
        name: `backend` or `backend:model`.
        arguments: Handed to its constructor.

    Raises:
        ConfigError: There is no such backend; the message lists the choices.
        MissingExtraError: Its library is not installed; the message says how to install it.
    """
    backend_name, _, model = name.partition(":")
    backend = find(kind, backend_name)
    _check_installed(backend, name)
    if backend.model and not model and backend.model not in arguments and name in BACKENDS[kind]:
        raise ConfigError(f"{name} needs to be told which one", hint=f"Write {name}:… ({backend.summary})")
    if "device" in arguments and not backend.device and backend_name in BACKENDS[kind]:
        raise ConfigError(f"{backend_name} runs on no device of its own", hint="Leave `device` out")
    if model:
        if backend.model is None:
            raise ConfigError(f"{backend_name} takes no model, got {name!r}", hint=f"Write {backend_name}")
        arguments[backend.model] = _resolved(backend, model)
    return _target(backend.target)(**arguments)


def diagnose(kind: Kind, name: str, **arguments: Any) -> str | None:
    """A sentence on what a backend talks to; None where it talks to nothing.

    Raises:
        CrossragError: Something is wrong there.
    """
    backend = find(kind, name)
    if backend.diagnosis is None:
        return None
    _check_installed(backend, name)
    return str(_target(backend.diagnosis)(**arguments))


def _check_installed(backend: Backend, name: str) -> None:
    if backend.needs and find_spec(backend.needs) is None:
        raise MissingExtraError(
            f"{name} needs the package {backend.needs}", hint=f"pip install 'crossrag[{backend.extra}]'"
        )


def _target(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def find(kind: Kind, name: str) -> Backend:
    """Look a backend up in the table, then among installed entry points."""
    table = BACKENDS[kind]
    if name in table:
        return table[name]
    plugins = {point.name: point for point in entry_points(group=f"crossrag.{kind}")}
    if name in plugins:
        return Backend(plugins[name].value, "installed plug-in", model="model")
    raise ConfigError(
        f"There is no {kind.removesuffix('s').replace('_', ' ')} {name!r}",
        hint=did_you_mean(name, {*table, *plugins}),
    )


def folder(kind: Kind, name: str) -> Path | None:
    """Where the files of `backend:model` are on this machine; None where there is no such folder."""
    backend, _, model = name.partition(":")
    known = BACKENDS[kind].get(backend)
    found = Path(_resolved(known, model) if known else model).expanduser()
    return found if model and found.is_dir() else None


def _resolved(backend: Backend, model: str) -> Path | str:
    if backend.bundled and model == "bundled":
        return BUNDLED_MODELS / backend.bundled
    return Path(model).expanduser() if backend.model == "directory" else model
