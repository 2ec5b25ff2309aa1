"""Sentences cut from a stream, with the citations that belong to them; where words of a claim stand."""

# ruff: noqa: RUF001 - other scripts have other stops
from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrag import claims
from crossrag.citations import CitationReader
from crossrag.claims import ClaimReader, Sentence, split, states_something
from crossrag.lexical import bm25, find_run, find_words
from crossrag.prompt import refuses

from .answers import context

if TYPE_CHECKING:
    from crossrag.types import Context

THREE = context("one", "two", "three")


def read(pieces: Sequence[str], used: Context = THREE) -> tuple[str, list[Sentence]]:
    marks, sentences = CitationReader(used), ClaimReader()
    text = ""
    found: list[Sentence] = []
    for piece in pieces:
        for part, citation in marks.feed(piece):
            text += part
            found += sentences.feed(part, citation)
    for part, citation in marks.finish():
        text += part
        found += sentences.feed(part, citation)
    return text, found + list(sentences.finish())


def texts(text: str) -> list[str]:
    return [sentence.text for sentence in read([text])[1]]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One is so [1]. Two is so.[2] Three.", ["One is so [1].", "Two is so.[2]", "Three."]),
        ("It is so. [1] [2] Then more. [3]", ["It is so. [1] [2]", "Then more. [3]"]),
        (
            "Dr. Smith paid 3.5 million, e.g. in cash. Fine.",
            ["Dr. Smith paid 3.5 million, e.g. in cash.", "Fine."],
        ),
        (
            "Two things:\n- first [1]\n- second [2]\n\nDone.",
            ["Two things:", "- first [1]", "- second [2]", "Done."],
        ),
        ("1. First is this. It helps.\n2. Second.", ["1. First is this.", "It helps.", "2. Second."]),
        (
            "Run this:\n\n```\na. B\n\nc\n```\n[1] Then wait.",
            ["Run this:\n\n```\na. B\n\nc\n```\n[1]", "Then wait."],
        ),
        ("# Head\nText goes\non here. More", ["# Head", "Text goes\non here.", "More"]),
        ('He said "It is so." Then he left!', ['He said "It is so."', "Then he left!"]),
        ("version 2.0 is out? yes it is", ["version 2.0 is out? yes it is"]),
        (
            "甲公司成立于1999年。[1]乙公司成立于2001年[2]。丙呢？",
            ["甲公司成立于1999年。[1]", "乙公司成立于2001年[2]。", "丙呢？"],
        ),
        ("今日は寒い。明日は暑い！本当？はい。", ["今日は寒い。", "明日は暑い！", "本当？", "はい。"]),
        ("彼は「寒い。」と言った。そして帰った。", ["彼は「寒い。」と言った。", "そして帰った。"]),
        ("他说：“我走了。”她没有回答。", ["他说：“我走了。”", "她没有回答。"]),
        ("“我走了。”，他说。好。", ["“我走了。”，他说。", "好。"]),
        ("真的吗？！是的。", ["真的吗？！", "是的。"]),
        ("Run it.```sh\na. B\n```\nThen wait.", ["Run it.```sh\na. B\n```\nThen wait."]),
        ("````\n```\nA b. C d. E f.\n````\n\nThen wait.", ["````\n```\nA b. C d. E f.\n````", "Then wait."]),
        ("", []),
        ("  \n ", []),
    ],
)
def test_sentences_keep_their_marks(text: str, sentences: list[str]) -> None:
    assert texts(text) == sentences


def test_a_mark_belongs_to_the_sentence_that_it_ends() -> None:
    text, found = read(["A is so. [1] B is so [2][3]. C."])
    assert [[citation.number for citation in sentence.citations] for sentence in found] == [[1], [2, 3], []]
    assert [sentence.bare for sentence in found] == ["A is so.", "B is so.", "C."]
    assert all(text[s.start : s.start + len(s.text)] == s.text for s in found)


PARTS = [
    "[1]",
    " [2]",
    " [9]",
    ". ",
    ".",
    "\n",
    "\n\n",
    "- ",
    "A",
    "b c",
    "Dr. ",
    "```",
    "```\n",
    ": ",
    "? ",
    "1. ",
    "# ",
    '"',
    "。",
    "！",
    "」",
    "と",
    "`",
    "````",
]


