"""RAGAS itself against a local server that plays a judge from a script. Skipped where ragas is not installed.

`make test` runs it in an environment of its own, as ragas wants an older openai than the rest.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from crossrag.errors import GeneratorError, MissingExtraError, UsageError
from crossrag.evaluation.dataset import Dataset, Question
from crossrag.evaluation.journal import Journal
from crossrag.evaluation.judging import judged
from crossrag.evaluation.records import Answered, Record
from crossrag.testing import HashedEmbedder
from tests.fake_openai import FakeOpenAI, Reply, refusal

HERE = find_spec("ragas") is not None
needs_ragas = pytest.mark.skipif(not HERE, reason="ragas is not installed: `make test-ragas` runs these")

QUESTION = Question(
    id="q", text="How long does the whale sleep?", answers=("The whale sleeps for three hours.",)
)
ANSWER = Answered(
    text="The whale sleeps for three hours. [1] It sings. [2]",
    status="answered",
    claims=(("The whale sleeps for three hours.", (1,)), ("It sings.", (2,))),
    sources=("The whale sleeps for three hours.", "The park opens at nine."),
)


def said(content: Any) -> Reply:
    """A whole completion, not streamed."""
    text = content if isinstance(content, str) else json.dumps(content)
    message = {"role": "assistant", "content": text}
    body = {
        "id": "1", "object": "chat.completion", "created": 1, "model": "judge",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }  # fmt: skip
    return Reply(headers={"Content-Type": "application/json"}, parts=(json.dumps(body).encode(),))


STATEMENTS = said({"statements": ["The whale sleeps for three hours.", "The whale sings."]})
VERDICTS = said(
    {
        "statements": [
            {"statement": "The whale sleeps for three hours.", "reason": "as said", "verdict": 1},
            {"statement": "The whale sings.", "reason": "not said", "verdict": 0},
        ]
    }
)


def judge(server: FakeOpenAI, *measures: str) -> Any:
    from crossrag.evaluation.by_ragas import RagasJudge

    return RagasJudge(
        "judge",
        measures=measures,
        base_url=server.base_url,
        api_key="key",
        embedder=HashedEmbedder(),
        timeout=5,
    )


@needs_ragas
def test_faithfulness_by_a_scripted_judge() -> None:
    with FakeOpenAI(STATEMENTS, VERDICTS) as server:
        assert judge(server, "faithfulness").judge(QUESTION, ANSWER) == {"ragas_faithfulness": 0.5}
        assert [request.path for request in server.requests] == ["/v1/chat/completions"] * 2
        assert "The whale sleeps for three hours. It sings." in json.dumps(server.requests[0].body)


def likeness(one: str, other: str) -> float:
    """Cosine, by the embedder that the judge was given."""
    vectors = HashedEmbedder().embed_documents([one, other]).astype(float)
    lengths = [math.sqrt(float(vector @ vector)) for vector in vectors]
    return float(vectors[0] @ vectors[1]) / (lengths[0] * lengths[1])


@needs_ragas
def test_answer_relevancy_by_our_embedder() -> None:
    guessed = ("How long does the whale sleep?", "Does the whale sleep?", "What sings?")
    script = [said({"question": text, "noncommittal": 0}) for text in guessed]
    with FakeOpenAI(*script) as server:
        found = judge(server, "answer_relevancy").judge(QUESTION, ANSWER)["ragas_answer_relevancy"]
    expected = sum(likeness(QUESTION.text, text) for text in guessed) / 3
    assert 0.2 < expected < 1.0
    assert found == pytest.approx(expected, abs=1e-6)
    evasive = [said({"question": text, "noncommittal": 1}) for text in guessed]
    with FakeOpenAI(*evasive) as server:
        assert judge(server, "answer_relevancy").judge(QUESTION, ANSWER) == {"ragas_answer_relevancy": 0.0}


@needs_ragas
def test_answer_correctness_by_our_embedder() -> None:
    told = {"statements": ["The whale sleeps for three hours.", "The whale sings."]}
    wanted = {"statements": ["The whale sleeps for three hours."]}
    right, wrong = ({"statement": text, "reason": "as said"} for text in told["statements"])
    classified = {"TP": [right], "FP": [wrong], "FN": []}
    with FakeOpenAI(said(told), said(wanted), said(classified)) as server:
        made = judge(server, "answer_correctness")
        found = made.judge(QUESTION, ANSWER)["ragas_answer_correctness"]
    # One of two statements is right, and nothing is missing: F1 is 2/3, and it weighs three quarters.
    like = likeness("The whale sleeps for three hours. It sings.", QUESTION.answers[0])
    assert found == pytest.approx(0.75 * 2 / 3 + 0.25 * like, abs=1e-6)
    assert (made.spent.requests, made.spent.prompt_tokens, made.spent.completion_tokens) == (3, 3, 3)


@needs_ragas
def test_the_command_line_asks_the_judge(tmp_path: Path) -> None:
    (tmp_path / "whale.md").write_text("The whale sleeps for three hours every night.\n")
    (tmp_path / "q.jsonl").write_text(
        '{"question": "How long does the whale sleep?", "source": "whale.md"}\n'
    )

    def crossrag(*words: str) -> str:
        command = [sys.executable, "-m", "crossrag", *words, "--index", "index"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done
        return done.stdout + done.stderr

    crossrag("ingest", "whale.md")
    with FakeOpenAI(STATEMENTS, VERDICTS) as server:
        options = ("--ragas", "judge", "--ragas-measure", "faithfulness", "--out", "report")
        endpoint = (f"openai.base_url={server.base_url}", "openai.api_key=key")
        told = crossrag("eval", "q.jsonl", *options, *(word for one in endpoint for word in ("--set", one)))
        assert [request.body["model"] for request in server.requests] == ["judge"] * 2
    assert "ragas_faithfulness   0.500  over 1" in told
    assert "The judge was asked 2 times: 2 tokens read, 2 written." in told
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert content["answers"]["measures"]["ragas_faithfulness"]["mean"] == 0.5
    assert "key" not in content["answers"]["judges"].split()


@needs_ragas
def test_the_old_names_mean_the_new_classes() -> None:
    from ragas.metrics.collections import AnswerRelevancy, ContextPrecision, ContextRecall, Faithfulness

    with FakeOpenAI() as server:
        made = judge(server, "faithfulness", "answer_relevancy", "context_precision", "context_recall")
        kinds = [type(metric) for metric in made._metrics.values()]
    assert kinds == [Faithfulness, AnswerRelevancy, ContextPrecision, ContextRecall]


@needs_ragas
def test_context_precision_and_recall() -> None:
    precision = (said({"reason": "used", "verdict": 1}), said({"reason": "not used", "verdict": 0}))
    recall = said(
        {"classifications": [{"statement": QUESTION.answers[0], "reason": "in the context", "attributed": 1}]}
    )
    with FakeOpenAI(*precision, recall) as server:
        found = judge(server, "context_precision", "context_recall").judge(QUESTION, ANSWER)
    assert found["ragas_context_precision"] == pytest.approx(1.0)
    assert found["ragas_context_recall"] == pytest.approx(1.0)


@needs_ragas
@pytest.mark.parametrize(
    "script",
    [
        (said("I cannot help with that."),) * 2,
        (said({"statements": []}),),
        (refusal(400, "filtered"),),
        (said({"verdict": "maybe"}), said("{")),
    ],
    ids=["refusal", "no statements", "filtered", "other forms"],
)
def test_what_the_judge_does_not_say_is_counted_and_not_kept(script: tuple[Reply, ...]) -> None:
    data = Dataset(name="x", questions=(QUESTION,))
    records = [Record(id="q", seen=(), answered=ANSWER)]
    with FakeOpenAI(*script) as server, Journal(None) as journal:
        made = judge(server, "faithfulness")
        assert math.isnan(made.judge(QUESTION, ANSWER)["ragas_faithfulness"])
        server.play(*script)
        row = judged(data, records, [made], journal=journal).summary()["measures"]["ragas_faithfulness"]
        assert (row["mean"], row["count"], row["undefined"]) == (None, 0, 1)
        server.play(STATEMENTS, VERDICTS)
        again = judged(data, records, [made], journal=journal).summary()["measures"]["ragas_faithfulness"]
        assert (again["mean"], again["undefined"]) == (0.5, 0)
        # Now it is remembered.
        assert judged(data, records, [made], journal=journal).values["q"] == {"ragas_faithfulness": 0.5}


@needs_ragas
def test_what_cannot_be_asked_is_an_error() -> None:
    with FakeOpenAI(refusal(401, "wrong key")) as server, pytest.raises(GeneratorError, match="wrong key"):
        judge(server, "faithfulness").judge(QUESTION, ANSWER)
    with FakeOpenAI() as server, pytest.raises(UsageError, match="faithfullness"):
        judge(server, "faithfullness")


@needs_ragas
def test_without_a_reference_only_what_needs_none() -> None:
    bare = Question(id="q", text=QUESTION.text)
    with FakeOpenAI() as server:
        assert judge(server, "context_recall").judge(bare, ANSWER) == {"ragas_context_recall": None}
        assert not server.requests


@pytest.mark.skipif(HERE, reason="ragas is installed")
def test_without_ragas_it_is_said_how_to_get_it() -> None:
    with FakeOpenAI() as server, pytest.raises(MissingExtraError, match="ragas") as caught:
        judge(server)
    assert "crossrag[ragas]" in caught.value.hint


@needs_ragas
def test_the_guides_evaluation_is_by_ragas_where_a_judge_is_configured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from crossrag import Rag, Settings
    from crossrag.config import GeneratorSettings, OpenAISettings
    from crossrag.integrations.langchain import evaluate_rag

    asked = said({"question": QUESTION.text, "noncommittal": 0})
    useful = said({"reason": "as said", "verdict": 1})
    there = said({"classifications": [{"statement": "s", "reason": "as said", "attributed": 1}]})
    case = {
        "question": QUESTION.text,
        "answer": "The whale sleeps for three hours. It sings.",
        "contexts": list(ANSWER.sources),
        "ground_truth": QUESTION.answers[0],
    }
    with FakeOpenAI(STATEMENTS, VERDICTS, asked, asked, asked, useful, useful, there) as server:
        settings = Settings(
            openai=OpenAISettings.model_validate({"base_url": server.base_url, "api_key": "key"}),
            generator=GeneratorSettings(model="openai:judge"),
        )
        found = evaluate_rag([case], rag=Rag(settings, embedder=HashedEmbedder()))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["Judged by RAGAS with judge", "Faithfulness: 0.500"]
    assert found["context_recall"] == 1.0
    assert len(server.requests) == 8
