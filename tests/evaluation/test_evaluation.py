"""From questions to a report: stages, resumption, determinism, comparison, gate, harm, tuning, judges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crossrag.errors import UsageError
from crossrag.evaluation import comparison, running, trec
from crossrag.evaluation.experiment import conduct, subject
from crossrag.evaluation.harm import harmed
from crossrag.evaluation.journal import Journal
from crossrag.evaluation.local import LocalJudge
from crossrag.evaluation.measures import measured
from crossrag.evaluation.outcome import outcome, qrels
from crossrag.evaluation.reading import read_dataset
from crossrag.evaluation.records import Answered, Record, Seen
from crossrag.testing import OverlapGrounder, OverlapReranker

from . import toys

if TYPE_CHECKING:
    from crossrag import Rag
    from crossrag.evaluation.dataset import Dataset


def judge() -> LocalJudge:
    return LocalJudge(grounder=OverlapGrounder(), reranker=OverlapReranker())


def test_a_report_says_what_each_stage_is_worth(library: Rag, data: Dataset, tmp_path: Path) -> None:
    wanted = running.Wanted(answers=True, judges=(judge(),))
    with Journal(None) as journal:
        content, records = running.evaluate(data, subject(library), journal=journal, wanted=wanted)
    assert list(content["stages"]) == ["BM25", "dense", "fused", "reranked", "kept"]
    for stage in content["stages"].values():
        value = stage["nDCG@10"]
        assert 0.0 <= value["low"] <= value["mean"] <= value["high"] <= 1.0
    assert content["stages"]["reranked"]["nDCG@10"]["mean"] > 0.8
    assert content["dataset"]["measured"] == 2 * len(toys.ANIMALS)
    assert content["abstention"]["refused_unanswerable"] == 1.0
    assert content["answers"]["no_answer"] >= 2
    assert content["answers"]["measures"]["faithfulness"]["mean"] > 0.9
    running.save(content, records, data, tmp_path / "out")
    # What is written reads back to the same figures.
    run = trec.read_run(tmp_path / "out" / "runs" / "reranked.run")
    truth = trec.read_qrels(tmp_path / "out" / "runs" / "qrels.txt")
    again = measured(run, truth, ["nDCG@10"])["nDCG@10"]
    told = {row["id"]: row["values"]["reranked"]["nDCG@10"] for row in content["questions"] if row["values"]}
    assert again == pytest.approx(told, abs=1e-12)
    cost = content["cost"]
    assert cost["candidates"] >= cost["read"] > 0
    asked = [record.answered for record in records if record.answered and record.answered.claims]
    assert all(
        one.tokens == (sum(map(library.count_tokens, one.sources)), library.count_tokens(one.text))
        for one in asked
    )
    assert cost["context_tokens"] > cost["answer_tokens"] > 0
    assert all(Record.unpacked(record.packed()) == record for record in records)
    text = (tmp_path / "out" / "report.md").read_text()
    assert f"{cost['read']:.0f} of them read by the reranker" in text
    for figure in ("stages", "sweep", "differences", "reliability", "coverage"):
        assert f"({figure}.svg)" in text
        assert (tmp_path / "out" / f"{figure}.svg").read_text().startswith("<?xml")


def test_stages_agree_with_the_search_itself(library: Rag, data: Dataset) -> None:
    with Journal(None) as journal:
        record = conduct(replace(data, questions=data.questions[:1]), subject(library), journal=journal)[0]
    found = library.search(data.questions[0].text, top_k=10)
    assert [seen.where for seen in record.in_order("reranked")[:10]] == [c.chunk.location for c in found]
    ranks = [seen.bm25 for seen in record.in_order("BM25")]
    assert ranks == sorted(ranks, key=lambda rank: rank or 0)
    assert Record.unpacked(record.packed()) == record


class Failing(OverlapReranker):
    """Breaks at a certain question, and counts."""

    def __init__(self, after: int) -> None:
        self.left, self.asked = after, 0

    def score(self, query: str, texts: Any, **options: Any) -> Any:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.asked += 1
        return super().score(query, texts, **options)


def test_what_was_cut_short_goes_on_where_it_stopped(place: Path, data: Dataset, tmp_path: Path) -> None:
    reranker = Failing(7)
    with toys.made(place) as rag:
        rag.__dict__["reranker"] = reranker
        with Journal(tmp_path / "cache.sqlite") as journal, pytest.raises(KeyboardInterrupt):
            conduct(data, subject(rag), journal=journal)
        reranker.left, reranker.asked = -1, 0
        with Journal(tmp_path / "cache.sqlite") as journal:
            conduct(data, subject(rag), journal=journal)
            assert reranker.asked == len(data.questions) - 7
            conduct(data, subject(rag), journal=journal)
    assert reranker.asked == len(data.questions) - 7


def test_what_failed_is_tried_again(place: Path, data: Dataset, tmp_path: Path) -> None:
    class Broken(OverlapReranker):
        def score(self, *_: Any, **__: Any) -> Any:
            raise OSError("the model is on holiday")

    few = replace(data, questions=data.questions[:2])
    with toys.made(place) as rag, Journal(tmp_path / "cache.sqlite") as journal:
        whole = rag.reranker
        rag.__dict__["reranker"] = Broken()
        assert all(record.degraded == ("rerank",) for record in conduct(few, subject(rag), journal=journal))
        rag.__dict__["reranker"] = whole
        assert not any(record.degraded for record in conduct(few, subject(rag), journal=journal))


SCRIPT = """
import sys
from pathlib import Path
from crossrag.evaluation import running, report
from crossrag.evaluation.experiment import subject
from crossrag.evaluation.journal import Journal
from crossrag.evaluation.reading import read_dataset
from tests.evaluation import toys
from tests.evaluation.test_evaluation import judge

