"""CrossEncoderRetriever: an index of crossrag's, or any vector store or retriever, read by the cross-encoder.

Fetches widely, reranks, leaves out what is not relevant enough, then diversifies: in this order, so that the
reranker sees all that was fetched.
"""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import run_in_executor
from langchain_core.vectorstores import VectorStore
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from crossrag import searching
from crossrag.errors import UsageError, did_you_mean
from crossrag.pipeline import Rag

from . import scoring
from .filtering import for_qdrant, where_of

if TYPE_CHECKING:
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
    from langchain_core.documents import Document

    from crossrag.config import Settings
    from crossrag.parts import Finding

_LOG = logging.getLogger(__name__)
_FETCHED = 50
"""Documents that are asked of a vector store where nobody says how many."""
_OF_LANGCHAIN = {"verbose"}
"""Arguments of `invoke` that are LangChain's own."""


class Wanted(BaseModel):
    """What one search looks for; the retriever's own, or what `invoke` says."""

    k: int = Field(default=6, ge=1)
    """Most documents. Fewer come where fewer are found or reach the threshold."""
    fetch_k: int | None = Field(default=None, ge=1)
    """Documents to be reranked; of an index, from each leg. None is the index's setting, or 50."""
    search_type: Literal["similarity", "mmr", "similarity_score_threshold"] | None = None
    """`mmr` takes relevant ones unlike each other, after reranking. None is the index's setting."""
    lambda_mult: float | None = Field(default=None, ge=0, le=1)
    """Of `mmr`: 1 is pure relevance, 0 pure diversity. None is the index's setting, or 0.7."""
    score_threshold: float | None = Field(default=None, ge=0, le=1)
    """Least relevance after reranking; None keeps irrelevant documents too."""
    filter: Any = None
    """Of metadata: a mapping in crossrag's language, `qdrant_client`'s, or the vector store's own."""

    model_config = ConfigDict(extra="forbid")


