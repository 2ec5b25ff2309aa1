"""Sentences with exact offsets, and lines that are no prose."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crossrag.sentences import split_sentences


def texts(text: str) -> list[str]:
    return [text[sentence.start : sentence.end] for sentence in split_sentences(text)]


def test_abbreviations_do_not_end_a_sentence() -> None:
    text = "Dr. Smith paid $3.5 million. It is e.g. fine. See Fig. 3!"
    assert texts(text) == ["Dr. Smith paid $3.5 million.", "It is e.g. fine.", "See Fig. 3!"]


def test_blocks_of_markdown_stand_alone() -> None:
    text = (
        "# Title here\n\nOne line\nthat goes on. Two.\n\n- first item\n  goes on\n- second\n\n"
        "```sh\na\n\nb\n```\n| x | y |\nEnd."
    )
    assert texts(text) == [
        "Title here",
        "One line\nthat goes on.",
        "Two.",
        "first item\n  goes on",
        "second",
        "```sh\na\n\nb\n```",
        "| x | y |",
        "End.",
    ]
    assert [sentence.heading for sentence in split_sentences(text)][:2] == [True, False]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_any_text(text: str) -> None:
    end = 0
    for sentence in split_sentences(text):
        assert end <= sentence.start <= sentence.end <= len(text)
        assert text[sentence.start : sentence.end].strip() == text[sentence.start : sentence.end]
        end = sentence.end
