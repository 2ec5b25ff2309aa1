"""The conformance suite: what is right passes everything, and every check finds the fault that it is for."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from crossrag.cli.app import app
from crossrag.errors import ConfigError, UsageError
from crossrag.evaluation.targets import RagTarget, RerankerTarget, target
from crossrag.pipeline import Rag
from crossrag.registry import load
from crossrag.testing import HashedEmbedder, HashedTerms, OverlapReranker, conformance
from crossrag.testing.conformance import CHECKS, DocumentTarget, Passage, Ranked
from crossrag.testing.conformance.material import QUERY
from crossrag.testing.fakes import words

RERANK = {check.name for check in CHECKS if check.part == "rerank"}
RETRIEVE = {check.name for check in CHECKS if check.part == "retrieve"}


def relevance(query: str, text: str) -> float:
    """Shared words, less a little for every word, so that nothing unlike is tied."""
    wanted, there = set(words(query)), words(text)
    return len(wanted & set(there)) - 1e-3 * len(there) - 1e-6 * (sum(map(ord, text)) % 997)


class Plain:
    """Ranks by shared words; right in everything."""

    def rank(self, query: str, texts: Sequence[str], top_k: int) -> list[Ranked]:
        scores = [round(relevance(query, text), 9) for text in texts]
        order = sorted(range(len(texts)), key=lambda place: (-scores[place], place))
        return [Ranked(place, scores[place], texts[place], truncated=False) for place in order[:top_k]]


Sabotage = Callable[[Plain, str, Sequence[str], int], Sequence[Any]]


def _cut(texts: Sequence[str]) -> list[str]:
    return [" ".join(text.split()[:200]) for text in texts]


def _changed(_: Plain, query: str, texts: Sequence[str], top_k: int) -> Sequence[Any]:
    said = Plain().rank(query, texts, top_k)
    if isinstance(texts, list):
        texts.reverse()
    return said


def _deduplicated(right: Plain, query: str, texts: Sequence[str], top_k: int) -> Sequence[Any]:
    return [
        one for one in right.rank(query, texts, top_k) if texts.index(texts[one.position]) == one.position
    ]


def _min_max(right: Plain, query: str, texts: Sequence[str], top_k: int) -> Sequence[Any]:
    """Between 0 and 1 within the batch, as if that were a probability."""
    said = right.rank(query, texts, len(texts))
    low = min((one.score or 0.0 for one in said), default=0.0)
    wide = max((one.score or 0.0 for one in said), default=0.0) - low or 1.0
    return [one._replace(score=((one.score or 0.0) - low) / wide) for one in said][:top_k]


def _saturated(right: Plain, query: str, texts: Sequence[str], top_k: int) -> Sequence[Any]:
    return [one._replace(score=float((one.score or 0) > 0)) for one in right.rank(query, texts, top_k)]


SABOTAGE: dict[str, Sabotage] = {
    "answer-first": lambda right, query, texts, top_k: right.rank(query, texts, len(texts))[::-1][:top_k],
    "scores-given": lambda right, query, texts, top_k: [
        one._replace(score=None) for one in right.rank(query, texts, top_k)
    ],
    "order-by-score": lambda right, query, texts, top_k: [
        (one.position, -(one.score or 0)) for one in right.rank(query, texts, top_k)
    ],
    "index-mapping": lambda right, query, texts, top_k: [
        one._replace(text=texts[one.position - 1]) for one in right.rank(query, texts, top_k)
    ],
    "permutation": lambda right, query, texts, top_k: [
        one._replace(score=(one.score or 0) - 0.1 * one.position) for one in right.rank(query, texts, top_k)
    ],
    "ties": lambda right, query, texts, top_k: [
        one._replace(position=len(texts) - 1 - one.position)
        for one in right.rank(query, [*reversed(texts)], top_k)
    ],
    "truncation": lambda right, query, texts, top_k: right.rank(query, _cut(texts), top_k),
    "empty": lambda right, query, texts, top_k: (
        right.rank(query, texts, top_k) if texts else [(0, float(top_k))]
    ),
    "one-document": lambda right, query, texts, top_k: (
        right.rank(query, texts, top_k) if len(texts) > 1 else []
    ),
    "top-k": lambda right, query, texts, top_k: right.rank(query, texts, min(top_k, 2)),
    "finite-scores": lambda right, query, texts, top_k: [
        one if texts[one.position].strip() else one._replace(score=math.nan)
        for one in right.rank(query, texts, top_k)
    ],
    "company": _min_max,
    "no-saturation": _saturated,
    "long-question": lambda right, query, texts, top_k: right.rank(
        query, texts if len(query) < 500 else ["" for _ in texts], top_k
    ),
    "duplicates": _deduplicated,
    "input-kept": _changed,
}


def test_what_is_right_passes_everything() -> None:
    report = conformance.run(Plain())
    assert report.ok, report.failures
    assert {one.name for one in report.results if one.status == "pass"} == RERANK
    assert {one.name for one in report.results if one.status == "not applicable"} == RETRIEVE
    assert all(one.what.endswith(".") and one.why.endswith(".") for one in report.results)


@pytest.mark.parametrize("name", sorted(RERANK))
def test_every_check_of_a_reranker_finds_its_fault(name: str) -> None:
    class Sabotaged:
        def rank(self, query: str, texts: Sequence[str], top_k: int) -> Sequence[Any]:
            return SABOTAGE[name](Plain(), query, texts, top_k)

    failed = {one.name for one in conformance.run(Sabotaged()).failures}
    assert name in failed
    # Whoever looks for a fault is led to it, not to everything.
    assert len(failed) <= 8


def test_truncation_is_fine_where_it_is_said_and_found_where_there_are_no_scores() -> None:
    class Says:
        def rank(self, query: str, texts: Sequence[str], top_k: int) -> list[Ranked]:
            said = Plain().rank(query, _cut(texts), top_k)
            return [one._replace(truncated=len(texts[one.position].split()) > 200) for one in said]

    class Silent:
        def rank(self, query: str, texts: Sequence[str], top_k: int) -> list[Ranked]:
            return [one._replace(score=None) for one in Plain().rank(query, _cut(texts), top_k)]

    assert conformance.run(Says(), ["truncation"]).ok
    assert conformance.run(Silent(), ["truncation"]).failures


def test_documents_that_are_changed_are_found() -> None:
    def run(query: str, documents: list[Any], top_k: int) -> list[Any]:
        order = [one.position for one in Plain().rank(query, [one["text"] for one in documents], top_k)]
        for document in documents:
            document["score"] = relevance(query, document["text"])
        return [documents[place] for place in order]

    def documents(texts: Sequence[str]) -> list[Any]:
        return [{"place": place, "text": text} for place, text in enumerate(texts)]

    def read(row: Any) -> Ranked:
        return Ranked(row["place"], row.get("score", 0.0), row["text"])

    changing = DocumentTarget(documents=documents, run=run, read=read)
    assert [one.name for one in conformance.run(changing).failures] == ["input-kept"]
    copying = DocumentTarget(
        documents=documents,
        run=lambda query, given, top_k: run(query, [dict(one) for one in given], top_k),
        read=read,
    )
    assert conformance.run(copying).ok

    def reversing(query: str, given: list[Any], top_k: int) -> list[Any]:
        given.reverse()
        return run(query, [dict(one) for one in given], top_k)

    sorting = DocumentTarget(documents=documents, run=reversing, read=read)
    assert "input-kept" in [one.name for one in conformance.run(sorting).failures]


# --- retrievers


@dataclass
class Index:
    """Searches by shared words; right in everything but for what is set."""

    passages: Sequence[Passage]
    fault: str = ""
    closed: list[bool] = field(default_factory=list)

    def search(self, query: str, top_k: int, where: Mapping[str, str] | None = None) -> list[str]:
        order = sorted(self.passages, key=lambda one: (-relevance(query, one.text), one.id))
        if self.fault == "subject-found" and query == QUERY:
            order.reverse()
        if self.fault == "over-fetch":
            order = [*reversed(order[:top_k]), *order[top_k:]]
        passes = [
            one for one in order if all(one.metadata[key] == value for key, value in (where or {}).items())
        ]
        if self.fault == "filter-first":
            passes = [one for one in order[:top_k] if one in passes]
        if self.fault == "filter-enforced":
            passes = [*passes, *order]
        if self.fault == "asked-k-gets-k":
            top_k -= 1
        return [one.id for one in passes[:top_k]]

    def mmr(self, query: str, top_k: int, fetch_k: int, lambda_mult: float) -> list[str]:
        if self.fault == "mmr-sign":
            lambda_mult = 1 - lambda_mult
        left = [one for name in self.search(query, fetch_k) for one in self.passages if one.id == name]
        chosen: list[Passage] = []
        while left and len(chosen) < top_k:
            near = [sum(one.metadata["topic"] == other.metadata["topic"] for other in chosen) for one in left]
            gains = [
                lambda_mult * relevance(query, one.text) - (1 - lambda_mult) * 9 * alike
                for one, alike in zip(left, near, strict=True)
            ]
            chosen.append(left.pop(max(range(len(left)), key=gains.__getitem__)))
        if self.fault == "mmr-lambda-1":
            chosen.reverse()
        return [one.id for one in chosen]

    def close(self) -> None:
        self.closed.append(True)


@dataclass
class Indexed:
    fault: str = ""
    made: list[Index] = field(default_factory=list)

    def retriever(self, passages: Sequence[Passage]) -> Index:
        self.made.append(Index(passages, self.fault))
        return self.made[-1]


def test_a_right_retriever_passes_everything_and_is_closed() -> None:
    right = Indexed()
    report = conformance.run(right)
    assert report.ok, report.failures
    assert {one.name for one in report.results if one.status == "pass"} == RETRIEVE
    assert right.made[0].closed


@pytest.mark.parametrize("name", sorted(RETRIEVE))
def test_every_check_of_a_retriever_finds_its_fault(name: str) -> None:
    failed = {one.name for one in conformance.run(Indexed(name)).failures}
    assert name in failed
    assert len(failed) <= 4


def test_an_error_is_a_failure_with_its_reason() -> None:
    class Broken:
        def rank(self, query: str, texts: Sequence[str], top_k: int) -> list[Ranked]:
            if not texts:
                raise IndexError("list index out of range")
            return Plain().rank(query, texts, top_k)

        def retriever(self, passages: Sequence[Passage]) -> Any:  # noqa: ARG002
            raise OSError("no room")

    report = conformance.run(Broken())
    reasons = {one.name: one.evidence for one in report.failures}
    assert reasons.pop("empty") == "raised IndexError: list index out of range"
    assert set(reasons) == RETRIEVE
    assert set(reasons.values()) == {"filling the index raised OSError: no room"}


def test_a_wrong_name_and_a_wrong_object_are_refused() -> None:
    with pytest.raises(UsageError, match="Did you mean 'ties'"):
        conformance.run(Plain(), ["tiess"])
    with pytest.raises(UsageError, match="neither rank nor retriever"):
        conformance.run(object())  # type: ignore[arg-type]


# --- what names stand for, and the command


def test_a_reranker_of_crossrag_is_a_target() -> None:
    said = RerankerTarget(OverlapReranker()).rank("blue whale", ["A car.", "A blue whale.", "A car."], 2)
    assert [one.position for one in said] == [1, 0]


def test_a_rag_is_a_target_with_both_parts(rag: Rag, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes: dict[str, Any] = {
        "embedder": HashedEmbedder(),
        "sparse_encoder": HashedTerms(),
        "reranker": OverlapReranker(),
    }
    monkeypatch.setattr("crossrag.evaluation.targets.Rag", lambda settings: Rag(settings, **fakes))
    report = conformance.run(
        RagTarget(rag.settings),
        {"index-mapping", "filter-enforced", "filter-first", "mmr-lambda-1", "mmr-sign"},
    )
    assert [one.status for one in report.results] == ["pass"] * 5, report.failures
    assert not rag.settings.index.path.exists(), "the index of the settings is left alone"


def test_what_names_stand_for() -> None:
    assert isinstance(target("rag"), RagTarget)
    progressive = target("progressive")
    assert conformance.run(progressive, {"answer-first", "company", "one-document", "empty"}).ok
    made = target("crossrag.testing:OverlapReranker")
    assert isinstance(made, RerankerTarget)
    for wrong, says in (
        ("crossrag.nowhere:Mine", "cannot be imported"),
        ("crossrag.testing:Nothing", "cannot be imported"),
        ("crossrag.testing:HashedTerms", "gives a HashedTerms"),
        ("none", "nothing to check"),
    ):
        with pytest.raises(UsageError, match=says):
            target(wrong)
    with pytest.raises(ConfigError, match="Did you mean 'progressive'"):
        target("progresive")


def test_every_residual_reranker_gets_its_first_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch, and from a factory, as by graphs: alone, the correction would be far from these scores."""
    monkeypatch.setattr("crossrag.testing.made", lambda: load("rerankers", "torch:bundled"), raising=False)
    texts = ["A whale swam by.", "To restore a backup, run restore.", "The canteen is open."]
    names = ("progressive", "torch:bundled", "crossrag.testing:made")
    said: list[list[Ranked]] = []
    for name in names:
        made: Any = target(name)
        said.append(made.rank("How do I restore a backup?", texts, 3))
    graphs, *others = said
    for other in others:
        assert [one.position for one in other] == [one.position for one in graphs]
        scores = [one.score for one in graphs]
        assert [one.score for one in other] == pytest.approx(scores, abs=1.0)


