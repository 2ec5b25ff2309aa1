"""Settings: one inert tree from defaults < user file < project file < environment < arguments.

Building it creates no model, client or path. Knows nothing of the stages that it configures.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from . import environment
from .errors import ConfigError, did_you_mean
from .loading_settings import LoadingSettings
from .qdrant_settings import AdoptSettings
from .qdrant_settings import QdrantSettings as QdrantSettings  # noqa: PLC0414 - given on
from .ray_settings import RaySettings
from .section import Section
from .server_settings import ServerSettings

PROJECT_FILE = "crossrag.toml"

_DEVICE = "^(cpu|cuda(:[0-9]+)?)$"
Method = Literal["feedback", "variants", "multi-query", "hyde", "step-back", "decompose"]


class IndexSettings(Section):
    """Where the index lives."""

    path: Path = Field(Path(".crossrag"), description="folder of the index")
    store: str = Field(
        "edge",
        description="edge, qdrant or adopted; qdrant by itself where qdrant.url is set",
    )
    tenant: str = Field(
        "", pattern="^([a-z0-9][a-z0-9_-]{0,62})?$", description="whose documents are read and written"
    )


class EmbedderSettings(Section):
    """Text to dense vectors."""

    model: str = Field("onnx:bundled", description="backend:model")
    threads: int = Field(0, ge=0, description="threads for the model; 0 = all cores")
    device: str | None = Field(
        None, pattern=_DEVICE, description="cpu, cuda or cuda:1; none = cpu, in torch a GPU if there is one"
    )


class SparseSettings(Section):
    """Text to BM25 terms. `average_length` is in terms, stop words left out."""

    model: str = Field("bm25", description="backend")
    language: str = Field("english", description="stemmer and stop words")
    average_length: float = Field(80.0, gt=0, description="typical terms per chunk, BM25's avgdl")


class ChunkingSettings(Section):
    """Documents to passages."""

    size: int = Field(800, ge=1, description="longest passage, in units")
    overlap: int = Field(150, ge=0, description="units shared by neighbours")
    unit: Literal["characters", "tokens"] = Field("characters", description="what size counts")

    @model_validator(mode="after")
    def _overlap_fits(self) -> Self:
        if self.overlap >= self.size:
            raise ValueError(f"overlap {self.overlap} must be smaller than size {self.size}")
        return self


class RetrievalSettings(Section):
    """Question to candidates."""

    fetch_k: int = Field(100, ge=1, le=10_000, description="candidates from each leg")
    rrf_k: int = Field(60, ge=1, description="constant of reciprocal rank fusion")
    dense_weight: float = Field(
        1.0, gt=0, le=100, description="of the dense leg in that fusion, where BM25 has 1"
    )
    duplicates: float = Field(
        0.9, ge=0, le=1, description="likeness of passages counted as one; 0 = none are"
    )
    search_type: Literal["similarity", "mmr"] = Field(
        "similarity", description="keep the most relevant, or relevant ones unlike each other"
    )
    lambda_mult: float = Field(0.7, ge=0, le=1, description="of mmr: 1 = pure relevance, 0 = pure diversity")
    mmr: Literal["reranked", "fetched"] = Field(
        "reranked", description="what mmr chooses from; fetched = before reranking, as LangChain does"
    )


class ExpansionSettings(Section):
    """Question to further searches."""

    methods: tuple[Method, ...] = Field(
        (),
        description="with commas: feedback, variants; by a language model multi-query, hyde, step-back, "
        "decompose",
    )
    model: str | None = Field(
        None, description="openai:MODEL for expansion and follow-ups; none = generator.model"
    )
    weight: float = Field(
        0.5, gt=0, le=1, description="of an expansion's passages; the question's own have 1"
    )
    query_tokens: int = Field(160, ge=16, description="longest question; longer ones are condensed")

    @field_validator("methods", mode="before")
    @classmethod
    def _methods_with_commas(cls, value: object) -> object:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


class ConversationSettings(Section):
    """Question and earlier turns to a question that stands alone."""

    rewrite: bool = Field(default=True, description="complete follow-ups by what was asked before")
    turns: int = Field(6, ge=1, le=100, description="earlier messages that are looked at")


class RerankingSettings(Section):
    """Candidates to the few that matter."""

    model: str = Field("progressive:bundled", description="backend:model, or `none` for first-stage order")
    depth: int = Field(100, ge=1, le=1_000, description="candidates that the cross-encoder reads")
    top_k: int = Field(6, ge=1, le=1_000, description="passages kept")
    threshold: float | str = Field(0.03, description="least relevance for an answer; or `precision>=0.9`")
    deadline: float | None = Field(None, gt=0, description="seconds for reranking; none = no limit")
    cache: Path | None = Field(None, description="SQLite file that remembers scores; none = off")
    threads: int = Field(0, ge=0, description="threads for the model; 0 = all cores")
    device: str | None = Field(
        None, pattern=_DEVICE, description="cpu, cuda or cuda:1; none = cpu, in torch a GPU if there is one"
    )

    @field_validator("cache", mode="before")
    @classmethod
    def _cache_may_be_off(cls, value: object) -> object:
        return None if value in {"", "none"} else value

    @field_validator("threshold", mode="before")
    @classmethod
    def _threshold_is_one(cls, value: object) -> object:
        number = str(value).partition(">=")[2] if str(value).startswith("precision>=") else str(value)
        try:
            if 0.0 <= float(number) <= 1.0 and not isinstance(value, bool):
                return value if isinstance(value, str) and value.startswith("precision") else float(number)
        except ValueError:
            pass
        raise ValueError("a number from 0 to 1, or such as precision>=0.9")


class RerankHttpSettings(Section):
    """A rerank endpoint, for `reranking.model = http:…`."""

    base_url: str | None = Field(None, description="endpoint; none = the maker's own")
    model: str | None = Field(None, description="model on the server; none = its default")
    api_key: SecretStr | None = Field(None, description="key; none = COHERE_API_KEY or JINA_API_KEY")
    timeout: float = Field(30.0, gt=0, description="seconds for one request")
    max_retries: int = Field(2, ge=0, le=10, description="further tries when the server is busy")
    revision: str | None = Field(
        None,
        description="a name to change whenever the server's model does; none = scores are not remembered",
    )


class RerankTorchSettings(Section):
    """The reranker in torch, for `reranking.model = torch:…`."""

    precision: Literal["auto", "bf16", "fp32"] = Field("auto", description="auto = bf16 on a GPU that has it")
    compiled: bool = Field(default=False, description="let torch compile it; the first batches wait for that")
    batch_tokens: int | None = Field(
        None, ge=512, description="most tokens of a batch; none = 65536 on a GPU, 4096 elsewhere"
    )


class ContextSettings(Section):
    """Passages to the generator's context."""

    token_budget: int = Field(2_000, ge=1, description="most tokens of context")
    neighbours: int = Field(0, ge=0, le=10, description="chunks on either side that a passage may take in")
    order: Literal["best-first", "both-ends"] = Field("best-first", description="of passages in the context")
    tokenizer: Path | None = Field(
        None, description="tokenizer.json of the model; none = bundled for quotes, else bytes / 4"
    )

    @field_validator("tokenizer", mode="before")
    @classmethod
    def _tokenizer_may_be_none(cls, value: object) -> object:
        return None if value in {"", "none"} else value


