"""Two reports, or two runs with judgements -> which is better, with what certainty, and where; and a gate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossrag.errors import UsageError

from . import trec
from .measures import DEFAULT, MAIN, measured
from .records import STAGES
from .report import read_json
from .statistics import Difference, compared

WHERE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A question on which two runs differ."""

    id: str
    question: str
    a: float
    b: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What b is against a."""

    a: str
    b: str
    stage: str
    questions: int
    means: Mapping[str, tuple[float, float]]
    """Measure -> mean of a and of b."""
    differences: Mapping[str, Difference]
    lost: tuple[Changed, ...]
    """Where b is worse, worst first."""
    won: tuple[Changed, ...]
    notices: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """Which is better, in one sentence."""
        found = self.differences[MAIN]
        amount = (
            f"{found.difference.mean:+.4f} {MAIN} [{found.difference.low:+.4f}, {found.difference.high:+.4f}]"
        )
        return f"B is {found.verdict}: {amount}, p = {found.p:.3f}".replace("is no", "and A: no")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Whether a run may pass."""

    passed: bool
    stage: str
    measure: str
    baseline: float
    value: float
    max_drop: float
    difference: Difference
    notices: tuple[str, ...] = ()

    @property
    def drop(self) -> float:
        """By how much it is worse."""
        return self.baseline - self.value


def compare_reports(a: Path, b: Path, *, stage: str | None = None) -> Comparison:
    """Compare two report files over the questions that both have.

    Raises:
        UsageError: A file is no report, or they have no question in common.
    """
    first, second = read_json(a), read_json(b)
    stages = _stages(first, second, stage)
    names = (a.name, b.name) if a.name != b.name else (str(a), str(b))
    return _compared(
        (names[0], _by_query(first, stages[0])),
        (names[1], _by_query(second, stages[1])),
        stage=_named(stages),
        texts={row["id"]: row["question"] for row in first["questions"]},
        notices=_unlike(first["dataset"], second["dataset"], ("fingerprint",))
        + _unlike(
            first["subject"], second["subject"], ("corpus", "chunking", "models", "settings", "threshold")
        )
        + _degraded(zip(names, (first, second), strict=True)),
    )


def compare_runs(a: Path, b: Path, qrels: Path, *, relevant_from: int = 1) -> Comparison:
    """Compare two TREC runs by the same judgements.

    Raises:
        UsageError: A file is broken.
    """
    truth = trec.read_qrels(qrels)
    first, second = (
        measured(trec.read_run(path), truth, DEFAULT, relevant_from=relevant_from) for path in (a, b)
    )
    return _compared((a.name, first), (b.name, second), stage="run", texts={}, notices=())


def gate(
    report: Path,
    baseline: Path,
    *,
    max_drop: float = 0.005,
    measure: str = MAIN,
    stage: str | None = None,
) -> Gate:
    """Whether the report is at most `max_drop` worse than the baseline.

    Raises:
        UsageError: They are of different questions, documents or chunking: then nothing can be said.
    """
    now, before = read_json(report), read_json(baseline)
    unlike = [
        what
        for what, kind, key in (
            ("questions", "dataset", "fingerprint"),
            ("documents", "subject", "corpus"),
            ("chunking", "subject", "chunking"),
        )
        if now[kind][key] != before[kind][key]
    ]
    if unlike:
        raise UsageError(
            f"{report} and {baseline} cannot be compared: they differ in {' and '.join(unlike)}",
            hint="Measure both over the same questions and the same index, or take a new baseline",
        )
    stages = _stages(before, now, stage)
    theirs, ours = _by_query(before, stages[0]), _by_query(now, stages[1])
    if measure not in ours or measure not in theirs:
        raise UsageError(f"{measure} was not measured in both", hint=f"Choices: {', '.join(ours)}")
    queries = list(theirs[measure])
    difference = compared([theirs[measure][q] for q in queries], [ours[measure][q] for q in queries])
    value, base = (sum(rows[measure].values()) / max(1, len(queries)) for rows in (ours, theirs))
    return Gate(
        # A difference in the last digits of a double is none.
        passed=base - value <= max_drop + 1e-9,
        stage=_named(stages),
        measure=measure,
        baseline=base,
        value=value,
        max_drop=max_drop,
        difference=difference,
        notices=_degraded(((baseline.name, before), (report.name, now))),
    )