MINE = """
class Mine:
    def rank(self, query, texts, top_k):
        wanted = set(query.lower().split())
        scores = [float(len(wanted & set(text.lower().split()))) for text in texts]
        return sorted(enumerate(scores), key=lambda pair: -pair[1])[:top_k]
"""


def test_the_command_imports_what_the_user_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_of_the_user.py").write_text(MINE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    run = CliRunner().invoke
    done = run(app, ["conformance", "mine_of_the_user:Mine", "--check", "ties", "--check", "empty"])
    assert done.exit_code == 0, done.output
    assert "ok    ties" in done.output
    done = run(app, ["conformance", "mine_of_the_user:Mine", "--json"])
    assert done.exit_code == 1
    said = json.loads(done.stdout)
    assert said["ok"] is False
    failed = [one["name"] for one in said["results"] if one["status"] == "fail"]
    assert failed == ["no-saturation"]
    done = run(app, ["conformance", "mine_of_the_user:Mine", "--check", "no-saturation"])
    assert "FAIL  no-saturation" in done.output
    assert "infinity #203" in done.output


def test_the_page_says_what_is_asked() -> None:
    page = (Path(__file__).parent.parent / "docs" / "conformance.md").read_text(encoding="utf-8")
    for check in CHECKS:
        assert f"| {check.name} | {check.what} | {check.why} |\n" in page
    assert len(CHECKS) == 23
