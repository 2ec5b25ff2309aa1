"""LangChainGenerator over LangChain's own fake chat model, and over models that fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from crossrag.errors import ConfigError, GeneratorError, MissingExtraError
from crossrag.generators.langchain import LangChainGenerator
from crossrag.prompt import messages
from crossrag.protocols import Generator
from crossrag.registry import load
from crossrag.types import Turn

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
    reason: str = ""
    asked: Any = None

    def _stream(self, messages: Any, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        self.asked.append(messages)
        for word in ("One", " two"):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        if self.raises is not None:
            raise self.raises
        end = {"finish_reason": self.reason} if self.reason else {}
        yield ChatGenerationChunk(message=AIMessageChunk(content="", response_metadata=end))


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
    model = fake(reason="stop", asked=[])
    pieces = list(
        made(model).stream("Why?", USED, [Turn(role="user", text="Hi"), Turn(role="assistant", text="Yes?")])
    )
    assert pieces == ["One", " two"]
    (asked,) = model.asked
    assert [message.type for message in asked] == ["system", "human", "ai", "human"]
    assert "<source number=" in asked[-1].content
    assert asked[-1].content.endswith("Question: Why?")


@pytest.mark.parametrize("reason", ["length", "max_tokens", "content_filter"])
def test_an_answer_that_is_cut_short_is_no_answer(reason: str) -> None:
    with pytest.raises(GeneratorError, match="incomplete"):
        list(made(fake(reason=reason, asked=[])).stream("Why?", USED))


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
