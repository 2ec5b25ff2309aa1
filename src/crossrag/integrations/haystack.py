"""Haystack 3: crossrag as a ranker and as a retriever. Extra: `pip install 'crossrag[haystack]'`.

    pipeline.add_component("ranker", CrossRagRanker(top_k=5))
    pipeline.add_component("retriever", CrossRagRetriever(index="./index"))

Documents that come in are never changed; those that come out are copies. Scores are relevances in [0, 1], or
None where a passage was not read. Haystack itself sends usage figures unless HAYSTACK_TELEMETRY_ENABLED is
False before it is imported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crossrag.errors import MissingExtraError, UsageError
from crossrag.pipeline import Rag

from . import ranking

try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ModuleNotFoundError as error:
    if not str(error.name).startswith("haystack"):
        raise
    raise MissingExtraError(
        "crossrag.integrations.haystack needs the package haystack-ai",
        hint="pip install 'crossrag[haystack]'",
    ) from None

if TYPE_CHECKING:
    from crossrag.types import Where

Sections = dict[str, dict[str, Any]]
"""Settings by section, as for `Rag.open`."""


class _Component:
    """A Rag that is given, or opened at first use; and its way into a file and back."""

    def __init__(self, index: str | None, settings: Sections | None, rag: Rag | None) -> None:
        if rag is not None and (index is not None or settings):
            raise UsageError(
                "A Rag has its own index and settings", hint="Give either rag, or index and settings"
            )
        self._index, self._settings, self._given = index, settings, rag
        self._opened: Rag | None = None

    @property
    def _rag(self) -> Rag:
        if self._given is not None:
            return self._given
        if self._opened is None:
            self._opened = Rag.open(self._index, **(self._settings or {}))
        return self._opened

    def close(self) -> None:
        """Let go of the index and the models; a Rag that was given stays open."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _written(self, **parameters: Any) -> dict[str, Any]:
        """As Haystack keeps it in a pipeline's file.

        Raises:
            UsageError: It was made with an object, or has a key that does not belong in a file.
        """
        if self._given is not None:
            raise UsageError(
                f"A {type(self).__name__} made with a Rag cannot be written to a file",
                hint="Make it with index and settings",
            )
        secret = [
            f"{name}.api_key" for name, section in (self._settings or {}).items() if "api_key" in section
        ]
        if secret:
            raise UsageError(
                f"{secret[0]} does not belong in a pipeline's file", hint="Set it in the environment"
            )
        return default_to_dict(self, index=self._index, settings=self._settings, **parameters)


