"""Measures against cases worked out by hand and ir-measures' own command; statistics against theory."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path

import pytest

from crossrag.errors import UsageError
from crossrag.evaluation import measures, statistics, trec


def test_hand_computed_like_trec_eval() -> None:
    qrels = {"q": {"a": 2, "b": 1, "c": 0, "missed": 1}}
    run = {"q": ["c", "a", "x", "b"]}
    found = {name: rows["q"] for name, rows in measures.measured(run, qrels).items()}
    ideal = 2 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert found["nDCG@10"] == pytest.approx((2 / math.log2(3) + 1 / math.log2(5)) / ideal, abs=1e-12)
    assert found["RR@10"] == 0.5
    assert found["R@10"] == pytest.approx(2 / 3)
    assert found["P@5"] == pytest.approx(2 / 5)
    assert found["AP"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert found["Judged@10"] == pytest.approx(3 / 4)


def test_a_question_without_results_counts_as_nothing_found() -> None:
    found = measures.measured({"one": ["a"]}, {"one": {"a": 1}, "two": {"b": 1}}, ["nDCG@10"])
    assert found == {"nDCG@10": {"one": 1.0, "two": 0.0}}
    assert measures.measured({}, {"one": {"a": 1}}, ["AP"]) == {"AP": {"one": 0.0}}
    nothing = measures.measured({"one": ["a"], "two": []}, {"one": {"a": 1}, "two": {"b": 1}}, ["Judged@10"])
    assert nothing == {"Judged@10": {"one": 1.0, "two": 0.0}}


def test_a_question_without_a_relevant_document_is_not_measured() -> None:
    assert measures.measured({"one": ["a"]}, {"one": {"a": 0}}, ["AP"]) == {"AP": {}}


def test_least_grade_is_for_yes_and_no_only() -> None:
    qrels = {"q": {"a": 1, "b": 2}}
    found = measures.measured({"q": ["a", "b"]}, qrels, ["RR@10", "nDCG@10"], relevant_from=2)
    assert found["RR@10"]["q"] == 0.5
    assert 0.5 < found["nDCG@10"]["q"] < 1


@pytest.mark.parametrize("name", ["nDGC@10", "nDCG@0", "P", "alpha_nDCG@10"])
def test_measures_that_there_are_not(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        measures.measured({"q": ["a"]}, {"q": {"a": 1}}, [name])
    with pytest.raises(UsageError, match=name):
        measures.check([name])


def test_a_tool_that_fails_is_named() -> None:
    # The script behind ERR takes numbers as ids of questions alone; or there is no perl to run it.
    with pytest.raises(UsageError, match="ERR@10"):
        measures.measured({"q": ["a"]}, {"q": {"a": 1}}, ["ERR@10"])


def test_two_names_of_one_measure_have_its_value_both() -> None:
    found = measures.measured({"q": ["b", "a"]}, {"q": {"a": 2}}, ["RR", "MRR", "RR(rel=2)"], relevant_from=2)
    assert found == {"RR": {"q": 0.5}, "MRR": {"q": 0.5}, "RR(rel=2)": {"q": 0.5}}


@pytest.mark.parametrize("seed", [20261124])
def test_a_run_written_here_and_read_by_the_command_of_ir_measures(tmp_path: Path, seed: int) -> None:
    print("seed", seed)
    chance = random.Random(seed)  # noqa: S311
    names = [f"d{number}" for number in range(40)]
    qrels = {
        f"q{n}": {name: chance.choice((0, 0, 1, 2, 3)) for name in chance.sample(names, 15)}
        for n in range(20)
    }
    qrels = {query: rows for query, rows in qrels.items() if any(rows.values())}
    run = {query: chance.sample(names, chance.randint(1, 30)) for query in list(qrels)[:-2]}
    trec.write_run(run, tmp_path / "a.run", tag="here")
    trec.write_qrels(qrels, tmp_path / "qrels.txt")
    assert trec.read_run(tmp_path / "a.run") == run
    assert trec.read_qrels(tmp_path / "qrels.txt") == qrels
    command = [sys.executable, "-m", "ir_measures", "-q", "-n", "-p", "12"]
    told = subprocess.run(
        [*command, str(tmp_path / "qrels.txt"), str(tmp_path / "a.run"), "nDCG@10"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    theirs = {line.split("\t")[0]: float(line.split("\t")[2]) for line in told.splitlines()}
    ours = measures.measured(run, qrels, ["nDCG@10"])["nDCG@10"]
    for query, value in ours.items():
        assert value == pytest.approx(theirs.get(query, 0.0), abs=1e-9)


def test_runs_of_others_are_read_by_score(tmp_path: Path) -> None:
    file = tmp_path / "x.run"
    file.write_text("q Q0 late 1 0.5 x\nq Q0 first 2 0.9 x\nq Q0 tie 3 0.5 x\nq Q0 first 4 0.1 x\n")
    assert trec.read_run(file) == {"q": ["first", "late", "tie"]}


@pytest.mark.parametrize("line", ["q Q0 d 1", "q Q0 d one 0.5 x", "q Q0 d 1 nan x"])
def test_broken_run(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.run").write_text(f"q Q0 a 1 1.0 x\n{line}\n")
    with pytest.raises(UsageError, match="line 2"):
        trec.read_run(tmp_path / "x.run")


def test_interval_is_that_of_a_normal_mean() -> None:
    chance = random.Random(7)  # noqa: S311
    values = [chance.gauss(0.5, 0.2) for _ in range(400)]
    found = statistics.interval(values)
    assert found == statistics.interval(values)
    assert found.mean == pytest.approx(sum(values) / 400)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.2 / math.sqrt(400), rel=0.15)
    assert found.low < found.mean < found.high


def test_interval_by_hand() -> None:
    # Means of two drawn from 0 and 1 are 0, 1/2, 1/2, 1: a quarter at either end, more than 2.5 %.
    assert statistics.interval([0.0, 1.0]) == statistics.Interval(0.5, 0.0, 1.0)
    assert statistics.interval([0.3] * 5).low == pytest.approx(0.3)
    # Six drawn from as many 0 as 1: a mean of 0 has 1/64, less than 2.5 %; one of at most 1/6 has 7/64, more.
    assert statistics.interval([0.0] * 3 + [1.0] * 3).low == pytest.approx(1 / 6)


def test_many_are_drawn_and_the_order_that_was_observed_counts() -> None:
    # All thirteen the same way: 2 of 8192 orders are as extreme; one more, the observed one, is added.
    p = statistics.randomisation([1.0] * 13)
    assert 1 / 10_001 <= p <= 12 / 10_001
    assert statistics.randomisation([1.0] * 60) == 1 / 10_001
    assert statistics.randomisation([-1.0] * 13) == p
    # Twelve by all signs and thirteen by draws are of one kind.
    few = [0.53, -0.21, 0.44, 0.32, -0.13, 0.27, -0.38, 0.19, 0.61, -0.07, 0.11, 0.23]
    exact = statistics.randomisation(few)
    assert 0.01 < exact < 0.5
    assert statistics.randomisation([-value for value in few]) == exact
    assert statistics.randomisation([*few, 1e-9]) == pytest.approx(exact, abs=0.01)


def test_randomisation_is_exact_for_few() -> None:
    # All three signs must agree: 2 of 8 orders are as extreme.
    assert statistics.randomisation([1.0, 1.0, 1.0, 0.0]) == pytest.approx(0.25)
    assert statistics.randomisation([0.0, 0.0]) == 1.0


def test_randomisation_finds_what_is_there_and_nothing_else() -> None:
    chance = random.Random(11)  # noqa: S311
    noise = [chance.gauss(0.0, 0.1) for _ in range(200)]
    assert statistics.randomisation([value + 0.05 for value in noise]) < 0.001
    drawn = [statistics.randomisation([chance.gauss(0, 1) for _ in range(30)], draws=500) for _ in range(100)]
    assert sum(p < 0.05 for p in drawn) < 15


def test_comparison_counts_and_says_who_is_better() -> None:
    a = [0.0] * 20
    b = [0.5] * 15 + [0.0] * 4 + [-0.1]
    found = statistics.compared(a, b)
    assert (found.wins, found.ties, found.losses) == (15, 4, 1)
    assert found.verdict == "better"
    assert statistics.compared(b, a).verdict == "worse"
    assert statistics.compared([0.1, 0.9], [0.9, 0.1]).verdict == "no difference shown"
