"""A conversation at a prompt, and the path to an answer as a terminal of 80 columns shows it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from crossrag.cli import explain
from crossrag.cli.chat import talk_over

from .query_path import QUESTION, fake_rag


def talked(place: Path, monkeypatch: pytest.MonkeyPatch, *typed: str, **options: Any) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(typed) + "\n"))
    with fake_rag(place, **options) as rag:
        talk_over(rag, where={})


def test_a_conversation_understands_follow_ups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talked(
        tmp_path,
        monkeypatch,
        "/sources",
        "What is the Blue Whale?",
        "",
        "Is it an animal?",
        "/explain",
        "/sources",
        "/new",
        "/sources",
        "/nonsense",
        "/help",
        "/quit",
        "never asked",
    )
    shown = capsys.readouterr()
    assert shown.out.count("The blue whale is the largest animal") >= 2
    assert "searched    Is it an animal? (Blue Whale)" in shown.out
    assert "--- [1] docs/whales.txt" in shown.out
    assert shown.err.count("Nothing was asked yet.") == 2
    assert "There is no command /nonsense" in shown.err
    assert "/quit     leave" in shown.out
    assert "never asked" not in shown.out


def test_an_error_ends_a_question_and_not_the_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from crossrag.errors import GeneratorError
    from crossrag.testing import CannedGenerator, Fault

    down = Fault(CannedGenerator(["Run it [1]."]), at=[1], error=GeneratorError("The key was refused"))
    talked(tmp_path, monkeypatch, QUESTION, "How is a backup made?", llm=True, generator=down)
    shown = capsys.readouterr()
    assert "The key was refused" in shown.err
    assert "Run it [1]." in shown.out


@pytest.mark.parametrize("width", ["80", "120"])
def test_the_whole_path_fits_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    settings: dict[str, dict[str, Any]] = {
        "expansion": {"methods": "feedback,multi-query"},
        "reranking": {"threshold": 0.45},
    }

    def model(_: str) -> str:
        return "How is a copy brought back, and what is to be stopped before?\nrestore command"

    with fake_rag(tmp_path, settings=settings, complete=model) as rag:
        answer = rag.ask(QUESTION)
        shown = list(explain.lines(answer, count_tokens=rag.count_tokens, budget=2_000))
    assert max(map(len, shown)) <= int(width)
    text = "\n".join(shown)
    for part in ("question", "expansion   multi-query: How is a copy", "found       dense 12", "threshold"):
        assert part in text
    for part in ("docs/backup.md", "cut", "context     ", "[1]", "verbatim", "time        "):
        assert part in text
    # One row for each passage, and one for each statement at least.
    assert sum(line.lstrip()[:1].isdigit() for line in shown) == len(answer.ranking)
