"""LlamaIndex: crossrag as node postprocessor and as retriever. Extra: `pip install 'crossrag[llamaindex]'`.

    index.as_query_engine(similarity_top_k=50, node_postprocessors=[CrossRagRerank(top_n=5)])
    RetrieverQueryEngine.from_args(CrossRagRetriever("./index"), llm=...)

Nodes that come in are never changed; those that come out are copies. Scores are relevances in [0, 1], or None
where a passage was not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrag.errors import MissingExtraError, UsageError
from crossrag.pipeline import Rag

from . import ranking

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
    from llama_index.core.callbacks import CBEventType, EventPayload
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import (
        MetadataMode,
        NodeRelationship,
        NodeWithScore,
        QueryBundle,
        RelatedNodeInfo,
        TextNode,
    )
    from llama_index.core.vector_stores.types import (
        FilterCondition,
        FilterOperator,
        MetadataFilter,
        MetadataFilters,
    )
except ModuleNotFoundError as error:
    if not str(error.name).startswith("llama_index"):
        raise
    raise MissingExtraError(
        "crossrag.integrations.llamaindex needs the package llama-index-core",
        hint="pip install 'crossrag[llamaindex]'",
    ) from None

if TYPE_CHECKING:
    from crossrag.types import Where

_EMBEDDED = {"title"}
_SHOWN = {"title", "source", "page", "page_name"}
"""Metadata of a passage that a language model reads; the rest is for programs."""


class CrossRagRerank(BaseNodePostprocessor):
    """Lets crossrag's reranker read every node beside the question.

    It reads what LlamaIndex embeds, title and other metadata too (`MetadataMode.EMBED`). A node that comes
    out has `retrieval_score`, `rerank_logit` and `rerank_truncated` in its metadata, hidden from models.

    Args:
        rag: Whose reranker reads; None for one by the settings of this folder and environment.
        top_n: Most nodes that are kept.
        min_relevance: Leave out what is less relevant.
        deadline: Seconds after which no further batch is begun; what was not read comes last, without score.
    """

    top_n: int = Field(gt=0, description="Most nodes that are kept.")
    min_relevance: float | None = Field(description="Least relevance of a node that is kept.")
    deadline: float | None = Field(description="Seconds for reading.")
    _rag: Rag = PrivateAttr()

    def __init__(
        self,
        rag: Rag | None = None,
        *,
        top_n: int = 5,
        min_relevance: float | None = None,
        deadline: float | None = None,
        **inherited: Any,
    ) -> None:
        super().__init__(top_n=top_n, min_relevance=min_relevance, deadline=deadline, **inherited)
        self._rag = rag or Rag.open()

    @classmethod
    def class_name(cls) -> str:
        """As LlamaIndex names it in traces."""
        return "CrossRagRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise UsageError("Reranking needs a question", hint="Pass query_str or query_bundle")
        query = query_bundle.query_str
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self._rag.settings.reranking.model,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            read = ranking.rerank(
                self._rag,
                query,
                [one.node.get_content(metadata_mode=MetadataMode.EMBED) for one in nodes],
                top_k=self.top_n,
                min_relevance=self.min_relevance,
                deadline=self.deadline,
            )
            ranked = [_copied(nodes[one.place], one) for one in read]
            event.on_end(payload={EventPayload.NODES: ranked})
        return ranked


def _copied(given: NodeWithScore, read: ranking.Read) -> NodeWithScore:
    """The node with what was found out, which no model gets to see."""
    added = read.metadata(given.score)
    node = given.node
    copy = node.model_copy(
        update={
            "metadata": {**node.metadata, **added},
            "excluded_embed_metadata_keys": [*node.excluded_embed_metadata_keys, *added],
            "excluded_llm_metadata_keys": [*node.excluded_llm_metadata_keys, *added],
        }
    )
    return NodeWithScore(node=copy, score=read.relevance)


class CrossRagRetriever(BaseRetriever):
    """Searches an index of crossrag: hybrid, reranked, filtered.

    Args:
        rag: An open Rag, or the folder of an index; None for the index of the settings.
        top_k: How many; None for `reranking.top_k`.
        filters: LlamaIndex's `MetadataFilters`, or a filter of crossrag's (docs/filters.md).
        relevant_only: Leave out what is below `reranking.threshold`, as an answer does.
        inherited: What `BaseRetriever` takes.

    Raises:
        UsageError: `top_k` is not positive, or a filter has no meaning here.
    """

    def __init__(
        self,
        rag: Rag | str | Path | None = None,
        *,
        top_k: int | None = None,
        filters: MetadataFilters | Mapping[str, Any] | None = None,
        relevant_only: bool = False,
        **inherited: Any,
    ) -> None:
        super().__init__(**inherited)
        if top_k is not None and top_k <= 0:
            raise UsageError(
                f"top_k must be greater than 0, got {top_k}", hint="Leave it out for the default"
            )
        self._rag = rag if isinstance(rag, Rag) else Rag.open(rag)
        self._top_k, self._relevant_only = top_k, relevant_only
        self._where = where(filters) if isinstance(filters, MetadataFilters) else filters

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = ranking.retrieve(
            self._rag,
            query_bundle.query_str,
            top_k=self._top_k,
            where=self._where,
            relevant_only=self._relevant_only,
        )
        return [NodeWithScore(node=_node(passage), score=passage.score) for passage in found]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _node(passage: ranking.Passage) -> TextNode:
    """With offsets into the document that it is of, to which `ref_doc_id` leads."""
    chunk, metadata = passage.candidate.chunk, passage.metadata
    return TextNode(
        id_=chunk.id,
        text=chunk.text,
        metadata=metadata,
        start_char_idx=chunk.start,
        end_char_idx=chunk.end,
        excluded_embed_metadata_keys=[key for key in metadata if key not in _EMBEDDED],
        excluded_llm_metadata_keys=[key for key in metadata if key not in _SHOWN],
        relationships={
            NodeRelationship.SOURCE: RelatedNodeInfo(
                node_id=chunk.document_id, metadata={"source": chunk.source}
            )
        },
    )


# --- filters

_COMPARED = {
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
}
_EQUAL = {FilterOperator.EQ, FilterOperator.CONTAINS, FilterOperator.IN, FilterOperator.ANY}
_UNEQUAL = {FilterOperator.NE, FilterOperator.NIN}


def where(filters: MetadataFilters) -> Where:
    """LlamaIndex's filters in the language of `crossrag.filters`.

    Raises:
        UsageError: An operator has no meaning there, such as `text_match`.
    """
    parts = [where(one) if isinstance(one, MetadataFilters) else _condition(one) for one in filters.filters]
    if not parts and filters.condition == FilterCondition.NOT:
        raise UsageError("A NOT of no filters leaves nothing out", hint="Name what is to be left out")
    if not parts:
        return {}
    if filters.condition == FilterCondition.NOT:
        return {"not": {"or": parts}}
    return {"or" if filters.condition == FilterCondition.OR else "and": parts}


def _condition(one: MetadataFilter) -> Where:
    if one.operator in _COMPARED:
        return {one.key: {_COMPARED[one.operator]: one.value}}
    if one.operator in _EQUAL:
        return {one.key: one.value}
    if one.operator in _UNEQUAL:
        return {"not": {one.key: one.value}}
    if one.operator == FilterOperator.ALL and isinstance(one.value, list) and one.value:
        return {"and": [{one.key: value} for value in one.value]}
    raise UsageError(
        f"The filter operator {one.operator.value!r} ({one.key}) has no meaning in an index of crossrag",
        hint="See docs/filters.md for what has",
    )
