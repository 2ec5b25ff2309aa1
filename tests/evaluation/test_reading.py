"""Files of questions, their places, and passages that are named after them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from crossrag.errors import UsageError
from crossrag.evaluation import trec
from crossrag.evaluation.dataset import Place, order
from crossrag.evaluation.reading import read_dataset
from crossrag.types import Candidate, Chunk, Scores


def chunk(source: str, text: str, position: int = 0) -> Chunk:
    return Chunk(
        id=f"{source}-{position}", document_id=source, source=source, text=text, start=0, end=len(text),
        position=position,
    )  # fmt: skip


def candidate(source: str, text: str, position: int = 0, *, duplicates: tuple[Chunk, ...] = ()) -> Candidate:
    return Candidate(chunk=chunk(source, text, position), scores=Scores(), duplicates=duplicates)


def test_rows_of_a_question_are_one_question(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(
        '{"question": "How long?", "source": "a.md", "quote": "ten days"}\n'
        '\n{"question": "How long?", "source": "b.md", "quote": "two weeks", "grade": 2}\n'
        '{"question": "How long?", "source": "c.md", "grade": 0}\n'
        '{"query": "Who?", "answers": ["Anna", "She"], "answerable": true}\n'
    )
    data = read_dataset(file)
    first, second = data.questions
    assert [place.grade for place in first.places] == [1, 2, 0]
    assert second.answers == ("Anna", "She")
    assert first.judged
    assert not second.judged
    assert data.name == "q"


def test_calibration_judgements_are_a_dataset(tmp_path: Path) -> None:
    from crossrag.calibrating import read_judgements

    file = tmp_path / "judged.jsonl"
    file.write_text('{"question": "How long?", "source": "a.md", "quote": "ten  Days"}\n')
    (judgement,) = read_judgements(file)
    (question,) = read_dataset(file).questions
    for text in ("It takes ten days.", "It takes often days.", "ten"):
        there = chunk("x/a.md", text)
        assert question.places[0].holds(there) == judgement.names(there)


def test_csv_and_gzip(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("question,source,quote,answer\nWhy?,a.md,because,Because.\n")
    with gzip.open(tmp_path / "q.jsonl.gz", "wt") as file:
        file.write(
            json.dumps({"question": "Why?", "source": "a.md", "quote": "because", "answer": "Because."})
        )
    one, two = read_dataset(tmp_path / "q.csv"), read_dataset(tmp_path / "q.jsonl.gz")
    assert one.questions == two.questions
    assert one.fingerprint == two.fingerprint


def test_trec_folder_and_beir_folder(tmp_path: Path) -> None:
    (tmp_path / "queries.tsv").write_text("1\tWhat is it?\n2\tWho is it?\n")
    (tmp_path / "qrels.txt").write_text("1 0 a.md 2\n1 0 b.md 0\n")
    data = read_dataset(tmp_path)
    assert data.judgements(data.questions[0]) == {"a.md": 2, "b.md": 0}
    assert data.by_document
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    (beir / "queries.jsonl").write_text('{"_id": "1", "text": "What is it?"}\n')
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\ta b\t1\n")
    data = read_dataset(beir)
    assert data.judgements(data.questions[0]) == {"a%20b": 1}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2"),
        ("[]", "not an object"),
        ('{"answer": "x"}', "none of question"),
        ('{"question": " "}', "empty"),
        ('{"question": "x", "grade": "good"}', "grade"),
        ('{"question": "x", "grade": [1]}', "grade"),
        ('{"question": "x", "score": 0.83}', "0.83"),
        ('{"question": "x", "grade": 1e999}', "inf"),
        ('{"question": "x", "id": [1]}', "id"),
        ('{"question": "x", "answerable": "perhaps"}', "answerable"),
        ('{"question": "x", "source": 3}', "source"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(f'{{"question": "fine"}}\n{line}\n')
    with pytest.raises(UsageError, match=said):
        read_dataset(file)


def test_an_id_is_of_one_question(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"id": 1, "question": "Who?"}\n{"id": 1, "question": "Where?"}\n')
    with pytest.raises(UsageError, match=r"'1'.*'Who\?', 'Where\?'"):
        read_dataset(file)


def test_files_that_libraries_stumble_over(tmp_path: Path) -> None:
    long = tmp_path / "q.csv"
    long.write_text(f"question,source\n{'x' * 200_000},a.md\n")
    with pytest.raises(UsageError, match="after line 1: field larger"):
        read_dataset(long)
    lone = tmp_path / "lone.jsonl"
    lone.write_text('{"question": "\\ud800?"}\n')
    assert read_dataset(lone).questions[0].text == "\ud800?"


@pytest.mark.parametrize("grade", ["0.5", "inf", "nan", "good"])
def test_grades_are_whole_numbers(tmp_path: Path, grade: str) -> None:
    file = tmp_path / "qrels.txt"
    file.write_text(f"q 0 a 1.0\nq 0 b {grade}\n")
    with pytest.raises(UsageError, match="line 2"):
        trec.read_qrels(file)


def test_a_quote_need_not_be_whole() -> None:
    words = [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
    ]
    place = Place(("a.md",), " ".join(words))
    assert place.holds(chunk("a.md", " ".join(words[3:])))
    assert not place.holds(chunk("a.md", " ".join(words[9:] + ["and"] * 20)))
    assert not place.holds(chunk("b.md", " ".join(words)))
    assert Place((), "two  THREE").holds(chunk("z.md", "one two three"))
    assert not Place((), "art").holds(chunk("z.md", "start"))


def test_passages_are_named_after_the_places_that_they_hold(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(
        '{"id": "7", "question": "How?", "source": "a.md", "quotes": ["red paint", "blue paint"]}\n'
    )
    data = read_dataset(file)
    (question,) = data.questions
    both = data.names(question, candidate("a.md", "red paint and blue paint"))
    none = data.names(question, candidate("a.md", "green paint", 4))
    again = data.names(question, candidate("a.md", "more red paint", 5))
    behind = data.names(question, candidate("c.md", "x", duplicates=(chunk("a.md", "blue paint"),)))
    assert both == ("7@1", "7@2")
    assert none == ("a.md#4",)
    assert behind == ("7@2",)
    assert order([none, again, both, behind]) == ["a.md#4", "7@1", "7@2"]
    assert data.grade(question, none) is None
