"""The guide's functions: names, arguments and results as there; its chains with a chat model of OpenAI's."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_openai", reason="needs the extra crossrag[langchain]")

from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableLambda

from crossrag import ConfigError, LoadError, MissingExtraError, Rag, Settings, UsageError
from crossrag.config import GeneratorSettings, IndexSettings, OpenAISettings
from crossrag.integrations.langchain import (
    create_cross_encoder_chain,
    create_rag_with_sources,
    evaluate_rag,
    load_and_process_documents,
)
from crossrag.testing import HashedEmbedder, HashedTerms, OverlapGrounder, OverlapReranker

from .fake_openai import FakeOpenAI, Reply, answer

QUESTION = "How do I restore a backup?"
SAID = "Run the restore command. [Source: a.md]"
FOUND = [
    Document(page_content="To restore a backup, run {the} restore command.", metadata={"source": "a.md"}),
    Document(page_content="Whales are mammals."),
]


class Counted:
    """A retriever that says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def runnable(self) -> Runnable[str, list[Document]]:
        def ask(question: str) -> list[Document]:
            self.asked.append(question)
            return FOUND

        return RunnableLambda(ask)


class Model(GenericFakeChatModel):
    """Remembers the messages."""

    heard: Any = None

    def _generate(self, messages: Any, *given: Any, **more: Any) -> Any:
        self.heard.append(messages)
        return super()._generate(messages, *given, **more)


def model() -> Model:
    return Model(messages=iter([AIMessage(SAID)]), heard=[])


# --- documents


def test_a_folder_becomes_chunks_as_in_the_guide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "below").mkdir()
    sentence = "A backup is written every night at two o'clock in the morning. "
    (tmp_path / "long.txt").write_text(sentence * 40)
    (tmp_path / "below" / "short.txt").write_text("Whales are mammals.")
    (tmp_path / "other.md").write_text("# No text file")
    chunks = load_and_process_documents(str(tmp_path))
    assert capsys.readouterr().out == f"Created {len(chunks)} chunks from 2 documents\n"
    assert [chunk.metadata["chunk_id"] for chunk in chunks] == list(range(len(chunks)))
    assert {chunk.metadata["variant"] for chunk in chunks} == {"Cross-Encoder"}
    assert {chunk.metadata["source"] for chunk in chunks} == {
        str(tmp_path / "long.txt"),
        str(tmp_path / "below" / "short.txt"),
    }
    for chunk in chunks:
        assert chunk.metadata["chunk_length"] == len(chunk.page_content) <= 800
        whole = Path(chunk.metadata["source"]).read_text()
        start = chunk.metadata["start_index"]
        assert whole[start : start + len(chunk.page_content)] == chunk.page_content
    long = [chunk for chunk in chunks if chunk.metadata["source"].endswith("long.txt")]
    assert long[1].metadata["start_index"] < len(long[0].page_content)


def test_other_files_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("---\nteam: blue\n---\n# Title\n\nText.\n")
    (chunk,) = load_and_process_documents(tmp_path, glob="**/*")
    assert (chunk.metadata["team"], chunk.page_content) == ("blue", "# Title\n\nText.")


def test_what_cannot_be_read_is_no_silence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        load_and_process_documents(tmp_path / "missing")
    (tmp_path / "a.txt").write_bytes(b"\0\1\2\3" * 500)
    with pytest.raises(LoadError):
        load_and_process_documents(tmp_path)


# --- chains


def test_the_chain_answers_from_the_context_by_the_rules() -> None:
    retriever, llm = Counted(), model()
    chain = create_cross_encoder_chain(retriever.runnable(), llm)
    assert chain.invoke(QUESTION) == SAID
    assert retriever.asked == [QUESTION]
    system, human = llm.heard[0]
    assert human.content == QUESTION
    assert "[Source: a.md]\nTo restore a backup, run {the} restore command." in system.content
    assert "\n\n---\n\n[Source: Unknown]\nWhales are mammals." in system.content
    for rule in ("context says", "does not hold the answer, say so", "Cite the source", "concise", "is data"):
        assert rule in system.content


def test_answer_and_sources_come_of_one_search() -> None:
    for ask in (
        lambda chain: chain.invoke(QUESTION),
        lambda chain: asyncio.run(chain.ainvoke(QUESTION)),
        lambda chain: _joined(chain.stream(QUESTION)),
        lambda chain: asyncio.run(_collected(chain)),
    ):
        retriever = Counted()
        said = ask(create_rag_with_sources(retriever.runnable(), model()))
        assert said == {"answer": SAID, "sources": ["a.md", None]}
        assert retriever.asked == [QUESTION]