class GeneratorSettings(Section):
    """Context to answer."""

    model: str = Field("extractive", description="`extractive`, `openai:MODEL` or `langchain:PROVIDER:MODEL`")
    fallback: bool = Field(default=True, description="quote the best sentences when the model is down")
    deadline: float | None = Field(None, gt=0, description="seconds for a whole answer; none = no limit")


class VerificationSettings(Section):
    """Answer to checked answer."""

    model: str = Field("onnx:bundled", description="backend:model, or `none` for numbers and quotes only")
    policy: Literal["mark", "drop", "regenerate"] = Field(
        "mark", description="what becomes of statements that the sources do not support"
    )
    threshold: float = Field(0.5, ge=0, le=1, description="least support of a statement that holds")
    threads: int = Field(0, ge=0, description="threads for the model; 0 = all cores")
    device: str | None = Field(
        None, pattern=_DEVICE, description="cpu, cuda or cuda:1; none = cpu, in torch a GPU if there is one"
    )


class OpenAISettings(Section):
    """Any OpenAI-compatible endpoint."""

    base_url: str | None = Field(None, description="endpoint; none = OpenAI's own")
    api_key: SecretStr | None = Field(None, description="key; none = OPENAI_API_KEY")
    temperature: float | None = Field(0.0, ge=0.0, le=2.0, description="randomness of the model")
    timeout: float = Field(60.0, gt=0, description="seconds without a word before giving up")
    max_retries: int = Field(2, ge=0, le=10, description="further tries before the first token")
    max_tokens: int | None = Field(None, ge=1, description="longest answer; none = the model's own")


