"""crossrag in LangChain: LangChain's own standard suites, and what they do not look at."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

pytest.importorskip("langchain_tests", reason="needs the dev group")

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests, RetrieversIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from qdrant_client import models

from crossrag import Rag, Settings, UsageError
from crossrag.config import IndexSettings
from crossrag.integrations.langchain import (
    CrossEncoderCompressor,
    CrossEncoderRetriever,
    CrossRagCrossEncoder,
    CrossRagEmbeddings,
)
from crossrag.integrations.langchain.filtering import for_qdrant, where_of
from crossrag.testing import HashedEmbedder, HashedTerms, OverlapReranker

if TYPE_CHECKING:
    from langchain_core.retrievers import BaseRetriever

QUESTION = "How do I restore a backup?"
TEXTS = (
    "Whales are mammals.",
    "To restore a backup, run the restore command.",
    "A backup is written every night.",
    "The office opens at nine.",
)


def fakes(**more: Any) -> Rag:
    """A Rag for its models alone."""
    parts = {"embedder": HashedEmbedder(), "sparse_encoder": HashedTerms(), "reranker": OverlapReranker()}
    return Rag(Settings(index=IndexSettings(path=Path("nowhere"))), **{**parts, **more})


def documents() -> list[Document]:
    return [Document(id=str(n), page_content=text, metadata={"n": n}) for n, text in enumerate(TEXTS)]


# --- LangChain's own suites


@pytest.fixture(scope="module")
def filled(in_memory: Path) -> Iterator[Rag]:
    folder = in_memory / "docs"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.md").write_text(f"---\nyear: {2020 + number}\n---\n# Text {number}\n\n{text}\n")
    settings = Settings(index=IndexSettings(path=in_memory / "index"))
    with Rag(
        settings, embedder=HashedEmbedder(), sparse_encoder=HashedTerms(), reranker=OverlapReranker()
    ) as rag:
        rag.ingest(folder)
        yield rag


class TestRetrieverOverAnIndex(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _filled(self, filled: Rag) -> None:
        self.rag = filled

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return CrossEncoderRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"rag": self.rag}

    @property
    def retriever_query_example(self) -> str:
        return QUESTION


class TestRetrieverOverAVectorStore(TestRetrieverOverAnIndex):
    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"rag": self.rag, "base": store()}


class TestEmbeddings(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return CrossRagEmbeddings


class TestEmbeddingsAtWork(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return CrossRagEmbeddings


# --- the retriever


def store(embedding: Embeddings | None = None) -> InMemoryVectorStore:
    made = InMemoryVectorStore(embedding or CrossRagEmbeddings(embedder=HashedEmbedder()))
    made.add_documents(documents())
    return made


def test_an_index_gives_its_passages_with_their_relevance(filled: Rag) -> None:
    found = CrossEncoderRetriever(rag=filled, k=2).invoke(QUESTION)
    ranking = filled.search(QUESTION, top_k=2)
    assert [document.id for document in found] == [candidate.chunk.id for candidate in ranking]
    best = found[0]
    assert best.metadata["relevance_score"] == ranking[0].scores.relevance
    assert best.metadata["source"].endswith("1.md")
    assert (best.metadata["year"], best.metadata["chunk_id"], best.metadata["title"]) == (2021, 0, "Text 1")
    assert "generation" not in best.metadata


def test_an_index_is_opened_by_its_path_and_let_go(filled: Rag, in_memory: Path) -> None:
    filled.close()
    retriever = CrossEncoderRetriever(index=in_memory / "index", k=1)
    with pytest.raises(Exception, match="built with other settings"):
        retriever.invoke(QUESTION)
    retriever.close()
    assert filled.search(QUESTION)


@pytest.mark.parametrize(
    "wanted",
    [
        {"year": {"gte": 2022}},
        models.Filter(must=[models.FieldCondition(key="metadata.year", range=models.Range(gte=2022))]),
    ],
)
def test_a_filter_of_either_kind_holds(filled: Rag, wanted: Any) -> None:
    retriever = CrossEncoderRetriever(rag=filled, filter=wanted)
    assert {document.metadata["year"] for document in retriever.invoke(QUESTION)} == {2022, 2023}
    assert {d.metadata["year"] for d in retriever.invoke(QUESTION, filter={"year": 2020})} == {2020}


def test_a_threshold_leaves_out_what_is_not_relevant(filled: Rag) -> None:
    everything = CrossEncoderRetriever(rag=filled).invoke(QUESTION)
    scores = [document.metadata["relevance_score"] for document in everything]
    assert scores == sorted(scores, reverse=True)
    for place in ({"rag": filled}, {"rag": filled, "base": store()}):
        found = CrossEncoderRetriever(**place, score_threshold=0.3).invoke(QUESTION)
        assert 0 < len(found) < len(everything)
        assert all(document.metadata["relevance_score"] >= 0.3 for document in found)


def test_the_reranker_sees_all_that_was_fetched() -> None:
    # A vector store whose vectors mean nothing: only the reranker can find the answer.
    base = store(DeterministicFakeEmbedding(size=16))
    found = CrossEncoderRetriever(base=base, rag=fakes(), k=1, fetch_k=4).invoke(QUESTION)
    assert [document.page_content for document in found] == [TEXTS[1]]


@pytest.mark.parametrize("place", ["index", "base"])
def test_lambda_one_is_pure_relevance_and_zero_is_not(filled: Rag, place: str) -> None:
    where: dict[str, Any] = {"rag": filled} if place == "index" else {"rag": filled, "base": store()}
    plain = CrossEncoderRetriever(**where, k=3).invoke(QUESTION)
    relevant = CrossEncoderRetriever(**where, k=3, search_type="mmr", lambda_mult=1.0).invoke(QUESTION)
    diverse = CrossEncoderRetriever(**where, k=3, search_type="mmr", lambda_mult=0.0).invoke(QUESTION)
    assert relevant == plain
    assert diverse[0] == plain[0]
    assert diverse[1] != plain[1]


def test_a_retriever_underneath_is_asked_with_its_callbacks() -> None:
    class Told(BaseCallbackHandler):
        def __init__(self) -> None:
            self.begun: list[str] = []

        def on_retriever_start(self, *_: Any, name: str = "", **__: Any) -> None:
            self.begun.append(name)

    retriever = CrossEncoderRetriever(base=store().as_retriever(search_kwargs={"k": 4}), rag=fakes(), k=1)
    for ask in (retriever.invoke, lambda *given: asyncio.run(retriever.ainvoke(*given))):
        told = Told()
        assert ask(QUESTION, {"callbacks": [told]})[0].page_content == TEXTS[1]
        assert told.begun == ["CrossEncoderRetriever", "VectorStoreRetriever"]


def test_async_and_batches_give_the_same(filled: Rag) -> None:
    for where in ({"rag": filled}, {"rag": filled, "base": store()}):
        retriever = CrossEncoderRetriever(**where, k=2)
        once = retriever.invoke(QUESTION)
        assert asyncio.run(retriever.ainvoke(QUESTION)) == once
        assert retriever.batch([QUESTION, QUESTION]) == [once, once]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "one place"),
        ({"index": Path("a"), "base": "store"}, "one place"),
        ({"index": Path("a"), "k": 0}, "k: "),
        ({"index": Path("a"), "search_type": "best"}, "search_type: "),
        ({"index": Path("a"), "filter": {"a b": 1}}, "cannot be a filter key"),
        ({"index": Path("a"), "reranker": "onnx:x"}, "goes with base"),
        ({"base": "retriever", "filter": {"n": 1}}, "gets no filter"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(fields: dict[str, Any], said: str) -> None:
    bases: dict[str, Any] = {"store": store, "retriever": lambda: store().as_retriever()}
    if "base" in fields:
        fields = fields | {"base": bases[fields["base"]]()}
    with pytest.raises(UsageError, match=said):
        CrossEncoderRetriever(**fields)


def test_an_unknown_option_of_a_call_is_refused(filled: Rag) -> None:
    with pytest.raises(UsageError, match="Did you mean 'fetch_k'"):
        CrossEncoderRetriever(rag=filled).invoke(QUESTION, fetch=3)


# --- compressor and cross-encoder


def test_the_compressor_scores_copies() -> None:
    given = documents()
    kept = CrossEncoderCompressor(rag=fakes(), top_n=2).compress_documents(given, QUESTION)
    assert [document.id for document in kept] == ["1", "2"]
    assert kept[0].metadata == {"n": 1, "relevance_score": kept[0].metadata["relevance_score"]}
    assert given == documents()
    assert CrossEncoderCompressor(rag=fakes()).compress_documents([], QUESTION) == []
    assert (
        asyncio.run(CrossEncoderCompressor(rag=fakes(), top_n=1).acompress_documents(given, QUESTION))
        == (kept[:1])
    )


def test_what_was_not_read_is_last_and_has_no_score() -> None:
    class Broken(OverlapReranker):
        def score(self, query: str, texts: Any, **more: Any) -> Any:
            from dataclasses import replace

            said = super().score(query, texts, **more)
            nan = (float("nan"), *said.logit[1:])
            return replace(said, logit=nan, relevance=(float("nan"), *said.relevance[1:]))

    given = list(reversed(documents()))  # the office first
    rag = fakes(reranker=Broken())
    kept = CrossEncoderCompressor(rag=rag).compress_documents(given, QUESTION)
    assert (kept[-1].id, kept[-1].metadata["relevance_score"]) == ("3", None)
    with pytest.raises(Exception, match="no finite score for 1 of 2 pairs"):
        CrossRagCrossEncoder(rag).score([(QUESTION, TEXTS[0]), (QUESTION, TEXTS[1])])


def test_pairs_of_several_questions_keep_their_places() -> None:
    encoder = CrossRagCrossEncoder(fakes())
    mixed = encoder.score(
        [("whales", TEXTS[0]), ("office", TEXTS[0]), ("whales", TEXTS[1]), ("office", TEXTS[3])]
    )
    assert mixed[0] > mixed[2]
    assert mixed[3] > mixed[1]
    assert encoder.score([]) == []


# --- embeddings


def test_vectors_are_those_of_the_index(filled: Rag) -> None:
    made = CrossRagEmbeddings(embedder=filled.embedder)
    assert made.embed_query("a") == filled.embedder.embed_query("a").tolist()
    assert made.embed_documents(["a", "b"]) == filled.embedder.embed_documents(["a", "b"]).tolist()


# --- filters


def condition(key: str, **said: Any) -> models.FieldCondition:
    return models.FieldCondition(key=f"metadata.{key}", **said)


def test_simple_filters_of_qdrant_are_translated() -> None:
    wanted = models.Filter(
        must=condition("team", match=models.MatchValue(value="blue")),
        should=[
            condition("year", match=models.MatchAny(any=[2020, 2021])),
            condition("date", range=models.DatetimeRange(gte="2024-01-01T00:00:00Z")),
        ],
        must_not=[models.Filter(must=[condition("source", match=models.MatchPrefix(prefix="old/"))])],
    )
    assert where_of(wanted) == {
        "and": [
            {"team": "blue"},
            {"or": [{"year": [2020, 2021]}, {"date": {"gte": "2024-01-01T00:00:00+00:00"}}]},
            {"not": {"and": [{"source": {"prefix": "old/"}}]}},
        ]
    }
    assert where_of(models.Filter()) == {}
    assert where_of(None) is None


@pytest.mark.parametrize(
    "wanted",
    [
        models.Filter(must=[models.HasIdCondition(has_id=[1])]),
        models.Filter(must=[condition("text", match=models.MatchText(text="x"))]),
        models.Filter(must=[condition("n", values_count=models.ValuesCount(gt=1))]),
        models.Filter(must=[models.FieldCondition(key="team", match=models.MatchValue(value="x"))]),
        models.Filter(min_should=models.MinShould(conditions=[], min_count=1)),
        "team = blue",
    ],
)
def test_others_are_refused(wanted: Any) -> None:
    with pytest.raises(UsageError):
        where_of(wanted)


def test_a_filter_goes_to_plain_metadata_for_a_foreign_collection() -> None:
    made = for_qdrant(
        {"team": "blue", "draft": False, "year": {"gte": 2020}, "day": {"lt": "2024-01-01"}},
        metadata="metadata",
    )
    (inner,) = made.must
    said = [(one.key, one.match or one.range) for one in inner.must]
    assert [key for key, _ in said] == [f"metadata.{name}" for name in ("team", "draft", "year", "day")]
    assert said[1][1] == models.MatchValue(value=False)
    assert isinstance(said[3][1], models.DatetimeRange)


# --- weight


def test_importing_crossrag_loads_no_langchain_and_a_missing_one_names_its_extra() -> None:
    code = """
import sys
import crossrag, crossrag.pipeline, crossrag.integrations
assert not [name for name in sys.modules if name.startswith(("langchain", "qdrant_client"))]
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked: raise ModuleNotFoundError(name)
import importlib.util
found = importlib.util.find_spec
blocked = {"langchain_core"}
importlib.util.find_spec = lambda name, *rest: None if name in blocked else found(name, *rest)
try:
    import crossrag.integrations.langchain
except crossrag.MissingExtraError as error:
    print(error)
blocked = {"langchain_qdrant", "langchain_text_splitters"}
from crossrag.integrations import langchain
for ask in (lambda: langchain.QdrantVectorStore, lambda: langchain.load_and_process_documents(".")):
    try:
        ask()
    except crossrag.MissingExtraError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.count("pip install 'crossrag[langchain]'") == 3, run.stdout


def test_ids_are_uuids(filled: Rag) -> None:
    assert all(UUID(str(d.id)) for d in CrossEncoderRetriever(rag=filled).invoke(QUESTION))