@given(st.lists(st.sampled_from(PARTS), max_size=30), st.data())
def test_cutting_the_stream_elsewhere_changes_nothing(parts: list[str], data: st.DataObject) -> None:
    whole = "".join(parts)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)))))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    text, found = read(pieces)
    assert (text, found) == read([whole])
    # Nothing is lost but space, and every citation has its sentence.
    assert "".join(sentence.gap + sentence.text for sentence in found) == text.rstrip() or not text.strip()
    assert all(text[s.start : s.start + len(s.text)] == s.text for s in found)
    assert all(
        s.start <= citation.start < citation.end <= s.start + len(s.text)
        for s in found
        for citation in s.citations
    )


class Counting:
    """A pattern that knows how many characters it was shown."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self.shown = 0

    def search(self, text: str, start: int) -> re.Match[str] | None:
        found = self._pattern.search(text, start)
        self.shown += (len(text) if found is None else found.end()) - start
        return found

    def finditer(self, text: str, start: int, end: int) -> Iterator[re.Match[str]]:
        self.shown += end - start
        return self._pattern.finditer(text, start, end)


def test_long_code_in_small_pieces_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    line = 'if a[1]: print("x. Y")  # so. Or so!\n'
    code = f"```\n{line * 400}```\n\nThen wait."
    stops, fences = Counting(claims._STOP), Counting(claims._FENCE)
    monkeypatch.setattr(claims, "_STOP", stops)
    monkeypatch.setattr(claims, "_FENCE", fences)
    reader = ClaimReader()
    found = [one for at in range(0, len(code), 4) for one in reader.feed(code[at : at + 4], None)]
    found += reader.finish()
    assert [len(sentence.text) for sentence in found] == [len(line) * 400 + 7, len("Then wait.")]
    # A line is looked at once more for each piece of it.
    assert stops.shown < len(line) * len(code)
    assert fences.shown < 2 * len(code)


@pytest.mark.parametrize(
    ("text", "states"),
    [
        ("Here is what I found:", False),
        ("# Backups", False),
        ("Is that so?", False),
        ("Yes.", False),
        ("I hope this helps!", False),
        ("Whales are mammals [1].", True),
        ("It opened in 1998.", True),
        ("Yes, the office opens at nine in the morning [1].", True),
        ("| --- | --- |", False),
    ],
)
def test_what_states_nothing_is_no_claim(text: str, states: bool) -> None:  # noqa: FBT001
    assert states_something(text) is states


def test_a_text_without_citations_is_cut_the_same_way() -> None:
    assert split("One. Two is e.g. this. Three") == ["One.", "Two is e.g. this.", "Three"]


def test_words_are_found_whatever_stands_between_them() -> None:
    text = "At first: the  Blue\nwhale, is big."
    assert find_words("the blue whale is", text) == (10, 29)
    assert find_words("blue whales", text) is None
    assert find_words("...", text) is None


@given(st.text("ab ", max_size=30), st.text("ab ", max_size=60), st.integers(1, 4))
def test_the_longest_run_is_the_longest(words: str, text: str, least: int) -> None:
    found = find_run(words, text, least=least)
    wanted = words.split()
    runs = {tuple(wanted[i:j]) for i in range(len(wanted)) for j in range(i + 1, len(wanted) + 1)}
    best = max((len(run) for run in runs if find_words(" ".join(run), text)), default=0)
    if found is None:
        assert best < least
    else:
        run = text[found[0] : found[1]].split()
        assert (len(run), tuple(run) in runs) == (best, True)


def test_rare_words_count_more_and_long_texts_less() -> None:
    texts = ["the red whale", "the red car", "the red bus", "the red whale " + "and more " * 20, "x"]
    scores = bm25("the whale", texts)
    assert scores[0] > scores[3] > scores[1] > scores[4] == 0.0
    assert bm25("whale", []) == []


@pytest.mark.parametrize(
    "text",
    [
        "Yes, the drug is safe [1].",
        "No deposit is required [1].",
        "Paris [1].",
        "It is $5 [1].",
        "甲公司成立于一九九九年。",
    ],
)
def test_short_statements_are_checked(text: str) -> None:
    assert states_something(text)


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("The documents do not contain an answer to this question.", True),
        ("The sources do not mention a price.", True),
        ("Unfortunately, the provided documents don't say when.", True),
        ("The context manager does not close the file [1].", False),
        ("The documents do not need to be notarised.", False),
        ("The document does not expire.", False),
        ("The documents do not contain an answer to this question, but the CEO is Bob Smith.", False),
    ],
)
def test_only_what_says_nothing_else_is_a_refusal(text: str, *, refusal: bool) -> None:
    assert refuses(text) is refusal
