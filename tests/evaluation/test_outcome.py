"""What records and answers come to, against cases that were worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import pytest

from crossrag.errors import ModelError
from crossrag.evaluation.answers import exact_match, word_f1
from crossrag.evaluation.dataset import Dataset, Place, Question
from crossrag.evaluation.experiment import Subject
from crossrag.evaluation.local import LocalJudge
from crossrag.evaluation.outcome import Abstention, outcome
from crossrag.evaluation.records import Answered, Record, Seen
from crossrag.evaluation.report import _quantile, _thinned

if TYPE_CHECKING:
    from crossrag.pipeline import Rag

SUBJECT = Subject(rag=cast("Rag", None), identity={}, threshold=0.5, top_k=3)


def searched(identity: str, relevance: float, *, right: bool) -> Record:
    """A search whose first passage is the right one or not."""
    names = ("good", "other") if right else ("other", "good")
    seen = tuple(
        Seen(
            names=(name,), grade=1 if name == "good" else None, bm25=rank, dense=rank, fused=rank,
            reranked=rank, logit=0.0, relevance=relevance if rank == 1 else 0.0, truncated=False,
            characters=10, where=name,
        )
        for rank, name in enumerate(names, start=1)
    )  # fmt: skip
    return Record(id=identity, seen=seen)


def abstaining(rows: Sequence[tuple[float, bool]], unanswerable: Sequence[float] = ()) -> Abstention:
    """Of questions with a right first passage or a wrong one, and of questions without an answer."""
    asked = [Question(id=f"q{n}", text="x", places=(Place(("good",)),)) for n, _ in enumerate(rows)] + [
        Question(id=f"n{n}", text="x", answerable=False) for n, _ in enumerate(unanswerable)
    ]
    records = [searched(f"q{n}", said, right=right) for n, (said, right) in enumerate(rows)]
    records += [searched(f"n{n}", said, right=False) for n, said in enumerate(unanswerable)]
    for number, record in enumerate(records):
        if record.id.startswith("n"):  # nobody judged anything for these
            unjudged = tuple(replace(one, grade=None) for one in record.seen)
            records[number] = replace(record, seen=unjudged)
    found = outcome(Dataset(name="x", questions=tuple(asked)), records, SUBJECT).abstention
    assert found is not None
    return found


def test_a_relevance_that_is_no_number_names_the_reranker() -> None:
    """Nobody's search gives one, but a kept record may hold it."""
    asked = Dataset(name="x", questions=(Question(id="q", text="x", places=(Place(("good",)),)),))
    records = [searched("q", math.nan, right=True)]
    for identity, says in (
        ({"models": {"reranker": "onnx:abc"}}, "that onnx:abc gave"),
        ({}, "the reranker"),
    ):
        with pytest.raises(ModelError, match=says):
            outcome(asked, records, replace(SUBJECT, identity=identity))


def test_risk_and_coverage_by_hand() -> None:
    # Surest first: right, right, wrong, right. Risks 0, 0, 1/3, 1/4.
    found = abstaining([(0.9, True), (0.4, True), (0.7, True), (0.6, False)])
    assert [point.coverage for point in found.points] == [0.25, 0.5, 0.75, 1.0]
    assert [point.risk for point in found.points] == pytest.approx([0, 0, 1 / 3, 1 / 4])
    assert found.area == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    assert found.at_threshold.coverage == 0.75
    assert found.at_threshold.risk == pytest.approx(1 / 3)
    assert found.refused_unanswerable is None


def test_questions_of_equal_relevance_are_let_in_together() -> None:
    one = abstaining([(0.8, True), (0.8, False)])
    other = abstaining([(0.8, False), (0.8, True)])
    assert one == other
    assert [(point.coverage, point.risk) for point in one.points] == [(1.0, 0.5)]
    assert one.area == 0.5


