"""LangChainGenerator over LangChain's own fake chat model, and over models that fail."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any

import pytest

from crossrag.errors import ConfigError, GeneratorError, MissingExtraError
from crossrag.generators.langchain import LangChainGenerator
from crossrag.prompt import messages
from crossrag.protocols import Generator
from crossrag.registry import load
from crossrag.types import Answer, Turn

from .answers import answer, context

pytest.importorskip("langchain", reason="needs the extra crossrag[langchain]")

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

USED = context("A backup is written every night.")
TEXT = "A backup is written every night [1]."


class Failing(GenericFakeChatModel):
    """Says some words and then raises, or ends with a reason."""

    raises: Any = None
    words: tuple[str, ...] = ("One", " two")
    end: Any = None
    asked: Any = None

    def _stream(self, messages: Any, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        self.asked.append(messages)
        for word in self.words:
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        if self.raises is not None:
            raise self.raises
        yield ChatGenerationChunk(message=AIMessageChunk(content="", response_metadata=self.end or {}))


def made(model: Any) -> LangChainGenerator:
    return LangChainGenerator(render=messages, model=model)


def fake(**fields: Any) -> Failing:
    return Failing(messages=iter([AIMessage(TEXT)]), **fields)


def test_an_answer_of_a_chat_model_is_streamed_and_cited() -> None:
    generator = made(GenericFakeChatModel(messages=iter([AIMessage(TEXT)])))
    assert isinstance(generator, Generator)
    assert generator.fingerprint == "langchain:GenericFakeChatModel"
    said = answer([], USED, generator=generator)
    assert (said.text, [citation.number for citation in said.citations]) == (TEXT, [1])


def test_the_model_is_told_rules_history_sources_and_question() -> None:
    model = fake(end={"finish_reason": "stop"}, asked=[])
    pieces = list(
        made(model).stream("Why?", USED, [Turn(role="user", text="Hi"), Turn(role="assistant", text="Yes?")])
    )
    assert pieces == ["One", " two"]
    (asked,) = model.asked
    assert [message.type for message in asked] == ["system", "human", "ai", "human"]
    assert "<source number=" in asked[-1].content
    assert asked[-1].content.endswith("Question: Why?")


class FinishReason(enum.Enum):
    """As Google's package has it."""

    MAX_TOKENS = 2


CUT_SHORT: list[dict[str, Any]] = [
    *({"finish_reason": end} for end in ("length", "max_tokens", "MAX_TOKENS", "content_filter", "SAFETY")),
    *({"finish_reason": end} for end in ("RECITATION", "error", "model_length", FinishReason.MAX_TOKENS)),
    *({"stop_reason": end} for end in ("max_tokens", "refusal", "model_context_window_exceeded")),
    *({"stopReason": end} for end in ("max_tokens", "guardrail_intervened")),
    {"done_reason": "length"},
    {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
]
COMPLETE: list[dict[str, Any]] = [
    *({"finish_reason": end} for end in ("stop", "STOP", "tool_calls", "COMPLETE", "eos_token", None, "")),
    *({"stop_reason": end} for end in ("end_turn", "stop_sequence", "tool_use")),
    {"stopReason": "end_turn"},
    {"done_reason": "stop"},
    {"finish_reason": "not_finished"},
    {"status": "completed", "incomplete_details": None},
    {},
]


def said_with(end: dict[str, Any]) -> Answer:
    return answer([], USED, generator=made(fake(end=end, asked=[])))


@pytest.mark.parametrize("end", CUT_SHORT, ids=str)
def test_an_answer_that_is_cut_short_is_no_answer(end: dict[str, Any]) -> None:
    with pytest.raises(GeneratorError, match="incomplete"):
        said_with(end)


@pytest.mark.parametrize("end", COMPLETE, ids=str)
def test_an_answer_that_is_complete_is_one(end: dict[str, Any]) -> None:
    said = said_with(end)
    assert said.text == "One two"
    assert not any("stopped" in notice for notice in said.notices)


def test_an_end_that_nobody_knows_is_said() -> None:
    said = said_with({"finish_reason": "fatigue"})
    assert said.text == "One two"
    assert "Failing stopped with 'fatigue': the answer may be incomplete" in said.notices


def test_a_model_that_writes_nothing_has_not_answered() -> None:
    with pytest.raises(GeneratorError, match=r"wrote no text \(it stopped with 'tool_calls'\)"):
        list(made(fake(words=(), end={"finish_reason": "tool_calls"}, asked=[])).stream("Why?", USED))


class RateLimitError(Exception):
    status_code = 429


@pytest.mark.parametrize(
    ("error", "retryable"), [(RateLimitError("slow down"), True), (KeyError("x"), False)]
)
def test_failures_are_told_without_keys(error: Exception, retryable: bool) -> None:  # noqa: FBT001
    error.args = (f"{error} key sk-proj-0123456789abcdefghij",)
    with pytest.raises(GeneratorError) as caught:
        list(made(fake(raises=error, asked=[])).stream("Why?", USED))
    assert caught.value.retryable is retryable
    assert "0123456789" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_provider_must_be_known_and_installed() -> None:
    with pytest.raises(ConfigError, match="PROVIDER:MODEL"):
        load("generators", "langchain:nobody:x", render=messages)
    with pytest.raises(MissingExtraError, match="langchain-fireworks"):
        load("generators", "langchain:fireworks:x", render=messages)