place, out = Path(sys.argv[1]), Path(sys.argv[2])
data = read_dataset(place / "questions.jsonl")
with toys.made(place) as rag, Journal(None) as journal:
    wanted = running.Wanted(answers=True, judges=(judge(),))
    content, records = running.evaluate(data, subject(rag), journal=journal, wanted=wanted)
running.save(content, records, data, out)
"""


def test_two_processes_and_hash_seeds_write_the_same_bytes(place: Path, tmp_path: Path) -> None:
    reports = []
    for seed in ("1", "22"):
        out = tmp_path / seed
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        root = Path(__file__).parent.parent.parent
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(place), str(out)], check=True, env=environment, cwd=root
        )
        content = json.loads((out / "report.json").read_text())
        times = json.dumps(content["times"], indent=1, ensure_ascii=False)
        text = (out / "report.json").read_text()
        assert text.index('"times"') > text.index('"questions"')
        reports.append((text[: text.index('\n "times"')], times, (out / "stages.svg").read_bytes()))
    assert reports[0][0] == reports[1][0]
    assert reports[0][2] == reports[1][2]


@pytest.fixture
def reports(place: Path, data: Dataset, tmp_path: Path) -> tuple[Path, Path]:
    """With the reranker, and with one that reads nothing but the first three."""
    paths = []
    cases: tuple[tuple[str, dict[str, Any]], ...] = (("deep", {}), ("shallow", {"depth": 3}))
    for name, options in cases:
        with toys.made(place, **options) as rag, Journal(None) as journal:
            content, records = running.evaluate(
                data, subject(rag), journal=journal, wanted=running.Wanted(timed=False)
            )
            running.save(content, records, data, tmp_path / name, drawn=False)
            paths.append(tmp_path / name / "report.json")
    return paths[0], paths[1]


def test_comparison(reports: tuple[Path, Path]) -> None:
    deep, shallow = reports
    found = comparison.compare_reports(deep, shallow)
    a, b = found.means["nDCG@10"]
    assert a >= b
    assert any("reranking.depth: 100 -> 3" in notice for notice in found.notices)
    gain = found.differences["nDCG@10"]
    assert gain.wins + gain.ties + gain.losses == found.questions
    same = comparison.compare_reports(deep, deep)
    assert same.verdict.startswith("B and A: no difference shown")
    assert not same.lost


def test_runs_of_other_tools_compare(reports: tuple[Path, Path]) -> None:
    runs = reports[0].parent / "runs"
    found = comparison.compare_runs(runs / "dense.run", runs / "reranked.run", runs / "qrels.txt")
    by_report = json.loads(reports[0].read_text())["stages"]
    assert found.means["nDCG@10"][1] == pytest.approx(by_report["reranked"]["nDCG@10"]["mean"], abs=1e-12)


def worse(report: Path, by: float, out: Path, **changes: Any) -> Path:
    content = json.loads(report.read_text())
    for row in content["questions"]:
        for values in row["values"].values():
            values["nDCG@10"] = max(0.0, values["nDCG@10"] - by)
    content["subject"] |= changes
    out.write_text(json.dumps(content))
    return out


def test_gate(reports: tuple[Path, Path], tmp_path: Path) -> None:
    base = reports[0]
    assert comparison.gate(base, base).passed
    assert comparison.gate(worse(base, 0.004, tmp_path / "a.json"), base).passed
    assert not comparison.gate(worse(base, 0.006, tmp_path / "b.json"), base).passed
    for key in ("corpus", "chunking"):
        other = worse(base, 0.0, tmp_path / f"{key}.json", **{key: "another"})
        with pytest.raises(UsageError, match="documents" if key == "corpus" else key):
            comparison.gate(other, base)


def without_reranker(report: Path, out: Path) -> Path:
    content = json.loads(report.read_text())
    for of in (content["stages"], *(row["values"] for row in content["questions"])):
        of.pop("reranked", None)
        of.pop("kept", None)
    for row in content["questions"]:
        for values in row["values"].values():
            values["nDCG@10"] /= 2
    out.write_text(json.dumps(content | {"gain": None, "degraded": {"rerank": 52}}))
    return out


def test_a_reranker_that_is_gone_is_a_regression(reports: tuple[Path, Path], tmp_path: Path) -> None:
    base, without = reports[0], without_reranker(reports[0], tmp_path / "without.json")
    found = comparison.gate(without, base)
    assert not found.passed
    assert found.stage == "reranked against fused"
    assert found.notices == ("without.json: not everything worked (rerank 52)",)
    told = comparison.compare_reports(without, base)
    assert told.stage == "fused against reranked"
    assert told.verdict.startswith("B is better")
    assert comparison.gate(without, without).passed
    with pytest.raises(UsageError, match="'reranked' in both"):
        comparison.gate(without, base, stage="reranked")


def run_cli(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "crossrag", "eval", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_gate_of_the_command_line(reports: tuple[Path, Path], tmp_path: Path) -> None:
    base = str(reports[0])
    bad = str(worse(reports[0], 0.1, tmp_path / "bad.json"))
    done = run_cli("gate", bad, "--baseline", base, "--max-drop", "0.005")
    assert (done.returncode, "FAILED" in done.stdout) == (1, True), done
    other = str(worse(reports[0], 0.0, tmp_path / "other.json", corpus="another"))
    assert run_cli("gate", other, "--baseline", base).returncode == 2


def test_what_the_command_line_refuses_leaves_nothing_behind(place: Path, tmp_path: Path) -> None:
    data, nowhere = str(place / "questions.jsonl"), tmp_path / "nowhere"
    for words, code, said in (
        ((str(tmp_path / "missing.jsonl"),), 2, "missing.jsonl does not exist"),
        ((data, "--index", str(nowhere)), 3, "There is no index"),
        ((data, "--index", str(nowhere), "--out", data), 2, "is no folder to write to"),
    ):
        done = run_cli(*words)
        assert (done.returncode, said in done.stderr) == (code, True), done
    assert not nowhere.exists()


def test_a_run_over_nothing_judged_does_not_speak_of_reranking(library: Rag, tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"question": "Which animal sleeps?"}\n')
    with Journal(None) as journal:
        content, records = running.evaluate(read_dataset(file), subject(library), journal=journal)
    assert content["verdict"].startswith("Nothing was measured")
    running.save(content, records, read_dataset(file), tmp_path / "out")


def seen(name: str, fused: int, reranked: int | None, **rest: Any) -> Seen:
    known = {"grade": None, "relevance": None, "truncated": False, **rest}
    return Seen(
        names=(name,),
        bm25=fused,
        dense=fused,
        fused=fused,
        reranked=reranked,
        logit=0.0,
        characters=5_000,
        where=name,
        **known,
    )


def test_harm_names_what_left_and_why(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"id": "q", "question": "x", "source": "good"}\n')
    data = read_dataset(file)
    others = [seen(f"d{n}", n + 1, n, relevance=0.9 - n / 100) for n in range(1, 13)]
    record = Record(id="q", seen=(*others, seen("good", 1, 13, relevance=0.1, truncated=True, grade=1)))
    (found,) = harmed(data, [record], qrels(data))
    assert (found.before, found.after, found.truncated) == (1, 13, True)
    assert found.tenth == pytest.approx(0.8)
    assert [reason.partition(":")[0] for reason in found.reasons] == ["score", "truncation", "length"]


def test_it_is_said_when_reranking_does_not_help(place: Path, data: Dataset) -> None:
    class Backwards(OverlapReranker):
        fingerprint = "backwards"

        def score(self, query: str, texts: Any, **options: Any) -> Any:
            said = super().score(query, texts, **options)
            return replace(
                said, relevance=tuple(1 - v for v in said.relevance), logit=tuple(-v for v in said.logit)
            )

    with toys.made(place) as rag, Journal(None) as journal:
        rag.__dict__["reranker"] = Backwards()
        measured_ = subject(rag)
        found = outcome(data, conduct(data, measured_, journal=journal), measured_)
    assert "does NOT help" in found.verdict
    assert found.harmed
    assert found.sweep[0].value > found.sweep[-1].value


def test_local_judges_tell_good_answers_from_bad(data: Dataset) -> None:
    question = data.questions[0]
    sources = (
        "The whale sleeps for 3 hours in a quiet hollow by the river.",
        "The park opens at nine in spring.",
    )
    good = Answered(
        text=f"{sources[0]} [1]",
        status="answered",
        claims=((sources[0], (1,)),),
        sources=sources,
        grades=(1, None),
    )
    bad = Answered(
        text="Llamas fly over Paris [2]", status="answered", claims=(("Llamas fly over Paris", (2,)),),
        sources=sources[::-1], grades=(None, 1),
    )  # fmt: skip
    refused = Answered(text="The documents do not say.", status="no_answer", claims=(), sources=())
    one, two, three = (judge().judge(question, answer) for answer in (good, bad, refused))
    for name in ("faithfulness", "context_precision", "answer_correctness", "citation_precision", "f1"):
        assert (one[name] or 0.0) > (two[name] or 0.0), name
    assert one["exact_match"] == 1.0
    assert two["context_precision"] == 0.5
    assert three["faithfulness"] is None
    assert three["answer_correctness"] == 0.0