@component
class CrossRagRanker(_Component):
    """Lets crossrag's reranker read every document beside the question.

    A document that comes out has `retrieval_score`, `rerank_logit` and `rerank_truncated` in its `meta`.

    Args:
        top_k: Most documents that are kept.
        min_relevance: Leave out what is less relevant.
        deadline: Seconds after which no further batch is begun; what was not read comes last, without score.
        meta_fields_to_embed: Values of `meta` that are read before the content, each on a line of its own.
        settings: Sections of settings, such as `{"reranking": {"model": "onnx:./model"}}`.
        rag: An open Rag, in place of `settings`.

    Raises:
        ValueError: `top_k` is not positive.
    """

    def __init__(
        self,
        *,
        top_k: int = 10,
        min_relevance: float | None = None,
        deadline: float | None = None,
        meta_fields_to_embed: list[str] | None = None,
        settings: Sections | None = None,
        rag: Rag | None = None,
    ) -> None:
        # `component` makes another class of this one, in which `super()` finds nothing.
        _Component.__init__(self, None, settings, rag)
        self._top_k = _positive(top_k)
        self._min_relevance, self._deadline = min_relevance, deadline
        self._fields = meta_fields_to_embed or []

    def warm_up(self) -> None:
        """Load the models; without it, the first question does."""
        self._rag.rerank("ready?", ["Ready."])

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Most relevant first; of equals, the one that came first.

        Args:
            query: A question or a few words.
            documents: From any retriever. One without text cannot be read and comes last.
            top_k: In place of the component's own.

        Raises:
            ValueError: `top_k` is not positive.
        """
        count = self._top_k if top_k is None else _positive(top_k)
        readable = [document for document in documents if document.content is not None]
        read = ranking.rerank(
            self._rag,
            query,
            [self._text(document) for document in readable],
            min_relevance=self._min_relevance,
            deadline=self._deadline,
        )
        ranked = [_copied(readable[one.place], one) for one in read]
        if self._min_relevance is None:
            unread = [document for document in documents if document.content is None]
            ranked += [_copied(document, ranking.Read(place=0)) for document in unread]
        return {"documents": ranked[:count]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """As `run`, in a thread."""
        said: dict[str, list[Document]] = await asyncio.to_thread(self.run, query, documents, top_k)
        return said

    def _text(self, document: Document) -> str:
        values = (document.meta.get(name) for name in self._fields)
        return "\n".join([*(str(value) for value in values if value), document.content or ""])

    def to_dict(self) -> dict[str, Any]:
        """For `Pipeline.dumps`."""
        written = self._written(
            top_k=self._top_k,
            min_relevance=self._min_relevance,
            deadline=self._deadline,
            meta_fields_to_embed=self._fields,
        )
        del written["init_parameters"]["index"]
        return written

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CrossRagRanker:
        """For `Pipeline.loads`."""
        made: CrossRagRanker = default_from_dict(cls, data)
        return made


def _copied(document: Document, read: ranking.Read) -> Document:
    return replace(document, score=read.relevance, meta=document.meta | read.metadata(document.score))


@component
class CrossRagRetriever(_Component):
    """Searches an index of crossrag: hybrid, reranked, filtered.

    Args:
        index: Folder of the index; None for that of the settings.
        top_k: How many.
        filters: Haystack's, or a filter of crossrag's (docs/filters.md).
        relevant_only: Leave out what is below `reranking.threshold`, as an answer does.
        settings: Sections of settings, such as `{"qdrant": {"url": "http://localhost:6333"}}`.
        rag: An open Rag, in place of `index` and `settings`.

    Raises:
        ValueError: `top_k` is not positive.
        UsageError: A filter has no meaning here.
    """

    def __init__(
        self,
        *,
        index: str | None = None,
        top_k: int = 10,
        filters: dict[str, Any] | None = None,
        relevant_only: bool = False,
        settings: Sections | None = None,
        rag: Rag | None = None,
    ) -> None:
        _Component.__init__(self, index, settings, rag)
        self._top_k, self._filters, self._relevant_only = _positive(top_k), filters, relevant_only
        where(filters)

    def warm_up(self) -> None:
        """Load the models; without it, the first question does."""
        self._rag.embedder.embed_query("ready?")
        if self._rag.reranker is not None:
            self._rag.rerank("ready?", ["Ready."])

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """The best passages, most relevant first.

        Args:
            query: A question or a few words.
            filters: In place of the component's own.
            top_k: In place of the component's own.

        Raises:
            ValueError: `top_k` is not positive.
            UsageError: The question is empty, or a filter has no meaning here.
        """
        found = ranking.retrieve(
            self._rag,
            query,
            top_k=self._top_k if top_k is None else _positive(top_k),
            where=where(self._filters if filters is None else filters),
            relevant_only=self._relevant_only,
        )
        return {"documents": [_document(passage) for passage in found]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """As `run`, in a thread."""
        said: dict[str, list[Document]] = await asyncio.to_thread(self.run, query, filters, top_k)
        return said

    def to_dict(self) -> dict[str, Any]:
        """For `Pipeline.dumps`."""
        return self._written(top_k=self._top_k, filters=self._filters, relevant_only=self._relevant_only)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CrossRagRetriever:
        """For `Pipeline.loads`."""
        made: CrossRagRetriever = default_from_dict(cls, data)
        return made


def _document(passage: ranking.Passage) -> Document:
    chunk = passage.candidate.chunk
    return Document(id=chunk.id, content=chunk.text, meta=passage.metadata, score=passage.score)


def _positive(top_k: int) -> int:
    if top_k <= 0:
        raise ValueError(f"top_k must be greater than 0, but got {top_k}")
    return top_k


# --- filters

_FILTER_HINT = 'Example: {"field": "meta.year", "operator": ">=", "value": 2020}'
_COMPARED = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


def where(filters: Mapping[str, Any] | None) -> Where | None:
    """Haystack's filters in the language of `crossrag.filters`; what is in it already stays.

    Raises:
        UsageError: An operator has no meaning there.
    """
    if filters and "operator" not in filters and {"field", "conditions"} & filters.keys():
        raise UsageError(f"The filter {dict(filters)!r} has no operator", hint=_FILTER_HINT)
    if not filters or "operator" not in filters:
        return filters
    operator = str(filters["operator"])
    if operator in {"AND", "OR", "NOT"}:
        parts = [where(one) or {} for one in filters.get("conditions", ())]
        if operator == "OR":
            return {"or": parts}
        return {"not": {"and": parts}} if operator == "NOT" else {"and": parts}
    if "field" not in filters or "value" not in filters:
        raise UsageError(
            f"The filter {filters!r} lacks field or value",
            hint=_FILTER_HINT,
        )
    if filters["field"] in {"id", "content", "score"}:
        raise UsageError(
            f"The filter asks for the document's own {filters['field']!r}; an index knows metadata alone",
            hint=_FILTER_HINT,
        )
    key, value = str(filters["field"]).removeprefix("meta."), filters["value"]
    if operator in _COMPARED:
        return {key: {_COMPARED[operator]: value}}
    if operator in {"==", "in"}:
        return {key: value}
    if operator in {"!=", "not in"}:
        return {"not": {key: value}}
    raise UsageError(
        f"The filter operator {operator!r} has no meaning in an index of crossrag",
        hint="Choices: ==, !=, >, >=, <, <=, in, not in, AND, OR, NOT",
    )
