"""Follow-ups that stand alone, and long questions made short."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossrag.conversation import condense, standalone
from crossrag.errors import GeneratorError
from crossrag.testing import HashedTerms
from crossrag.types import Done, Turn

from .query_path import fake_rag

STOP = frozenset({"how", "what", "is", "the", "a", "it", "where", "does", "and", "about", "why", "in", "old"})


def is_content(word: str) -> bool:
    return word.casefold() not in STOP


def said(*texts: str) -> list[Turn]:
    return [Turn(role="assistant" if number % 2 else "user", text=text) for number, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("earlier", "question", "expected"),
    [
        ("Where does the Blue Whale live?", "How long is it?", "How long is it? (Blue Whale)"),
        ("what is a backup", "and where is it?", "and where is it? (backup)"),
        (
            "Where does the Blue Whale live?",
            "How old is the office in Rome?",
            "How old is the office in Rome?",
        ),
        ("Where does the Blue Whale live?", "Why?", "Why? (Blue Whale)"),
        ("What does fetch_k do?", "What about its default?", "What about its default? (fetch_k)"),
        (
            "What does fetch_k do?",
            "Is fetch_k bounded, and is it slow?",
            "Is fetch_k bounded, and is it slow?",
        ),
    ],
)
def test_without_a_model_names_are_carried_over(earlier: str, question: str, expected: str) -> None:
    alone = standalone(question, said(earlier, "In the sea [1]."), is_content=is_content)
    assert alone.text == expected
    assert alone.rewritten == (expected != question)


def test_the_last_question_that_names_something_counts() -> None:
    history = said("Where does the Blue Whale live?", "In the sea.", "and how long is it?", "30 m.")
    assert standalone("How old is it?", history, is_content=is_content).text == "How old is it? (Blue Whale)"
    assert standalone("How old is it?", [], is_content=is_content).text == "How old is it?"


def test_a_model_rewrites_and_what_it_may_not_say_is_not_believed() -> None:
    history = said("Where does the Blue Whale live?", "In the sea.")
    alone = standalone(
        "How long?", history, is_content=is_content, complete=lambda _: '"How long is a whale?"'
    )
    assert (alone.text, alone.degraded) == ("How long is a whale?", ())

    def fails(_: str) -> str:
        raise GeneratorError("no connection")

    for complete in (fails, lambda _: "", lambda _: "one\ntwo", lambda _: "x" * 1_000):
        alone = standalone("How long is it?", history, is_content=is_content, complete=complete)
        assert alone.text == "How long is it? (Blue Whale)"
        assert alone.degraded == ("expansion",)
        assert "not rewritten" in alone.notices[0]


def test_follow_ups_find_what_they_are_about(tmp_path: Path) -> None:
    history = said("Tell me of the Blue Whale", "It is an animal [1].")
    with fake_rag(tmp_path) as rag:
        alone = rag.ask("Is it the largest animal?")
        answer = rag.ask("Where is it from?", history=history)
        assert "whales.txt" in answer.ranking[0].chunk.source
        assert (answer.question, answer.ranking.query) == (
            "Where is it from?",
            "Where is it from? (Tell, Blue Whale)",
        ) or answer.ranking.query == "Where is it from? (Blue Whale)"
        assert alone.question == "Is it the largest animal?"
        *_, last = rag.stream("How old is it?", history=history[:1])
        assert isinstance(last, Done)


def words(text: str) -> int:
    return len(text.split())


def terms(text: str) -> tuple[int, ...]:
    return HashedTerms().encode_query(text).indices


def test_a_long_question_keeps_what_it_asks() -> None:
    story = " ".join(f"On day {n} I walked to the shop and bought item {n}." for n in range(200))
    question = f"{story} How do I restore a backup of the service? {story}"
    short, cut = condense(question, budget=40, count_tokens=words, terms=terms)
    assert "How do I restore a backup of the service?" in short
    assert words(short) <= 40
    assert cut is not None
    assert (cut.query_tokens, cut.kept) == (words(question), words(short))
    assert condense("Short enough?", budget=40, count_tokens=words, terms=terms) == ("Short enough?", None)


@pytest.mark.parametrize("text", ["word " * 5_000, "x" * 50_000, " ".join(map(str, range(5_000)))])
def test_a_long_question_without_sentences_is_cut_to_its_first_words(text: str) -> None:
    short, cut = condense(text, budget=100, count_tokens=lambda one: -(-len(one) // 4), terms=terms)
    assert short
    assert len(short) <= 400
    assert cut is not None


def test_a_question_of_5000_tokens_is_answered_and_said_to_be_cut(tmp_path: Path) -> None:
    story = " ".join(f"On day {n} I walked to the shop and bought item {n}." for n in range(400))
    # The fake reranker counts shared words, and most words of this question are about something else.
    with fake_rag(tmp_path, settings={"reranking": {"threshold": 0.01}}) as rag:
        answer = rag.ask(f"{story} How do I restore a backup?", deadline=30)
    assert answer.status == "answered"
    cut = answer.ranking.truncated
    assert cut is not None
    assert cut.query_tokens > 4_000
    assert cut.kept <= 160
    assert any("condensed" in notice for notice in answer.notices)
