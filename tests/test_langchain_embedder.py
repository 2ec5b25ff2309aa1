"""LangChain's embeddings and chat models as parts of a Rag: as objects, and by name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("langchain", reason="needs the extra crossrag[langchain]")

from langchain_core.embeddings import Embeddings
from langchain_core.language_models.fake_chat_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage

from crossrag import ConfigError, FingerprintError, MissingExtraError, ModelError, Rag, Settings
from crossrag.config import ExpansionSettings, IndexSettings, RerankingSettings
from crossrag.embedders.langchain import LangChainEmbedder
from crossrag.integrations.langchain import CrossRagEmbeddings
from crossrag.registry import load
from crossrag.testing import EmbedderContract, HashedEmbedder, HashedTerms, OverlapReranker

from .fake_openai import FakeOpenAI, Reply

if TYPE_CHECKING:
    from crossrag.protocols import Embedder


class Long(Embeddings):
    """Vectors that are not of unit length."""

    model = "long-1"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[3 * value for value in row] for row in HashedEmbedder().embed_documents(texts).tolist()]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


class TestLangChainEmbedder(EmbedderContract):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return LangChainEmbedder(Long())


def test_class_model_and_dimension_are_remembered() -> None:
    assert LangChainEmbedder(Long()).fingerprint == "langchain:Long:long-1:256"
    assert LangChainEmbedder(Long(), fingerprint="mine").fingerprint == "mine"


class RateLimitError(Exception):
    pass


class Odd(Embeddings):
    def __init__(self, said: Any) -> None:
        self.said = said

    def embed_documents(self, texts: list[str]) -> Any:  # noqa: ARG002
        if isinstance(self.said, Exception):
            raise self.said
        return self.said

    def embed_query(self, text: str) -> Any:
        return self.embed_documents([text])


@pytest.mark.parametrize("said", [[], [[]], [[1.0, math.nan]], [[1.0], [1.0, 2.0]], "text", None])
def test_what_is_no_vector_is_an_error(said: Any) -> None:
    with pytest.raises(ModelError, match="2 finite vectors"):
        LangChainEmbedder(Odd(said)).embed_documents(["a", "b"])


def test_a_failure_is_told_without_keys() -> None:
    with pytest.raises(ModelError, match="RateLimitError: slow down") as caught:
        LangChainEmbedder(Odd(RateLimitError("slow down sk-proj-0123456789abcdefghij"))).embed_query("a")
    assert "0123456789" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_provider_must_be_known_and_installed() -> None:
    with pytest.raises(ConfigError, match="PROVIDER:MODEL"):
        load("embedders", "langchain:nobody:x")
    with pytest.raises(MissingExtraError, match="langchain"):
        load("embedders", "langchain:cohere:x")
    with pytest.raises(ConfigError, match="which one"):
        load("embedders", "langchain")


def test_a_model_by_name_is_asked_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    made = load("embedders", "langchain:openai:text-embedding-3-small")
    assert isinstance(made, LangChainEmbedder)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ModelError, match="key"):
        load("embedders", "langchain:openai:text-embedding-3-small").embed_query("a")


def test_openai_is_given_texts_and_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"object": "embedding", "index": place, "embedding": [0.0, 2.0]} for place in range(2)]
    said = {"object": "list", "model": "m", "data": rows, "usage": {"prompt_tokens": 1, "total_tokens": 1}}
    reply = Reply(headers={"Content-Type": "application/json"}, parts=(json.dumps(said).encode(),))
    with FakeOpenAI(reply) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        made = load("embedders", "langchain:openai:text-embedding-3-small")
        assert made.embed_documents(["one", " "]).tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert [request.path for request in server.requests] == ["/v1/embeddings"]
    assert server.requests[0].body["input"] == ["one", "."]


def rag(tmp_path: Path, **parts: Any) -> Rag:
    settings = Settings(
        index=IndexSettings(path=tmp_path / "index"),
        reranking=RerankingSettings(threshold=0.1),
        expansion=ExpansionSettings(methods=("multi-query",))
        if "generator" in parts
        else ExpansionSettings(),
    )
    return Rag(settings, sparse_encoder=HashedTerms(), reranker=OverlapReranker(), **parts)


def test_an_index_is_made_with_embeddings_of_langchain(tmp_path: Path, corpus: Path) -> None:
    with rag(tmp_path, embedder=Long()) as made:
        made.ingest(corpus)
        assert made.search("restore a backup")[0].chunk.source == "docs/backup.md"
        assert made.embedder.fingerprint.startswith("langchain:")
    with (
        rag(tmp_path, embedder=HashedEmbedder()) as other,
        pytest.raises(FingerprintError, match="langchain:"),
    ):
        other.search("restore")


def test_a_chat_model_answers_and_expands(tmp_path: Path, corpus: Path) -> None:
    chat = GenericFakeChatModel(
        messages=iter([AIMessage("where is the restore command"), AIMessage("Run the restore command [1].")])
    )
    with rag(tmp_path, embedder=HashedEmbedder(), generator=chat) as made:
        made.ingest(corpus)
        answer = made.ask("How do I restore a backup?")
    assert answer.text == "Run the restore command [1]."
    assert [citation.number for citation in answer.citations] == [1]
    assert [one.text for one in answer.ranking.expansions] == ["where is the restore command"]


def test_what_has_our_shape_is_taken_as_it_is() -> None:
    class Both(CrossRagEmbeddings):
        fingerprint = "own"
        dimension = 3

    class Writer(FakeListChatModel):
        @property
        def fingerprint(self) -> str:
            return "own"

    given: Any = Both(embedder=HashedEmbedder())
    writer: Any = Writer(responses=["x"])
    made = Rag(Settings(), embedder=given, generator=writer)
    assert made.embedder is given
    assert made.generator is writer
