"""The whole way with nothing replaced: bundled models, Qdrant Edge, and a language model behind real HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossrag import GeneratorError, Rag

from .fake_openai import CUTS, FakeOpenAI, answer, refusal

GUIDE = Path(__file__).parent.parent / "src" / "crossrag" / "examples"


def opened(folder: Path, fake: FakeOpenAI) -> Rag:
    return Rag.open(
        folder,
        generator={"model": "openai:some-model"},
        openai={"base_url": fake.base_url, "max_retries": 0},
    )


def test_a_language_model_answers_from_the_sources_alone(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="needs the extra crossrag[openai]")
    with FakeOpenAI(answer("Stop the service", " first [", "1]", ", they say [7].")) as fake:
        with opened(tmp_path / "index", fake) as rag:
            rag.ingest(corpus)
            said = rag.ask("How do I restore a backup?")
        assert said.text == "Stop the service first [1], they say."
        assert [citation.source for citation in said.citations] == ["docs/backup.md, Backup"]
        assert "1 citations of sources that do not exist were removed" in said.notices
        messages = fake.requests[0].body["messages"]
        assert "restore command" in messages[-1]["content"]
        assert messages[-1]["content"].endswith("Question: How do I restore a backup?")


def test_a_language_model_is_not_asked_where_nothing_is_relevant(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="needs the extra crossrag[openai]")
    with FakeOpenAI() as fake, opened(tmp_path / "index", fake) as rag:
        rag.ingest(corpus)
        assert rag.ask("What is the boiling point of liquid helium?").status == "no_answer"
        assert fake.requests == []


def test_a_language_model_that_fails_is_no_short_answer(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="needs the extra crossrag[openai]")
    with FakeOpenAI(CUTS["unfinished"]) as fake, opened(tmp_path / "index", fake) as rag:
        rag.ingest(corpus)
        with pytest.raises(GeneratorError):
            rag.ask("How do I restore a backup?")


def test_a_language_model_that_is_down_is_done_without(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="needs the extra crossrag[openai]")
    with FakeOpenAI(refusal(503)) as fake, opened(tmp_path / "index", fake) as rag:
        rag.ingest(corpus)
        answer = rag.ask("How do I restore a backup?")
        assert "llm" in answer.degraded
        assert answer.status == "answered"
        assert answer.citations


def test_the_guide_answers_for_itself(tmp_path: Path) -> None:
    with Rag.open(tmp_path / "index") as rag:
        report = rag.ingest(GUIDE)
        assert report.added >= 30
        assert report.failed == report.skipped == ()
        for question, words in (
            ("What happens when an ingestion is interrupted?", "same command"),
            ("How do I use a local model served by Ollama for the answers?", "openai.base_url"),
            ("Which exit code means that the index is locked?", "3"),
        ):
            said = rag.ask(question)
            assert said.status == "answered", question
            assert words in said.text
            for citation in said.citations:
                source = next(source for source in said.context.sources if source.number == citation.number)
                assert (citation.passage_start, citation.passage_end) == (
                    source.chunk.start,
                    source.chunk.end,
                )
        assert rag.ask("What is the boiling point of liquid helium?").status == "no_answer"


def test_quotes_stand_in_the_documents_as_they_are_cited(corpus: Path, tmp_path: Path) -> None:
    with Rag.open(tmp_path / "index") as rag:
        rag.ingest(corpus)
        said = rag.ask("When does the office open?")
        (citation,) = said.citations
        quote = said.text[: citation.start].strip()
        text = next(source.chunk.text for source in said.context.sources if source.number == citation.number)
        assert quote in text
        assert "nine in the morning" in quote
