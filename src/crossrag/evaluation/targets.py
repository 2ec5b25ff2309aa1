"""What conformance is checked of: `progressive`, `onnx:DIR`, `rag`, `package.module:factory` -> a target.

Knows how a reranker and a Rag are asked; the checks know neither.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrag import assembly, registry
from crossrag.config import load_settings
from crossrag.errors import ConfigError, UsageError
from crossrag.freestanding import first_stage_scores
from crossrag.pipeline import Rag
from crossrag.protocols import Reranker
from crossrag.testing.conformance import Passage, Ranked, Target
from crossrag.testing.conformance.material import CORPUS

if TYPE_CHECKING:
    from crossrag.config import Settings
    from crossrag.protocols import Embedder, SparseEncoder
    from crossrag.types import Relevance, Scores

FirstStage = Callable[[str, Sequence[str]], list["Scores"]]
_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class RerankerTarget:
    """A reranker of crossrag's shape.

    Args:
        reranker: What is asked.
        first_stage: Scores for a residual reranker, of each text by itself.
    """

    def __init__(self, reranker: Reranker, first_stage: FirstStage | None = None) -> None:
        self._reranker, self._first_stage = reranker, first_stage

    def rank(self, query: str, texts: Sequence[str], top_k: int) -> list[Ranked]:
        """By logit, equal to five decimals; then as given."""
        scores = self._first_stage(query, texts) if self._first_stage else None
        said = self._reranker.score(query, texts, first_stage=scores, top_k=top_k)
        return _order(said)[:top_k]


class RagTarget:
    """`Rag.rerank` for texts in no index, and `Rag.search` over an index made for the checks."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rag = Rag(settings)

    def rank(self, query: str, texts: Sequence[str], top_k: int) -> list[Ranked]:
        """All of them are read; the best are handed out."""
        return _order(self._rag.rerank(query, texts))[:top_k]

    def retriever(self, passages: Sequence[Passage]) -> IndexTarget:
        """An index in a folder that is gone afterwards, whatever index the settings name."""
        return IndexTarget(self._settings, passages)


class IndexTarget:
    """Passages as files, indexed and searched by a Rag."""

    def __init__(self, settings: Settings, passages: Sequence[Passage]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="crossrag-conformance-")
        home = Path(self._folder.name)
        documents = home / "documents"
        documents.mkdir()
        rows = []
        for passage in passages:
            (documents / f"{passage.id}.txt").write_text(passage.text, encoding="utf-8")
            rows.append(json.dumps({"source": f"{passage.id}.txt", **passage.metadata}))
        (documents / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
        index = settings.index.model_copy(update={"path": home / "index", "store": "edge"})
        qdrant = settings.qdrant.model_copy(update={"url": None})
        self._settings = settings.model_copy(update={"index": index, "qdrant": qdrant})
        self._rag = Rag(self._settings)
        self._rag.ingest(documents)

    def search(self, query: str, top_k: int, where: Mapping[str, str] | None = None) -> list[str]:
        """Names of the files without their suffix."""
        return [Path(one.chunk.source).stem for one in self._rag.search(query, top_k=top_k, where=where)]

    def mmr(self, query: str, top_k: int, fetch_k: int, lambda_mult: float) -> list[str]:
        """As the settings do it, before or after reranking."""
        changed = {"search_type": "mmr", "fetch_k": fetch_k, "lambda_mult": lambda_mult}
        retrieval = self._settings.retrieval.model_copy(update=changed)
        self._rag.settings = self._settings.model_copy(update={"retrieval": retrieval})
        try:
            return self.search(query, top_k)
        finally:
            self._rag.settings = self._settings

    def close(self) -> None:
        """Let go of the index and remove it."""
        self._rag.close()
        self._folder.cleanup()


def target(name: str, settings: Settings | None = None) -> Target:
    """What a name stands for.

    Args:
        name: `rag`; a reranker of the registry, `progressive` being the bundled one; or
            `package.module:factory`, which is imported and called, and gives a target or a Reranker.
        settings: For `rag`, and for the embedder of a residual reranker.

    Raises:
        ConfigError: There is no such reranker.
        UsageError: The factory cannot be imported, or gives something else.
    """
    settings = settings or load_settings({}).settings
    if name == "rag":
        return RagTarget(settings)
    backend = name.partition(":")[0]
    if _FACTORY.fullmatch(name) and not _registered(backend):
        return _from(name, settings)
    wanted = "progressive:bundled" if name == "progressive" else name
    chosen = settings.reranking.model_copy(update={"model": wanted, "cache": None})
    reranker = assembly.reranker(settings.model_copy(update={"reranking": chosen}))
    if reranker is None:
        raise UsageError("There is nothing to check in `none`", hint="Name a reranker, such as progressive")
    residual = assembly.is_residual(reranker, wanted)
    return RerankerTarget(reranker, _first_stage(settings) if residual else None)


def _order(said: Relevance) -> list[Ranked]:
    order = sorted(range(len(said.logit)), key=lambda place: (-round(said.logit[place], 5), place))
    return [Ranked(place, said.logit[place], None, said.truncated[place]) for place in order]


def _first_stage(settings: Settings) -> FirstStage:
    """Cosine and BM25 as a search gives them: of each text, whatever other texts there are.

    How rare a word is comes from the suite's corpus, as from an index.
    """
    embedder: Embedder = assembly.embedder(settings)
    sparse_encoder: SparseEncoder = assembly.sparse_encoder(settings)
    rest = [passage.text for passage in CORPUS]

    @cache
    def one(query: str, text: str) -> Scores:
        return first_stage_scores(query, [text, *rest], embedder=embedder, sparse_encoder=sparse_encoder)[0]

    return lambda query, texts: [one(query, text) for text in texts]


def _registered(backend: str) -> bool:
    try:
        registry.find("rerankers", backend)
    except ConfigError:
        return False
    return True


def _from(name: str, settings: Settings) -> Target:
    """The user's own code: it is imported, as they asked."""
    module, _, attribute = name.partition(":")
    try:
        factory = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"{name} cannot be imported: {error}",
            hint="Write package.module:factory, from the folder that the package is in, or a reranker's name",
        ) from None
    made: Any = factory()
    if hasattr(made, "rank") or hasattr(made, "retriever"):
        return made  # type: ignore[no-any-return]
    if isinstance(made, Reranker):
        residual = assembly.is_residual(made, name)
        return RerankerTarget(made, _first_stage(settings) if residual else None)
    raise UsageError(
        f"{name} gives a {type(made).__name__}",
        hint="A target has rank or retriever (crossrag.testing.conformance); a Reranker has score",
    )