def test_the_answer_is_streamed_in_pieces() -> None:
    pieces = list(create_rag_with_sources(Counted().runnable(), model()).stream(QUESTION))
    assert sum("answer" in piece for piece in pieces) > 3
    assert [piece["sources"] for piece in pieces if "sources" in piece] == [["a.md", None]]


def _joined(pieces: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for piece in pieces:
        for name, value in piece.items():
            whole[name] = whole[name] + value if name in whole else value
    return whole


async def _collected(chain: Any) -> dict[str, Any]:
    return _joined([piece async for piece in chain.astream(QUESTION)])


def test_without_a_model_it_is_the_guides(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        create_cross_encoder_chain(Counted().runnable())
    with FakeOpenAI(answer("Run ", "it.")) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        assert "".join(create_cross_encoder_chain(Counted().runnable()).stream(QUESTION)) == "Run it."
    assert server.requests[0].body["model"] == "gpt-4o-mini"
    assert server.requests[0].body["temperature"] == 0


# --- evaluation


def judges(tmp_path: Path, **settings: Any) -> Rag:
    made = Settings(index=IndexSettings(path=tmp_path), **settings)
    return Rag(
        made,
        embedder=HashedEmbedder(),
        sparse_encoder=HashedTerms(),
        reranker=OverlapReranker(),
        grounder=OverlapGrounder(),
    )


CASE = {
    "question": QUESTION,
    "answer": "Run the restore command [1].",
    "contexts": [FOUND[0].page_content, FOUND[1].page_content],
    "ground_truth": "Run the restore command.",
}
WRONG = {
    "user_input": "What are whales?",
    "response": "Whales are fish and live in trees.",
    "retrieved_contexts": ["The office opens at nine."],
    "reference": "Whales are mammals of the sea.",
}


def test_four_measures_are_printed_to_three_decimals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluate_rag([CASE], rag=judges(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Judged by models of this machine (no judge was configured)"
    assert lines[1:] == [
        f"{name}: {found[key]:.3f}"
        for name, key in (
            ("Faithfulness", "faithfulness"),
            ("Answer Relevancy", "answer_relevancy"),
            ("Context Precision", "context_precision"),
            ("Context Recall", "context_recall"),
        )
    ]
    assert (found["faithfulness"], found["context_precision"], found["context_recall"]) == (1.0, 1.0, 1.0)
    worse = evaluate_rag([CASE, WRONG], rag=judges(tmp_path))
    assert (worse["faithfulness"], worse["context_recall"]) == (0.5, 0.5)


def test_what_is_undefined_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = CASE | {"ground_truth": ""}
    found = evaluate_rag([case], rag=judges(tmp_path))
    assert math.isnan(found["context_recall"])
    assert "Context Recall: nan  (0 of 1 cases)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        ([], "no test cases"),
        ([{name: CASE[name] for name in CASE if name != "contexts"}], "1 has no 'contexts'"),
        ([CASE, CASE | {"contexts": "one text"}], "2: contexts is no list"),
    ],
)
def test_a_case_that_lacks_something_is_refused(cases: list[Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        evaluate_rag(cases, rag=judges(tmp_path))


def test_ragas_judges_where_it_is_there_and_a_model_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the environment of the other tests RAGAS is not there; see tests/evaluation/test_ragas.py."""
    with FakeOpenAI() as server:
        rag = judges(
            tmp_path,
            generator=GeneratorSettings(model="openai:judge"),
            openai=OpenAISettings(base_url=server.base_url),
        )
        try:
            import ragas  # noqa: F401
        except ImportError:
            evaluate_rag([CASE], rag=rag)
            assert "not by RAGAS: RAGAS needs the package ragas" in capsys.readouterr().out
            with pytest.raises(MissingExtraError, match=r"crossrag\[ragas\]"):
                evaluate_rag([CASE], rag=rag, judge="judge")
            assert not server.requests


def test_chat_models_are_asked_by_the_guides_names() -> None:
    reply = {
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Yes."}}
        ]
    }
    body = json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "m", **reply}).encode()
    from langchain_openai import ChatOpenAI

    with FakeOpenAI(Reply(headers={"Content-Type": "application/json"}, parts=(body,))) as server:
        llm = ChatOpenAI(model="m", base_url=server.base_url, api_key="none")
        assert create_cross_encoder_chain(Counted().runnable(), llm).invoke(QUESTION) == "Yes."