class Settings(Section):
    """Everything that can be set. Sections are named after the stages."""

    index: IndexSettings = IndexSettings()
    qdrant: QdrantSettings = QdrantSettings()
    adopt: AdoptSettings = AdoptSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    sparse: SparseSettings = SparseSettings()
    loading: LoadingSettings = LoadingSettings()
    chunking: ChunkingSettings = ChunkingSettings()
    expansion: ExpansionSettings = ExpansionSettings()
    conversation: ConversationSettings = ConversationSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    reranking: RerankingSettings = RerankingSettings()
    rerank_http: RerankHttpSettings = RerankHttpSettings()
    rerank_torch: RerankTorchSettings = RerankTorchSettings()
    context: ContextSettings = ContextSettings()
    generator: GeneratorSettings = GeneratorSettings()
    openai: OpenAISettings = OpenAISettings()
    verification: VerificationSettings = VerificationSettings()
    server: ServerSettings = ServerSettings()
    ray: RaySettings = RaySettings()

    @property
    def store(self) -> str:
        """`index.store`; a server where only its address is given."""
        given = "store" in self.index.model_fields_set
        return "qdrant" if self.qdrant.url and not given else self.index.store


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One leaf of the tree, for people: secrets are masked."""

    name: str
    value: str
    origin: str
    description: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and, for every leaf that is not a default, where it came from."""

    settings: Settings
    origins: Mapping[str, str]

    def rows(self) -> Iterator[Setting]:
        """Every leaf in order of declaration."""
        for section, field in Settings.model_fields.items():
            values = getattr(self.settings, section)
            assert isinstance(field.annotation, type)  # noqa: S101 - tells the type checker what Settings guarantees
            for name, leaf in values.__class__.model_fields.items():
                value = getattr(values, name)
                key = f"{section}.{name}"
                yield Setting(
                    name=key,
                    value=""
                    if value is None
                    else ",".join(map(str, value))
                    if isinstance(value, tuple)
                    else str(value),
                    origin=self.origins.get(key, "default"),
                    description=leaf.description or "",
                )


def load_settings(
    arguments: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    config_file: Path | None = None,
    config_text: str | None = None,
    environ: Mapping[str, str] = os.environ,
    directory: Path | None = None,
) -> Loaded:
    """Merge all layers, the later one winning leaf by leaf.

    Args:
        arguments: Section to key to value; what the caller said in so many words.
        config_file: Read in place of `crossrag.toml` in `directory`; must exist.
        config_text: What such a file would say, in place of any.
        environ: `CROSSRAG_SECTION__KEY` variables are read, such as `CROSSRAG_RERANKING__TOP_K`.
        directory: Where `crossrag.toml` is looked for; the working directory if None.

    Raises:
        ConfigError: A key is unknown, a value is wrong, or a file is no TOML.
    """
    merged: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    project = _project(config_file, config_text, directory or Path.cwd())
    for origin, layer in _layers(arguments or {}, project, environ):
        for section, values in layer.items():
            _check_known(section, Settings.model_fields, origin, "section")
            if not isinstance(values, Mapping):
                raise ConfigError(
                    f"{section} is a section, not a value ({origin})", hint=f"Write [{section}]"
                )
            keys = getattr(Settings(), section).__class__.model_fields
            for key, value in values.items():
                _check_known(key, keys, origin, f"key of [{section}]")
                merged.setdefault(section, {})[key] = value
                origins[f"{section}.{key}"] = origin
    try:
        return Loaded(Settings.model_validate(merged), origins)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{name}: {first['msg']} ({origins.get(name, 'default')})", hint="See `crossrag config show`"
        ) from None


def user_file() -> Path:
    """The settings file that holds for every project of this user."""
    from platformdirs import user_config_path

    return user_config_path("crossrag") / "config.toml"


def _layers(
    arguments: Mapping[str, Any], project: tuple[str, Mapping[str, Any]], environ: Mapping[str, str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if (file := user_file()).is_file():
        yield str(file), _read_toml(file)
    yield project
    for variable, section, key, text in environment.settings(environ):
        yield variable, {section: {key: text}}
    yield "argument", arguments


def _project(file: Path | None, text: str | None, directory: Path) -> tuple[str, Mapping[str, Any]]:
    if text is not None:
        return "settings text", _parsed(text, "The text of the settings")
    if file is not None and not file.is_file():
        raise ConfigError(f"There is no settings file {file}", hint="Check the path given with --config")
    file = file or directory / PROJECT_FILE
    return file.name, _read_toml(file) if file.is_file() else {}


def _parsed(text: str, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{origin} is not valid TOML: {error}", hint="Mend the line named") from None


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return _parsed(file.read_text(encoding="utf-8"), str(file))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}", hint="Mend the line named") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}", hint="Check its permissions") from None


def _check_known(name: str, known: Mapping[str, Any], origin: str, kind: str) -> None:
    if name not in known:
        raise ConfigError(f"{name!r} is no {kind} ({origin})", hint=did_you_mean(name, known))
