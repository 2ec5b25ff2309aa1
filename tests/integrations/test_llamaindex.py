"""LlamaIndex: nodes are read, ranked, copied; passages keep their place; filters mean the same."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from crossrag import Rag
from crossrag.errors import UsageError
from crossrag.filters import parse
from crossrag.integrations.llamaindex import CrossRagRerank, CrossRagRetriever, where

TEXTS = [
    "Whales are mammals.",
    "To restore a backup, run the restore command.",
    "A backup is written every night.",
    "Whales are mammals.",
]
QUESTION = "How do I restore a backup?"


def nodes() -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(id_=str(n), text=text, metadata={"team": f"t{n}"}), score=0.1 * n)
        for n, text in enumerate(TEXTS)
    ]


def test_nodes_come_out_by_relevance_as_copies(rag: Rag) -> None:
    given = nodes()
    before = [one.model_dump_json() for one in given]
    ranked = CrossRagRerank(rag, top_n=9).postprocess_nodes(given, query_str=QUESTION)
    assert [one.node.node_id for one in ranked] == ["1", "2", "0", "3"]
    assert [one.model_dump_json() for one in given] == before
    said = rag.rerank(QUESTION, [one.node.get_content(MetadataMode.EMBED) for one in given])
    for one in ranked:
        place = int(one.node.node_id)
        assert one.score == said.relevance[place]
        assert one.node.get_content() == TEXTS[place]
        assert one.node.metadata["team"] == f"t{place}"
        assert one.node.metadata["retrieval_score"] == pytest.approx(0.1 * place)
        assert one.node.metadata["rerank_logit"] == said.logit[place]
        assert one.node.metadata["rerank_truncated"] is False
        # What is added is for programs: neither embedder nor language model reads it.
        for mode in (MetadataMode.EMBED, MetadataMode.LLM):
            assert one.node.get_content(mode) == given[place].node.get_content(mode)


def test_top_n_least_relevance_and_nothing(rag: Rag) -> None:
    assert len(CrossRagRerank(rag, top_n=2).postprocess_nodes(nodes(), query_str=QUESTION)) == 2
    kept = CrossRagRerank(rag, min_relevance=0.5).postprocess_nodes(nodes(), query_str=QUESTION)
    assert [one.node.node_id for one in kept] == ["1"]
    assert CrossRagRerank(rag).postprocess_nodes([], query_str=QUESTION) == []
    with pytest.raises(ValueError, match="top_n"):
        CrossRagRerank(rag, top_n=0)
    with pytest.raises(UsageError, match="needs a question"):
        CrossRagRerank(rag).postprocess_nodes(nodes())


def test_metadata_that_llamaindex_embeds_is_read_too(rag: Rag) -> None:
    titled = [
        NodeWithScore(node=TextNode(id_="a", text="It takes an hour.")),
        NodeWithScore(
            node=TextNode(id_="b", text="It takes an hour.", metadata={"title": "Restore a backup"})
        ),
    ]
    assert CrossRagRerank(rag).postprocess_nodes(titled, query_str=QUESTION)[0].node.node_id == "b"


def test_what_was_not_read_in_time_comes_last_in_its_order(tmp_path: Path) -> None:
    with Rag.open(tmp_path / "index") as rag:
        ranked = CrossRagRerank(rag, deadline=1e-9).postprocess_nodes(nodes(), query_str=QUESTION)
    assert [one.node.node_id for one in ranked] == ["0", "1", "2", "3"]
    assert {one.score for one in ranked} == {None}


def test_passages_have_scores_offsets_and_their_document(rag: Rag, corpus: Path) -> None:
    rag.ingest(corpus)
    retriever = CrossRagRetriever(rag, top_k=2)
    found = retriever.retrieve("restore a backup")
    assert len(found) == 2
    ranking = rag.search("restore a backup", top_k=2)
    for one, candidate in zip(found, ranking, strict=True):
        node, chunk = one.node, candidate.chunk
        assert isinstance(node, TextNode)
        assert (node.node_id, node.text, one.score) == (chunk.id, chunk.text, candidate.scores.relevance)
        assert (node.start_char_idx, node.end_char_idx) == (chunk.start, chunk.end)
        assert node.ref_doc_id == chunk.document_id
        assert node.metadata["source"] == chunk.source
        assert "generation" not in node.metadata
        assert "document_id" not in node.get_content(MetadataMode.LLM)
        assert chunk.source in node.get_content(MetadataMode.LLM)
    assert asyncio.run(retriever.aretrieve("restore a backup")) == found
    again = asyncio.run(CrossRagRerank(rag).apostprocess_nodes(found, QueryBundle("restore a backup")))
    assert [one.node.node_id for one in again] == [one.node.node_id for one in found]


def test_only_what_is_relevant_and_what_passes_the_filter(rag: Rag, corpus: Path) -> None:
    rag.ingest(corpus)
    everything = CrossRagRetriever(rag, top_k=9).retrieve("blue whale")
    relevant = CrossRagRetriever(rag, top_k=9, relevant_only=True).retrieve("blue whale")
    assert [Path(one.node.metadata["source"]).name for one in relevant] == ["whales.txt"]
    assert len(everything) > len(relevant)
    source = everything[-1].node.metadata["source"]
    only = MetadataFilters(filters=[MetadataFilter(key="source", value=source)])
    found = CrossRagRetriever(rag, top_k=9, filters=only).retrieve("blue whale")
    assert found
    assert {one.node.metadata["source"] for one in found} == {source}
    mine = CrossRagRetriever(rag, top_k=9, filters={"source": source}).retrieve("blue whale")
    assert mine == found
    with pytest.raises(UsageError, match="greater than 0"):
        CrossRagRetriever(rag, top_k=0)


@pytest.mark.parametrize(
    ("operator", "value", "means"),
    [
        (FilterOperator.EQ, 3, {"year": 3}),
        (FilterOperator.NE, 3, {"not": {"year": 3}}),
        (FilterOperator.GT, 3, {"year": {"gt": 3}}),
        (FilterOperator.LTE, 3, {"year": {"lte": 3}}),
        (FilterOperator.IN, [1, 2], {"year": [1, 2]}),
        (FilterOperator.NIN, [1, 2], {"not": {"year": [1, 2]}}),
        (FilterOperator.ALL, ["a", "b"], {"and": [{"year": "a"}, {"year": "b"}]}),
    ],
)
def test_filters_are_translated(operator: FilterOperator, value: Any, means: dict[str, Any]) -> None:
    one = MetadataFilter(key="year", value=value, operator=operator)
    for condition, holds in (
        (FilterCondition.AND, {"and": [means]}),
        (FilterCondition.OR, {"or": [means]}),
        (FilterCondition.NOT, {"not": {"or": [means]}}),
    ):
        said = where(MetadataFilters(filters=[one], condition=condition))
        assert said == holds
        parse(said)


def test_a_filter_without_meaning_is_refused() -> None:
    like = MetadataFilter(key="team", value="blu", operator=FilterOperator.TEXT_MATCH)
    with pytest.raises(UsageError, match="text_match"):
        where(MetadataFilters(filters=[MetadataFilters(filters=[like])]))
    with pytest.raises(UsageError, match="NOT of no filters"):
        where(MetadataFilters(filters=[], condition="not"))
    assert where(MetadataFilters(filters=[])) == {}
