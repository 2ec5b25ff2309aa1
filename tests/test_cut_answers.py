"""Whatever happens upstream, a stream ends in exactly one way: Done, or an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from crossrag.answering import stream_answer
from crossrag.errors import GeneratorError
from crossrag.generators.openai import OpenAIGenerator
from crossrag.prompt import messages
from crossrag.testing import CannedGenerator, OverlapGrounder
from crossrag.types import Delta, Done, Event
from crossrag.verification import Policy, Verification

from .answers import NOTHING_RANKED, context
from .fake_openai import BREAKS, CUTS, DONE, WRONG, FakeOpenAI, Reply, answer, refusal, words

pytest.importorskip("openai", reason="needs the extra crossrag[openai]")

BEHAVIOURS = (
    {f"fails: {name}": reply for name, reply in BREAKS.items()}
    | {f"is cut: {name}": reply for name, reply in CUTS.items()}
    | {f"sends {name}": Reply(parts=(*words("One", end=None), part)) for name, part in WRONG.items()}
    | {
        "refuses": refusal(401),
        "is busy": refusal(429),
        "is busy in the middle": Reply(
            parts=(*words("One [1].", end=None), b'data: {"error": {"code": 429}}\n\n')
        ),
        "says nothing": Reply(parts=(DONE,)),
        "stops at its limit": answer("One [1]. Two", end="length"),
        "is silent": Reply(silent=True),
        "answers": answer("A backup is written every night [1]."),
    }
)
USED = context("A backup is written every night.")
FALLBACK = CannedGenerator(["Quoted [1]."])


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        yield fake


def ended(server: FakeOpenAI, policy: Policy, **options: Any) -> tuple[list[Event], GeneratorError | None]:
    generator = OpenAIGenerator(
        render=messages, base_url=server.base_url, api_key="sk-test", timeout=0.3, max_retries=0
    )
    found: list[Event] = []
    try:
        found.extend(
            stream_answer(
                "q",
                USED,
                generator=generator,
                ranking=NOTHING_RANKED,
                verification=Verification(grounder=OverlapGrounder(), policy=policy),
                **options,
            )
        )
    except GeneratorError as error:
        return found, error
    return found, None


@pytest.mark.parametrize("policy", ["mark", "drop", "regenerate"])
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_one_end(server: FakeOpenAI, behaviour: str, policy: Policy) -> None:
    server.play(BEHAVIOURS[behaviour])
    found, error = ended(server, policy)
    terminal = [event for event in found if isinstance(event, Done)]
    assert len(terminal) == (0 if error else 1)
    if terminal:
        assert found[-1] is terminal[0]
        assert behaviour == "answers"


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_with_a_fallback_nothing_begins_twice(server: FakeOpenAI, behaviour: str) -> None:
    server.play(BEHAVIOURS[behaviour])
    found, error = ended(server, "mark", fallback=FALLBACK)
    text = "".join(event.text for event in found if isinstance(event, Delta))
    if error is None and behaviour != "answers":
        assert text == "Quoted [1]."
        assert isinstance(found[-1], Done)
        assert found[-1].answer.degraded == ("llm",)
    elif error is not None:
        assert "Quoted" not in text
