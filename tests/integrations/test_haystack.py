"""Haystack: documents are read, ranked, copied; components go into a file and back; filters mean the same."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from haystack import Document, Pipeline

from crossrag import Rag
from crossrag.errors import UsageError
from crossrag.filters import parse
from crossrag.integrations.haystack import CrossRagRanker, CrossRagRetriever, where

TEXTS = [
    "Whales are mammals.",
    "To restore a backup, run the restore command.",
    "A backup is written every night.",
    "Whales are mammals.",
]
QUESTION = "How do I restore a backup?"


def documents() -> list[Document]:
    return [
        Document(id=str(n), content=text, meta={"team": f"t{n}"}, score=0.1 * n)
        for n, text in enumerate(TEXTS)
    ]


def test_documents_come_out_by_relevance_as_copies(rag: Rag) -> None:
    given = documents()
    ranked = CrossRagRanker(rag=rag).run(QUESTION, given)["documents"]
    assert [one.id for one in ranked] == ["1", "2", "0", "3"]
    assert given == documents()
    said = rag.rerank(QUESTION, TEXTS)
    for one in ranked:
        place = int(one.id)
        assert (one.content, one.score) == (TEXTS[place], said.relevance[place])
        assert one.meta == {
            "team": f"t{place}",
            "retrieval_score": given[place].score,
            "rerank_logit": said.logit[place],
            "rerank_truncated": False,
        }
    assert asyncio.run(CrossRagRanker(rag=rag).run_async(QUESTION, given))["documents"] == ranked


def test_counts_least_relevance_and_nothing(rag: Rag) -> None:
    ranker = CrossRagRanker(rag=rag, top_k=3)
    assert len(ranker.run(QUESTION, documents())["documents"]) == 3
    assert len(ranker.run(QUESTION, documents(), top_k=1)["documents"]) == 1
    assert ranker.run(QUESTION, []) == {"documents": []}
    kept = CrossRagRanker(rag=rag, min_relevance=0.5).run(QUESTION, documents())["documents"]
    assert [one.id for one in kept] == ["1"]
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="top_k must be greater than 0"):
            CrossRagRanker(rag=rag, top_k=wrong)
        with pytest.raises(ValueError, match="top_k must be greater than 0"):
            ranker.run(QUESTION, documents(), top_k=wrong)
        with pytest.raises(ValueError, match="top_k must be greater than 0"):
            CrossRagRetriever(rag=rag, top_k=wrong)


def test_a_document_without_text_is_last_and_metadata_can_be_read(rag: Rag) -> None:
    given = [Document(id="image"), *documents()]
    ranked = CrossRagRanker(rag=rag).run(QUESTION, given)["documents"]
    assert (ranked[-1].id, ranked[-1].score) == ("image", None)
    titled = [
        Document(id=name, content="An hour.", meta={"title": name}) for name in ("whale", "restore backup")
    ]
    read = CrossRagRanker(rag=rag, meta_fields_to_embed=["title", "missing"]).run(QUESTION, titled)
    assert read["documents"][0].id == "restore backup"


def test_passages_have_scores_and_their_place(rag: Rag, corpus: Path) -> None:
    rag.ingest(corpus)
    retriever = CrossRagRetriever(rag=rag, top_k=2)
    retriever.warm_up()
    found = retriever.run("restore a backup")["documents"]
    for one, candidate in zip(found, rag.search("restore a backup", top_k=2), strict=True):
        chunk = candidate.chunk
        assert (one.id, one.content, one.score) == (chunk.id, chunk.text, candidate.scores.relevance)
        assert (one.meta["source"], one.meta["start"], one.meta["end"]) == (
            chunk.source,
            chunk.start,
            chunk.end,
        )
        assert "generation" not in one.meta
        json.dumps(one.to_dict())
    assert asyncio.run(retriever.run_async("restore a backup"))["documents"] == found
    assert len(retriever.run("restore a backup", top_k=1)["documents"]) == 1
    source = rag.search("blue whale", top_k=9)[-1].chunk.source
    only = {"field": "meta.source", "operator": "==", "value": source}
    for filters in (only, {"source": source}, {"operator": "AND", "conditions": [only]}):
        passed = retriever.run("blue whale", filters=filters)["documents"]
        assert {one.meta["source"] for one in passed} == {source}
    relevant = CrossRagRetriever(rag=rag, relevant_only=True).run("blue whale")["documents"]
    assert [Path(one.meta["source"]).name for one in relevant] == ["whales.txt"]


def test_a_pipeline_is_written_and_read_and_works(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = str(tmp_path / "index")
    with Rag.open(index) as rag:
        rag.ingest(corpus)
    pipeline = Pipeline()
    pipeline.add_component("retriever", CrossRagRetriever(index=index, top_k=4))
    pipeline.add_component(
        "ranker", CrossRagRanker(top_k=1, min_relevance=0.01, meta_fields_to_embed=["title"])
    )
    pipeline.connect("retriever.documents", "ranker.documents")
    read = Pipeline.loads(pipeline.dumps(), allowed_modules=["crossrag.integrations.haystack"])
    assert read.to_dict() == pipeline.to_dict()
    said = read.run({"retriever": {"query": QUESTION}, "ranker": {"query": QUESTION}})
    (best,) = said["ranker"]["documents"]
    assert "restore command" in best.content
    closed: list[Rag] = []

    def close(rag: Rag) -> None:
        closed.append(rag)

    monkeypatch.setattr(Rag, "close", close)
    read.close()
    assert {str(rag.settings.index.path) for rag in closed} == {index, ".crossrag"}
    monkeypatch.undo()
    for rag in closed:
        rag.close()


def test_objects_and_keys_are_not_written_to_a_file(rag: Rag) -> None:
    with pytest.raises(UsageError, match="made with a Rag"):
        CrossRagRanker(rag=rag).to_dict()
    with pytest.raises(UsageError, match=r"qdrant\.api_key"):
        CrossRagRetriever(settings={"qdrant": {"api_key": "secret"}}).to_dict()
    with pytest.raises(UsageError, match="own index and settings"):
        CrossRagRetriever(rag=rag, index="index")
    CrossRagRanker(rag=rag).close()
    assert rag.rerank(QUESTION, TEXTS).logit, "a Rag that was given stays open"


@pytest.mark.parametrize(
    ("operator", "value", "means"),
    [
        ("==", 3, {"year": 3}),
        ("!=", 3, {"not": {"year": 3}}),
        (">", 3, {"year": {"gt": 3}}),
        ("<=", 3, {"year": {"lte": 3}}),
        ("in", [1, 2], {"year": [1, 2]}),
        ("not in", [1, 2], {"not": {"year": [1, 2]}}),
    ],
)
def test_filters_are_translated(operator: str, value: Any, means: dict[str, Any]) -> None:
    one = {"field": "meta.year", "operator": operator, "value": value}
    for word, holds in (
        ("AND", {"and": [means]}),
        ("OR", {"or": [means]}),
        ("NOT", {"not": {"and": [means]}}),
    ):
        said = where({"operator": word, "conditions": [one]})
        assert said == holds
        parse(said)


@pytest.mark.parametrize(
    "wrong",
    [
        {"field": "meta.year", "operator": "~", "value": 3},
        {"field": "meta.year", "operator": "=="},
        {"operator": "XOR", "conditions": []},
        {"field": "meta.year", "value": 3},
        {"field": "id", "operator": "==", "value": "a"},
    ],
)
def test_a_filter_without_meaning_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        CrossRagRetriever(filters=wrong)