def test_a_question_without_an_answer_is_wrong_whatever_is_found() -> None:
    found = abstaining([(0.9, True)], unanswerable=[0.8, 0.2])
    assert found.at_threshold.risk == 0.5
    assert found.at_threshold.coverage == pytest.approx(2 / 3)
    assert found.refused_unanswerable == 0.5


def test_the_last_operating_point_is_kept() -> None:
    for count in (1, 200, 201, 401, 600):
        thin = _thinned({"points": list(range(count))})["points"]
        assert thin[-1] == count - 1
        assert len(thin) <= 200


def test_the_95th_of_a_hundred() -> None:
    assert _quantile([float(n) for n in range(1, 101)], 0.95) == 95
    assert _quantile([float(n) for n in range(1, 21)], 0.95) == 19
    assert _quantile([3.0], 0.95) == 3.0


def test_exact_match_and_f1_as_squad_has_them() -> None:
    assert exact_match("The  Eiffel-Tower!", ["eiffel tower", "EiffelTower."]) == 1.0
    assert exact_match("an apple", ["apple pie"]) == 0.0
    # "cat sat on mat" against "cat on hat": two of four, two of three.
    assert word_f1("The cat sat on the mat.", ["a cat on a hat"]) == pytest.approx(2 * 2 / (4 + 3))
    # A word that is said twice counts twice where the reference has it twice, and once where it has it once.
    assert word_f1("very very good", ["very good"]) == pytest.approx(2 * 2 / (3 + 2))
    assert word_f1("nothing", ["cat", "nothing at all"]) == pytest.approx(2 * 1 / (1 + 3))
    assert word_f1("", ["cat"]) == 0.0


@dataclass
class Scripted:
    """A grounding model that knows which text supports which claim."""

    known: Mapping[str, Sequence[str]]
    asked: list[tuple[str, str]] = field(default_factory=list)
    fingerprint: str = "scripted"

    def support(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self.asked += pairs
        return [0.9 if any(part in evidence for part in self.known.get(claim, ())) else 0.1
                for evidence, claim in pairs]  # fmt: skip


def test_citations_by_hand() -> None:
    # A is supported by the first source alone; B by both together only, and cites both; C by none, cites the
    # second; D by the first, but cites nothing.
    known = {"A": ["one"], "B": ["one\n\ntwo"], "D": ["one"]}
    answer = Answered(
        text="A B C D", status="answered", sources=("one", "two"), grades=(1, None),
        claims=(("A", (1,)), ("B", (1, 2)), ("C", (2,)), ("D", ())),
    )  # fmt: skip
    grounder = Scripted(known)
    question = Question(id="q", text="x", places=(Place(("one",)),))
    found = LocalJudge(grounder=grounder, reranker=None).judge(question, answer)
    # Of the four citations only A's stands alone; of the four claims A's and B's have support together.
    assert found["citation_precision"] == 1 / 4
    assert found["citation_recall"] == 2 / 4
    # Supported by one source alone: A and D.
    assert found["faithfulness"] == 2 / 4
    assert found["context_precision"] == 1.0


def test_correctness_and_recall_by_hand() -> None:
    reference = "The whale sleeps for three hours. It eats a lot of krill."
    first, second = "The whale sleeps for three hours.", "It eats a lot of krill."
    # The reference supports one of two claims, the claims together one of two sentences: 1/2 and 1/2.
    known = {"It naps.": [reference], first: ["It naps.", "source"], second: []}
    answer = Answered(
        text="It naps. It flies.", status="answered", sources=("source", "noise"), grades=(None, None),
        claims=(("It naps.", (1,)), ("It flies.", (2,))),
    )  # fmt: skip
    question = Question(id="q", text="x", answers=(reference, "short"))
    found = LocalJudge(grounder=Scripted(known), reranker=None).judge(question, answer)
    assert found["answer_correctness"] == pytest.approx(0.5)
    assert found["context_recall"] == 1 / 2
    # No place is judged: the first source supports a sentence of the reference, the second none.
    assert found["context_precision"] == 1.0
