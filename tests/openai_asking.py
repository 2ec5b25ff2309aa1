"""An OpenAIGenerator that asks the scripted server, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from crossrag.errors import GeneratorError
from crossrag.generators.openai import OpenAIGenerator
from crossrag.types import Context, Turn

from .fake_openai import FakeOpenAI, answer

KEY = "sk-test-0123456789abcdef"
NOTHING = Context(sources=(), tokens=0)
HELLO = answer("Hel", "lo ", "[1].")


def render(question: str, context: Context, history: Sequence[Turn]) -> list[dict[str, str]]:
    """A prompt that shows everything it was given."""
    turns = [{"role": turn.role, "content": turn.text} for turn in history]
    return [*turns, {"role": "user", "content": f"{question} {len(context.sources)}"}]


def make(server: FakeOpenAI, **changes: Any) -> OpenAIGenerator:
    settings: dict[str, Any] = {"base_url": server.base_url, "api_key": KEY, "timeout": 5.0, "sleep": never}
    return OpenAIGenerator(render=render, **settings | changes)


def never(seconds: float) -> None:
    raise AssertionError(f"slept {seconds} s")


def ask(generator: OpenAIGenerator) -> str:
    return "".join(generator.stream("Why?", NOTHING))


def fail(generator: OpenAIGenerator) -> tuple[list[str], GeneratorError]:
    """The pieces that came before the error, and the error."""
    pieces: list[str] = []

    def collect() -> None:
        for piece in generator.stream("Why?", NOTHING):
            pieces.append(piece)  # noqa: PERF402 - extend() would lose them when the iteration raises

    with pytest.raises(GeneratorError) as caught:
        collect()
    return pieces, caught.value
