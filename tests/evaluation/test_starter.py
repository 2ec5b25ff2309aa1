"""A first set of questions: from headings, by a language model, by hand; and what people say on the page."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from crossrag.cli import starting
from crossrag.errors import GeneratorError
from crossrag.evaluation import starter
from crossrag.evaluation.experiment import conduct, subject
from crossrag.evaluation.journal import Journal
from crossrag.evaluation.reading import read_dataset
from tests.fake_openai import FakeOpenAI, answer, refusal

from . import toys

if TYPE_CHECKING:
    from crossrag import Rag


def found_all(rag: Rag, file: Path) -> bool:
    """Whether the search finds a relevant place for every question of the file."""
    with Journal(None) as journal:
        records = conduct(read_dataset(file), subject(rag), journal=journal)
    return all(any(seen.grade for seen in record.seen) for record in records)


def test_a_starter_set_is_from_the_index_and_the_same_every_time(library: Rag, tmp_path: Path) -> None:
    rows = list(starter.starter(library, count=8, known=set()))
    assert rows == list(starter.starter(library, count=8, known=set()))
    assert len({row["source"] for row in rows}) == len(rows) == 8
    out = tmp_path / "starter.jsonl"
    starter.append(out, rows)
    assert found_all(library, out)
    # Passages whose question is known already are passed over, not counted.
    more = list(starter.starter(library, count=8, known=starter.asked_already(out)))
    assert len(more) == 8
    assert not {row["question"] for row in rows} & {row["question"] for row in more}


def asking(rag: Rag, server: FakeOpenAI) -> None:
    """Give the Rag a language model that plays from a script."""
    from crossrag.assembly import completion
    from crossrag.config import GeneratorSettings, OpenAISettings

    settings = rag.settings.model_copy(
        update={
            "generator": GeneratorSettings(model="openai:writer"),
            "openai": OpenAISettings(base_url=server.base_url, api_key="key", max_retries=0),
        }
    )
    rag.__dict__["complete"] = completion(settings)


def test_questions_by_a_language_model(
    library: Rag, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made.jsonl"
    script = (
        answer("“How long does ", "it sleep?”\n"),
        answer("I am sorry, " + "but I cannot say anything about it. " * 20),
        answer("How long does it sleep?"),
        answer("What does it eat?"),
    )
    with FakeOpenAI(*script) as server:
        asking(library, server)
        starting.begin(library, out, count=2, by_hand=False)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["question"] for row in rows] == ["How long does it sleep?", "What does it eat?"]
    assert "2 questions, by the language model" in capsys.readouterr().out
    # Each was asked with a passage that holds its quote, as data.
    prompts = [json.dumps(request.body["messages"]) for request in server.requests]
    assert len(prompts) == 4
    assert all(row["quote"] in prompt for row, prompt in zip(rows, (prompts[0], prompts[3]), strict=True))
    assert all("It is data" in prompt for prompt in prompts)
    assert found_all(library, out)


def test_what_a_model_wrote_before_it_failed_is_kept(library: Rag, tmp_path: Path) -> None:
    out = tmp_path / "made.jsonl"
    with FakeOpenAI(answer("How long does it sleep?"), refusal(401, "wrong key")) as server:
        asking(library, server)
        with pytest.raises(GeneratorError, match="key"):
            starting.begin(library, out, count=5, by_hand=False)
        assert starter.asked_already(out) == {"How long does it sleep?"}
        server.play(answer("What does it eat?"))
        starting.begin(library, out, count=1, by_hand=False)
    assert starter.asked_already(out) == {"How long does it sleep?", "What does it eat?"}


def test_by_hand(library: Rag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "hand.jsonl"
    said = "How long does the whale sleep?\n1 3\n\nWhat does the whale eat?\ns\nq\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    starting.begin(library, out, count=10, by_hand=True)
    first, second = read_dataset(out).questions
    assert first.text == "How long does the whale sleep?"
    # The passage itself, then the results in their order: the first and the third were said to be right.
    assert [place.grade for place in first.places] == [1, 1, 0, 1, 0, 0][: len(first.places)]
    assert [place.grade for place in second.places] == [1]


def rated(rag: Rag, folder: Path, question: str, *, up: bool) -> None:
    """A thumb on the first passage found, as the page sends it."""
    from crossrag.server.feedback import Feedback
    from crossrag.server.schemas import FeedbackRequest, JudgedPassage
    from crossrag.server.wire import document_id
    from crossrag.server_settings import ServerSettings

    chunk = rag.search(question, top_k=1)[0].chunk
    passage = JudgedPassage(document_id=document_id(chunk.document_id), start=chunk.start, end=chunk.end)
    given: Any = FeedbackRequest(
        question=question, verdict="up" if up else "down", kind="passage", passages=[passage]
    )
    service: Any = SimpleNamespace(limits=ServerSettings())
    Feedback(service).note(rag, folder, given)


def test_thumbs_on_the_page_are_judgements(library: Rag, tmp_path: Path) -> None:
    folder = tmp_path / "feedback"
    for animal in toys.ANIMALS[:3]:
        rated(library, folder, f"How many hours does the {animal} sleep?", up=True)
    rated(library, folder, f"How many hours does the {toys.ANIMALS[2]} sleep?", up=False)
    # The folder of feedback is a folder of questions.
    data = read_dataset(folder)
    assert [question.text for question in data.questions] == [
        f"How many hours does the {animal} sleep?" for animal in toys.ANIMALS[:2]
    ]
    assert all(question.judged for question in data.questions)
    assert found_all(library, folder)
