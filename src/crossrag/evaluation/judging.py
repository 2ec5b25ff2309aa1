"""Answers and a judge -> values per question, remembered, with what could not be judged counted.

A judge is any object of the shape below: `local` runs on this machine and is deterministic, `ragas` asks a
language model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .journal import Journal, key
from .statistics import interval

if TYPE_CHECKING:
    from .dataset import Dataset, Question
    from .records import Answered, Record

Verdict = Mapping[str, float | None]
"""Measure -> value in [0, 1]; None where it could not be judged."""


class Judge(Protocol):
    """Says how good an answer is."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same answer would be judged otherwise."""
        ...

    @property
    def measures(self) -> Sequence[str]:
        """What it says, in the order of a report."""
        ...

    def judge(self, question: Question, answered: Answered) -> Verdict:
        """One value per measure; None where it has none, NaN where the judge failed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Values of all questions that were asked."""

    judges: tuple[str, ...]
    """Fingerprints."""
    measures: tuple[str, ...]
    values: Mapping[str, Verdict]
    """Question -> measure -> value."""
    statuses: Mapping[str, str]
    """Question -> `answered`, `partial`, `no_answer` or `failed`."""
    texts: Mapping[str, str]
    broken: Mapping[str, int]
    """Measure -> questions for which a judge gave no finite number."""

    def of(self, question: str) -> dict[str, Any]:
        """Everything about one question."""
        return {
            "status": self.statuses[question],
            "text": self.texts[question],
            **self.values.get(question, {}),
        }

    def summary(self) -> dict[str, Any]:
        """Counts, and means with intervals over those that could be judged."""
        rows = {}
        for measure in self.measures:
            known = [value for row in self.values.values() if (value := row.get(measure)) is not None]
            around = asdict(interval(known)) if known else {"mean": None, "low": None, "high": None}
            rows[measure] = {**around, "count": len(known), "undefined": self.broken.get(measure, 0)}
        counts = {status: list(self.statuses.values()).count(status) for status in _STATUSES}
        return {"asked": len(self.statuses), **counts, "judges": ", ".join(self.judges), "measures": rows}


_STATUSES = ("answered", "partial", "no_answer", "failed")


def judged(
    dataset: Dataset,
    records: Sequence[Record],
    judges: Sequence[Judge],
    *,
    journal: Journal,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Judged:
    """Let every judge judge every answer.

    Raises:
        CrossragError: A judge cannot work at all; what was judged until then is in the journal.
    """
    questions = {question.id: question for question in dataset.questions}
    values: dict[str, Verdict] = {}
    broken: dict[str, int] = {}
    for done, record in enumerate(records):
        progress(done, len(records))
        row: dict[str, float | None] = {}
        for judge in judges if record.answered is not None else ():
            for measure, value in _verdict(questions[record.id], record, judge, journal).items():
                failed = value is not None and not math.isfinite(value)
                broken[measure] = broken.get(measure, 0) + failed
                row[measure] = None if value is None or failed else round(value, 6)
        values[record.id] = row
    progress(len(records), len(records))
    return Judged(
        judges=tuple(judge.fingerprint for judge in judges),
        measures=tuple(measure for judge in judges for measure in judge.measures),
        values=values,
        statuses={r.id: r.answered.status if r.answered else "failed" for r in records},
        texts={r.id: r.answered.text if r.answered else r.failed for r in records},
        broken=broken,
    )


def _verdict(question: Question, record: Record, judge: Judge, journal: Journal) -> Verdict:
    assert record.answered is not None  # noqa: S101 - the caller has looked
    name = key("judged", judge.fingerprint, list(judge.measures), asdict(question), asdict(record.answered))
    if (kept := journal.get(name)) is not None:
        found: Verdict = json.loads(kept)
        return found
    verdict = judge.judge(question, record.answered)
    # What a judge failed at may succeed the next time.
    if all(value is None or math.isfinite(value) for value in verdict.values()):
        journal.put([(name, json.dumps(dict(verdict)).encode())])
    return verdict
