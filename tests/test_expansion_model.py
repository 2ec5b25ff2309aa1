"""Expansion and follow-ups by a language model behind a real endpoint on the loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crossrag.types import Turn

from .fake_openai import FakeOpenAI, answer, refusal
from .query_path import QUESTION, fake_rag

pytest.importorskip("openai")


def settings(server: FakeOpenAI, methods: str) -> dict[str, dict[str, Any]]:
    return {
        "expansion": {"methods": methods, "model": "openai:tiny"},
        "openai": {"base_url": server.base_url, "max_retries": 0},
    }


@pytest.mark.parametrize("method", ["multi-query", "hyde", "step-back", "decompose"])
def test_each_method_asks_once_with_the_question_and_without_passages(tmp_path: Path, method: str) -> None:
    with (
        FakeOpenAI(answer("1. How is a copy ", "brought back?\n2. Where is the command?")) as server,
        fake_rag(tmp_path, settings=settings(server, method), complete=None) as rag,
    ):
        ranking = rag.search(QUESTION)
    (request,) = server.requests
    (message,) = request.body["messages"]
    assert message["role"] == "user"
    assert QUESTION in message["content"]
    assert "restore command" not in message["content"]
    assert request.body["model"] == "tiny"
    expected = {"hyde": 1, "step-back": 1}.get(method, 2)
    assert [one.method for one in ranking.expansions] == [method] * expected
    assert "backup.md" in ranking[0].chunk.source
    assert ranking.degraded == ()


def test_an_endpoint_that_is_down_costs_the_expansion_and_nothing_else(tmp_path: Path) -> None:
    with (
        FakeOpenAI(refusal(503), refusal(503)) as server,
        fake_rag(tmp_path, settings=settings(server, "multi-query,feedback"), complete=None) as rag,
    ):
        answered = rag.ask(QUESTION)
    assert answered.degraded == ("expansion",)
    assert [one.method for one in answered.ranking.expansions] == ["feedback"]
    assert answered.status == "answered"
    assert "HTTP 503" in answered.notices[0]


def test_a_follow_up_is_rewritten_with_the_last_turns_alone(tmp_path: Path) -> None:
    history = [Turn(role="user", text=f"Question {n}") for n in range(20)]
    with (
        FakeOpenAI(answer("What is the largest animal on Earth?")) as server,
        fake_rag(tmp_path, settings=settings(server, ""), complete=None) as rag,
    ):
        answered = rag.ask("And the largest?", history=history)
    prompt = server.requests[0].body["messages"][0]["content"]
    assert "Question 19" in prompt
    assert "Question 13" not in prompt
    assert answered.ranking.query == "What is the largest animal on Earth?"
    assert answered.question == "And the largest?"
    assert "whales.txt" in answered.citations[0].source
