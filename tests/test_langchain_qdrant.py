"""Data between crossrag and langchain_qdrant: an index opened there, a collection of theirs adopted here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_qdrant", reason="needs the extra crossrag[langchain]")

import langchain_qdrant
from langchain_core.documents import Document
from langchain_qdrant import RetrievalMode
from qdrant_client import models

from crossrag import ConfigError, FingerprintError, IndexMissingError, Rag, StoreError, UsageError
from crossrag.config import IndexSettings, QdrantSettings, Settings
from crossrag.integrations.langchain import (
    CrossEncoderRetriever,
    CrossRagEmbeddings,
    CrossRagSparseEmbeddings,
    QdrantVectorStore,
)
from crossrag.testing import HashedEmbedder, HashedTerms, OverlapReranker

from .fake_qdrant import FakeQdrant, fake_qdrant

pytestmark = [
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect"),
    pytest.mark.filterwarnings("ignore:Qdrant client version"),
    pytest.mark.filterwarnings("ignore:Failed to obtain server version"),
]
QUESTION = "How do I restore a backup?"
TEXTS = {
    "whales.txt": "Whales are mammals.",
    "restore.txt": "To restore a backup, run the restore command.",
    "backup.txt": "A backup is written every night.",
    "office.txt": "The office opens at nine.",
}
VECTORS = CrossRagEmbeddings(embedder=HashedEmbedder())
TERMS = CrossRagSparseEmbeddings(HashedTerms())


@pytest.fixture
def server() -> Iterator[FakeQdrant]:
    with fake_qdrant() as served:
        yield served


def parts() -> dict[str, Any]:
    return {"embedder": HashedEmbedder(), "sparse_encoder": HashedTerms(), "reranker": OverlapReranker()}


# --- an index of crossrag's, opened with LangChain


@pytest.mark.parametrize("mode", list(RetrievalMode))
def test_langchain_finds_the_same_documents(
    server: FakeQdrant, corpus: Path, tmp_path: Path, mode: RetrievalMode
) -> None:
    settings = Settings(
        index=IndexSettings(path=tmp_path / "index"), qdrant=QdrantSettings(url=server.url, collection="mine")
    )
    with Rag(settings, **parts()) as rag:
        rag.ingest(corpus)
        legs = rag.index.search(
            rag.embedder.embed_query(QUESTION), rag.sparse_encoder.encode_query(QUESTION), limit=10
        )
    there = langchain_qdrant.QdrantVectorStore.from_existing_collection(
        collection_name="mine-1",  # a server follows the alias "mine" too
        embedding=VECTORS,
        sparse_embedding=TERMS,
        retrieval_mode=mode,
        vector_name="dense",
        sparse_vector_name="bm25",
        url=server.url,
        check_compatibility=False,
    )
    found = there.similarity_search_with_score(QUESTION, k=3)
    of_mode: dict[RetrievalMode, list[tuple[str, float | None]]] = {
        RetrievalMode.DENSE: [(hit.chunk.id, hit.dense) for hit in legs.dense],
        RetrievalMode.SPARSE: [(hit.chunk.id, hit.sparse) for hit in legs.sparse],
        RetrievalMode.HYBRID: [(hit.chunk.id, None) for hit in (*legs.dense, *legs.sparse)],
    }
    ours = of_mode[mode]
    assert found
    if mode is RetrievalMode.HYBRID:
        assert {document.metadata["_id"] for document, _ in found} <= {key for key, _ in ours}
        assert found[0][0].metadata["_id"] == ours[0][0]
    else:
        # Equal scores come in any order there, in one order here.
        said = {document.metadata["_id"]: pytest.approx(score, abs=1e-5) for document, score in found}
        assert said == {key: score for key, score in ours if key in said}
        assert found[0][0].metadata["_id"] == ours[0][0]
    assert "restore command" in found[0][0].page_content
    assert found[0][0].metadata["source"] == "docs/backup.md"
    reranked = CrossEncoderRetriever(
        base=there, rag=Rag(settings, **parts()), k=1, filter={"source": "docs/backup.md"}
    )
    assert "restore command" in reranked.invoke(QUESTION)[0].page_content
    there.client.close()


# --- a collection of LangChain's, adopted


def documents() -> list[Document]:
    return [
        Document(
            page_content=text,
            metadata={"source": name, "year": 2020 + n, "draft": n % 2 == 0, "day": f"2024-0{n + 1}-01"},
        )
        for n, (name, text) in enumerate(TEXTS.items())
    ]


def theirs(server: FakeQdrant, **options: Any) -> None:
    """A collection as LangChain makes it."""
    langchain_qdrant.QdrantVectorStore.construct_instance(
        embedding=VECTORS,
        client_options={"url": server.url, "check_compatibility": False},
        collection_name="theirs",
        **options,
    ).add_documents(documents())


def adopted(server: FakeQdrant, **options: Any) -> Rag:
    given: dict[str, Any] = {"embedder": HashedEmbedder(), "url": server.url} | options
    made = Rag.adopt("theirs", **given)
    for name in ("sparse_encoder", "reranker"):
        made.__dict__[name] = parts()[name]
    return made


@pytest.mark.parametrize("hybrid", [False, True])
def test_a_collection_of_langchains_is_searched_and_reranked_without_embedding(
    server: FakeQdrant, *, hybrid: bool
) -> None:
    both = {"retrieval_mode": RetrievalMode.HYBRID, "sparse_embedding": TERMS} if hybrid else {}
    theirs(server, **both)
    embedder = HashedEmbedder()
    before = len(server.asked)
    with adopted(server, embedder=embedder, sparse="langchain-sparse" if hybrid else None) as rag:
        ranking = rag.search(QUESTION, top_k=2)
        answer = rag.ask(QUESTION)
    best = ranking[0]
    assert best.chunk.text == TEXTS["restore.txt"]
    assert (best.chunk.source, best.chunk.metadata["year"]) == ("restore.txt", 2021)
    assert best.scores.relevance is not None
    assert (best.scores.sparse is not None) is hybrid
    assert not ranking.degraded
    assert answer.citations[0].source == "restore.txt"
    assert "restore command" in answer.text
    assert not [one for one in server.asked[before:] if one.method in {"PUT", "PATCH", "DELETE"}]
    assert {one.path.rpartition("/")[2] for one in server.asked[before:]} <= {"theirs", "batch", "count"}


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({"year": {"gte": 2022}}, {"backup.txt", "office.txt"}),
        ({"year": 2020}, {"whales.txt"}),
        ({"draft": True}, {"whales.txt", "backup.txt"}),
        ({"source": {"prefix": "wh"}}, {"whales.txt"}),
        ({"source": ["whales.txt", "office.txt"]}, {"whales.txt", "office.txt"}),
        ({"not": {"draft": True}}, {"restore.txt", "office.txt"}),
        ({"day": {"lt": "2024-02-15"}}, {"whales.txt", "restore.txt"}),
        ({"chunk_id": 0}, set(TEXTS)),
        ({"chunk_id": 1}, set()),
    ],
)
def test_filters_look_at_plain_metadata(server: FakeQdrant, where: dict[str, Any], found: set[str]) -> None:
    theirs(server)
    with adopted(server) as rag:
        assert {candidate.chunk.source for candidate in rag.search(QUESTION, where=where)} == found
    there = langchain_qdrant.QdrantVectorStore.from_existing_collection(
        collection_name="theirs", embedding=VECTORS, url=server.url, check_compatibility=False
    )
    retriever = CrossEncoderRetriever(base=there, rag=adopted(server))
    if "chunk_id" not in where:
        assert {document.metadata["source"] for document in retriever.invoke(QUESTION, filter=where)} == found
    there.client.close()


def test_what_only_an_expansion_found_has_the_questions_own_scores(server: FakeQdrant) -> None:
    theirs(server)
    with adopted(server, retrieval={"fetch_k": 1}, expansion={"methods": "multi-query"}) as rag:
        rag.__dict__["complete"] = lambda _: "written every night"
        ranking = rag.search(QUESTION, top_k=4)
    scores = {candidate.chunk.source: candidate.scores.dense for candidate in ranking}
    wanted = HashedEmbedder()
    cosine = float(wanted.embed_documents([TEXTS["backup.txt"]])[0] @ wanted.embed_query(QUESTION))
    assert cosine > 0.1
    assert scores["backup.txt"] == pytest.approx(cosine, abs=1e-5)


def test_nothing_is_written(server: FakeQdrant, corpus: Path) -> None:
    theirs(server)
    with adopted(server) as rag:
        for write in (
            lambda: rag.ingest(corpus),
            lambda: rag.plan(corpus),
            rag.documents,
            lambda: rag.store.upsert([], None, []),  # type: ignore[arg-type]
            lambda: rag.store.delete_document("1"),
            lambda: list(rag.store.scan(with_vectors=True)),
            lambda: rag.store.for_tenant("somebody"),
        ):
            with pytest.raises(UsageError, match="adopted"):
                write()
        assert rag.store.count() == len(TEXTS)
        assert sorted(point.chunk.text for point in rag.store.scan(limit=3)) == sorted(TEXTS.values())


def test_who_adopts_says_what_the_vectors_are(server: FakeQdrant) -> None:
    theirs(server)
    with pytest.raises(ConfigError, match="does not say what its vectors were made with"):
        Rag.open(index={"store": "adopted"}, qdrant={"url": server.url, "collection": "theirs"}).search("a")
    with (
        adopted(server, embedder=HashedEmbedder(dimension=7)) as rag,
        pytest.raises(FingerprintError, match="have 256 numbers, the embedder's 7"),
    ):
        rag.search(QUESTION)
    with pytest.raises(ConfigError, match=r"qdrant\.url"):
        Rag.open(index={"store": "adopted"}, embedder={"model": "onnx:bundled"}).search(QUESTION)


def test_what_is_there_is_said_where_it_does_not_fit(server: FakeQdrant) -> None:
    sizes = {"one": models.VectorParams(size=256, distance=models.Distance.COSINE)}
    server.client.create_collection("theirs", vectors_config=sizes | {"two": sizes["one"]})
    server.client.create_collection(
        "dot", vectors_config=models.VectorParams(size=256, distance=models.Distance.DOT)
    )
    with adopted(server) as rag, pytest.raises(ConfigError, match=r"\['one', 'two'\].*adopt\.vector"):
        rag.search(QUESTION)
    with adopted(server, vector="one", sparse="x") as rag, pytest.raises(ConfigError, match="sparse vectors"):
        rag.search(QUESTION)
    with adopted(server, vector="one") as rag:
        assert len(rag.search(QUESTION)) == 0
        server.client.upsert(
            "theirs", [models.PointStruct(id=5, vector={"one": [1.0] * 256}, payload={"body": "a backup"})]
        )
        with pytest.raises(StoreError, match=r"\['body'\]: set adopt\.text"):
            rag.search(QUESTION)
    with adopted(server, vector="one", adopt={"text": "body", "metadata": ""}) as rag:
        (found,) = rag.search(QUESTION)
        assert (found.chunk.id, found.chunk.source, found.chunk.metadata) == ("5", "5", {})
    with (
        Rag.adopt("dot", url=server.url, embedder=HashedEmbedder()) as rag,
        pytest.raises(ConfigError, match="compared by Dot"),
    ):
        rag.search(QUESTION)
    with (
        Rag.adopt("missing", url=server.url, embedder=HashedEmbedder()) as rag,
        pytest.raises(IndexMissingError, match="missing"),
    ):
        rag.search(QUESTION)


# --- the guide's vector store


def test_the_guides_arguments_make_a_collection_that_can_be_made_again(server: FakeQdrant) -> None:
    def made() -> QdrantVectorStore:
        return QdrantVectorStore.from_documents(
            documents=documents(),
            embedding=VECTORS,
            index_name="guide",
            url=server.url,
            check_compatibility=False,
        )

    made().client.close()
    assert server.client.count("guide").count == len(TEXTS)
    store = made()
    assert server.client.count("guide").count == len(TEXTS)
    store.add_documents(documents())
    assert server.client.count("guide").count == len(TEXTS)
    retriever = store.as_retriever(
        search_type="mmr",
        search_kwargs={"k": 2, "fetch_k": 4, "lambda_mult": 1.0, "rag": Rag(Settings(), **parts())},
    )
    assert isinstance(retriever, CrossEncoderRetriever)
    assert [d.metadata["source"] for d in retriever.invoke(QUESTION)] == ["restore.txt", "backup.txt"]
    with pytest.raises(UsageError, match="differ"):
        QdrantVectorStore.from_documents(documents(), VECTORS, index_name="a", collection_name="b")
    store.client.close()


def test_equal_texts_at_one_place_stay_two(server: FakeQdrant) -> None:
    store = QdrantVectorStore.from_texts(
        ["same", "same"], VECTORS, index_name="twice", url=server.url, check_compatibility=False
    )
    assert server.client.count("twice").count == 2
    store.client.close()


# --- the command


def test_the_command_says_what_to_set(
    server: FakeQdrant, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossrag import cli
    from crossrag.registry import load

    def run(*command: str) -> int:
        monkeypatch.setattr(sys, "argv", ["crossrag", *command])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    monkeypatch.chdir(tmp_path)
    bundled = CrossRagEmbeddings(embedder=load("embedders", "onnx:bundled"))
    langchain_qdrant.QdrantVectorStore.construct_instance(
        embedding=bundled,
        client_options={"url": server.url, "check_compatibility": False},
        collection_name="theirs",
    ).add_documents(documents())
    adopting = ["adopt", "theirs", "--url", server.url, "--embedder", "onnx:bundled"]
    assert run(*adopting) == 0
    said = capsys.readouterr()
    assert "theirs has 4 passages" in said.err
    (tmp_path / "crossrag.toml").write_text(said.out)
    assert run("search", QUESTION, "-k", "1") == 0
    assert "restore.txt" in capsys.readouterr().out
    for command in (["status"], ["doctor"]):
        assert run(*command) == 0
        assert "theirs" in capsys.readouterr().out
    for command in (["ingest", str(tmp_path)], ["verify"], ["export", "x"]):
        assert run(*command) == 2, command
        assert "adopted" in capsys.readouterr().err
    assert run("adopt", "missing", *adopting[2:]) == 3


def test_the_server_and_agents_search_in_it(server: FakeQdrant, tmp_path: Path) -> None:
    pytest.importorskip("mcp", reason="needs the extra crossrag[mcp]")
    import asyncio

    from mcp.client import Client

    from crossrag.config import load_settings
    from crossrag.server.mcp import Tools
    from crossrag.server.service import Service

    theirs(server)
    said: dict[str, dict[str, Any]] = {
        "index": {"store": "adopted", "path": tmp_path / "none"},
        "qdrant": {"url": server.url, "collection": "theirs"},
        "embedder": {"model": "hashed"},
    }

    async def use(service: Service) -> None:
        async with Client(Tools(service).server()) as tools:
            found = await tools.call_tool("search", {"query": QUESTION})
            assert found.structured_content["results"][0]["title"] == "restore.txt"
            answer = await tools.call_tool("ask", {"question": QUESTION})
            assert "restore command" in answer.structured_content["answer"]

    service = Service(load_settings(said).settings, **parts())
    try:
        asyncio.run(use(service))
    finally:
        service.close()


def test_it_is_measured_and_calibrated(server: FakeQdrant, tmp_path: Path) -> None:
    pytest.importorskip("ir_measures", reason="needs the extra crossrag[eval]")
    from crossrag.calibrating import Judgement
    from crossrag.evaluation.experiment import subject

    theirs(server)
    with adopted(server, index={"path": tmp_path / "none"}) as rag:
        assert subject(rag).identity["corpus"].endswith("collection theirs, 4 passages")
        judged = [
            Judgement(question=question, source=name)
            for name, questions in {
                "restore.txt": (QUESTION, "restore command", "restore", "backup", "stop the service"),
                "whales.txt": ("What are whales?", "mammals", "whales", "blue whale", "animal"),
            }.items()
            for question in questions
        ]
        rag.calibrate(judged)
        assert rag.calibrated is not None
