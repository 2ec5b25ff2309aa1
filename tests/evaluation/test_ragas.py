"""RAGAS itself against a local server that plays a judge from a script. Skipped where ragas is not installed.

`make test` runs it in an environment of its own, as ragas wants an older openai than the rest.
"""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
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