def _compared(
    a: tuple[str, Mapping[str, Mapping[str, float]]],
    b: tuple[str, Mapping[str, Mapping[str, float]]],
    *,
    stage: str,
    texts: Mapping[str, str],
    notices: Sequence[str],
) -> Comparison:
    first, second = a[1], b[1]
    common = [query for query in first[MAIN] if query in second[MAIN]]
    if not common:
        raise UsageError(
            "The two have no measured question in common", hint="Measure both on the same questions"
        )
    names = [name for name in first if name in second]
    differences = {
        name: compared([first[name][q] for q in common], [second[name][q] for q in common]) for name in names
    }
    changed = sorted(
        (
            Changed(id=query, question=texts.get(query, ""), a=first[MAIN][query], b=second[MAIN][query])
            for query in common
            if abs(first[MAIN][query] - second[MAIN][query]) > 1e-12
        ),
        key=lambda row: (row.b - row.a, row.id),
    )
    left = len(first[MAIN]) + len(second[MAIN]) - 2 * len(common)
    return Comparison(
        a=a[0],
        b=b[0],
        stage=stage,
        questions=len(common),
        means={name: (_mean(first[name], common), _mean(second[name], common)) for name in names},
        differences=differences,
        lost=tuple(row for row in changed if row.b < row.a)[:WHERE],
        won=tuple(row for row in reversed(changed) if row.b > row.a)[:WHERE],
        notices=(*notices, *([f"{left} questions that only one of them has are left out"] if left else [])),
    )


def _stages(first: Mapping[str, Any], second: Mapping[str, Any], wanted: str | None) -> tuple[str, str]:
    """The stage of each: the one that is named, else each one's last before the threshold.

    Where one of them has no reranker, its fused order is what its users get, and what counts.
    """
    if wanted is None:
        last = [stage for stage in reversed(STAGES) if stage != "kept"]
        one, other = (next(stage for stage in last if stage in of["stages"]) for of in (first, second))
        return one, other
    both = [stage for stage in STAGES if stage in first["stages"] and stage in second["stages"]]
    if wanted in both:
        return wanted, wanted
    raise UsageError(f"There is no stage {wanted!r} in both", hint=f"Choices: {', '.join(both)}")


def _named(stages: tuple[str, str]) -> str:
    return stages[0] if stages[0] == stages[1] else f"{stages[0]} against {stages[1]}"


def _degraded(reports: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[str, ...]:
    """Figures over searches in which something failed are none of the settings'."""
    return tuple(
        f"{name}: not everything worked ({', '.join(f'{k} {v}' for k, v in of['degraded'].items())})"
        for name, of in reports
        if of["degraded"]
    )


def _by_query(report: Mapping[str, Any], stage: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {name: {} for name in report["stages"][stage]}
    for row in report["questions"]:
        for name, value in row["values"].get(stage, {}).items():
            found[name][row["id"]] = value
    return found


def _unlike(a: Mapping[str, Any], b: Mapping[str, Any], keys: Sequence[str]) -> tuple[str, ...]:
    """What the two were measured with, where that is not the same."""
    said = []
    for key in keys:
        one, other = a[key], b[key]
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            said += [
                f"{name}: {one.get(name)} -> {other.get(name)}"
                for name in dict.fromkeys((*one, *other))
                if one.get(name) != other.get(name)
            ]
        elif one != other:
            what = {"fingerprint": "questions", "corpus": "documents"}.get(key, key)
            said.append(f"{what} differ" if key in {"fingerprint", "corpus"} else f"{what}: {one} -> {other}")
    return tuple(said)


def _mean(values: Mapping[str, float], queries: Sequence[str]) -> float:
    return sum(values[query] for query in queries) / len(queries)