class CrossEncoderRetriever(BaseRetriever):
    """The documents that a cross-encoder finds most relevant, with `metadata["relevance_score"]`.

    Exactly one of `rag`, `index` and `base` says where to look; with `base`, `rag` may lend its models.

        CrossEncoderRetriever(index="./index")
        CrossEncoderRetriever(rag=rag, k=3, filter={"year": {"gte": 2020}})
        CrossEncoderRetriever(base=vectorstore, search_type="mmr", k=6, fetch_k=25, lambda_mult=0.7)

    Every search option can be given for one call: `retriever.invoke(question, k=3)`.

    Raises:
        UsageError: Nothing, or too much, says where to look; an option is unknown or has a wrong value.
    """

    rag: Rag | None = Field(default=None, repr=False)
    """Searched, or with `base` used for its models alone."""
    index: Path | None = None
    """Folder of an index, opened at the first search and held until `close`."""
    base: VectorStore | BaseRetriever | None = Field(default=None, repr=False)
    """Fetches; how much a retriever fetches is its own business, and it gets no filter."""
    reranker: Any = Field(default=None, repr=False)
    """With `base`: a name as in `reranking.model`, or an object; None for that of the settings."""
    k: int = 6
    fetch_k: int | None = None
    search_type: str | None = None
    lambda_mult: float | None = None
    score_threshold: float | None = None
    filter: Any = None

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (
            sum(place is not None for place in (self.index, self.base, self.rag if not self.base else None))
            != 1
        ):
            raise UsageError(
                "A CrossEncoderRetriever looks in one place",
                hint="Give one of rag=, index= and base=; rag= beside base= lends its models",
            )
        if self.reranker is not None and (self.base is None or self.rag is not None):
            raise UsageError("reranker= goes with base= alone", hint="Set reranking.model of the Rag")
        self._wanted({})
        return self

    def close(self) -> None:
        """Let go of an index that was opened here; the next search opens it again."""
        if self.rag is None and "_models" in self.__dict__:
            self._models.close()

    @cached_property
    def _models(self) -> Rag:
        return Rag.open(self.index) if self.index is not None else scoring.models(self.rag, self.reranker)

    def _wanted(self, asked: dict[str, Any]) -> Wanted:
        for name in asked.keys() - Wanted.model_fields.keys() - _OF_LANGCHAIN:
            raise UsageError(
                f"There is no search option {name!r}", hint=did_you_mean(name, Wanted.model_fields)
            )
        own = {name: asked.get(name, getattr(self, name)) for name in Wanted.model_fields}
        try:
            wanted = Wanted(**own)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise UsageError(f"{first['loc'][0]}: {first['msg']}", hint="See CrossEncoderRetriever") from None
        if self.base is None:
            where_of(wanted.filter)
        elif wanted.filter is not None and not isinstance(self.base, VectorStore):
            raise UsageError(
                "A retriever under a CrossEncoderRetriever gets no filter",
                hint="Give the filter to that retriever, or its vector store as base=",
            )
        return wanted

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **asked: Any
    ) -> list[Document]:
        wanted = self._wanted(asked)
        if self.base is None:
            return self._searched(query, wanted)
        if isinstance(self.base, VectorStore):
            fetched = self.base.similarity_search(query, **_fetching(self.base, wanted))
        else:
            fetched = self.base.invoke(query, {"callbacks": run_manager.get_child()})
        return self._reranked(query, fetched, wanted)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **asked: Any
    ) -> list[Document]:
        wanted = self._wanted(asked)
        if self.base is None:
            return await run_in_executor(None, self._searched, query, wanted)
        if isinstance(self.base, VectorStore):
            fetched = await self.base.asimilarity_search(query, **_fetching(self.base, wanted))
        else:
            fetched = await self.base.ainvoke(query, {"callbacks": run_manager.get_child()})
        return await run_in_executor(None, self._reranked, query, fetched, wanted)

    def _searched(self, query: str, wanted: Wanted) -> list[Document]:
        """In an index of crossrag's, by its own pipeline."""
        rag = self._models
        parts = cast("Finding", _WithSettings(rag, _settings(rag.settings, wanted)))
        prepared = searching.prepare(parts, query)
        ranking = searching.rank(parts, prepared, top_k=wanted.k, where=where_of(wanted.filter))
        chosen = searching.choose(parts, ranking, top_k=wanted.k, relevant=wanted.score_threshold is not None)
        if degraded := (*ranking.degraded, *chosen.degraded):
            notices = "; ".join((*ranking.notices, *chosen.notices))
            _LOG.warning("The search did without %s: %s", ", ".join(degraded), notices)
        return [scoring.of_candidate(candidate) for candidate in chosen.candidates]

    def _reranked(self, query: str, fetched: list[Document], wanted: Wanted) -> list[Document]:
        """What something else has fetched."""
        scored = scoring.kept(scoring.best_first(self._models, query, fetched), wanted.score_threshold)
        if wanted.search_type == "mmr":
            weight = 0.7 if wanted.lambda_mult is None else wanted.lambda_mult
            scored = scoring.diverse(self._models, scored, count=wanted.k, lambda_mult=weight)
        return [scoring.with_score(one) for one in scored[: wanted.k]]


def _fetching(base: VectorStore, wanted: Wanted) -> dict[str, Any]:
    """Arguments of a vector store's search."""
    count = max(wanted.fetch_k or _FETCHED, wanted.k)
    if wanted.filter is None:
        return {"k": count}
    if isinstance(wanted.filter, dict) and hasattr(base, "metadata_payload_key"):  # langchain_qdrant's
        return {"k": count, "filter": for_qdrant(wanted.filter, metadata=base.metadata_payload_key)}
    return {"k": count, "filter": wanted.filter}


def _settings(settings: Settings, wanted: Wanted) -> Settings:
    """Those of the index, but for what is wanted of this one search."""
    kinds = {"similarity_score_threshold": "similarity"}
    said = {
        "fetch_k": None if wanted.fetch_k is None else max(wanted.fetch_k, wanted.k),
        "lambda_mult": wanted.lambda_mult,
        "search_type": kinds.get(str(wanted.search_type), wanted.search_type),
    }
    retrieval = settings.retrieval.model_copy(
        update={name: value for name, value in said.items() if value is not None}
    )
    update: dict[str, Any] = {"retrieval": retrieval}
    if wanted.score_threshold is not None:
        update["reranking"] = settings.reranking.model_copy(update={"threshold": wanted.score_threshold})
    return settings.model_copy(update=update)


class _WithSettings:
    """A Rag's parts beside other settings."""

    def __init__(self, rag: Rag, settings: Settings) -> None:
        self.settings = settings
        self._rag = rag

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rag, name)
