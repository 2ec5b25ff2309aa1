"""Outcome -> one object that JSON holds: everything a report says, and a gate or a comparison needs.

Two runs of the same give the same bytes, but for what stands under `times`.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from crossrag.errors import UsageError

from .measures import MAIN

if TYPE_CHECKING:
    from .dataset import Dataset, Question
    from .experiment import Subject
    from .judging import Judged
    from .outcome import Outcome
    from .records import Record, Seen

FORMAT = 1
WORST = 10
_SHOWN = 5
"""Passages that are shown of a question that went worse, before and after."""


def report(
    dataset: Dataset,
    records: Sequence[Record],
    found: Outcome,
    subject: Subject,
    *,
    judged: Judged | None = None,
    sweep_seconds: Mapping[int, float] | None = None,
) -> dict[str, Any]:
    """Put everything together.

    Args:
        dataset: What was asked.
        records: What was searched.
        found: What it comes to.
        subject: What was measured.
        judged: What judges say of the answers, if there are any.
        sweep_seconds: Median time of reranking per depth.
    """
    texts = {question.id: question for question in dataset.questions}
    return {
        "format": FORMAT,
        "kind": "crossrag evaluation",
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "questions": len(dataset.questions),
            "measured": len(found.values["fused"][MAIN]),
            "unanswerable": sum(question.answerable is False for question in dataset.questions),
            "by_document": dataset.by_document,
            "relevant_from": dataset.relevant_from,
        },
        "subject": {**subject.identity, "threshold": subject.threshold, "top_k": subject.top_k},
        "verdict": found.verdict,
        "stages": {stage: {n: asdict(i) for n, i in rows.items()} for stage, rows in found.stages.items()},
        "gain": None
        if found.gain is None
        else {name: asdict(gain) | {"verdict": gain.verdict} for name, gain in found.gain.items()},
        "sweep": [asdict(depth) for depth in found.sweep],
        "trust": None if found.trust is None else asdict(found.trust),
        "abstention": None if found.abstention is None else _thinned(asdict(found.abstention)),
        "harmed": [asdict(harm) for harm in found.harmed],
        "degraded": _degraded(records),
        "cost": _cost(records),
        "worst": [_whole(texts[record.id], record, found) for record in _worst(records, found)],
        "answers": None if judged is None else judged.summary(),
        "questions": [_values(texts[record.id], record, found, judged) for record in records],
        "times": _times(records, sweep_seconds or {}),
    }


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write it so that two files can be compared line by line."""
    path.write_text(as_json(content), encoding="utf-8")


def as_json(content: Mapping[str, Any]) -> str:
    """Indented, in the order of the report; numbers that are not finite have no place in one."""
    return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote.

    Raises:
        UsageError: It is something else, or of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["kind"] != "crossrag evaluation" or content["format"] != FORMAT:
            raise ValueError("it is of another kind or version")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint="Name a report.json") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is no report of an evaluation: {error}",
            hint="Name a file made by crossrag eval DATA --out",
        ) from None
    return dict(content)


def machine() -> str:
    """Cores, architecture and Python."""
    return f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}"


def _thinned(abstention: dict[str, Any], most: int = 200) -> dict[str, Any]:
    """Every so many-th operating point, the last one in any case."""
    points = abstention["points"]
    step = max(1, -(-len(points) // most))
    return abstention | {"points": points[(len(points) - 1) % step :: step]}


def _degraded(records: Sequence[Record]) -> dict[str, int]:
    """How many questions each stage failed for; a figure over degraded searches is none of the settings'."""
    counts: dict[str, int] = {}
    for record in records:
        said = (*record.degraded, *(record.answered.degraded if record.answered else ()))
        for stage in dict.fromkeys(said):
            counts[stage] = counts.get(stage, 0) + 1
        if record.failed:
            counts["answer"] = counts.get("answer", 0) + 1
    return dict(sorted(counts.items()))


def _cost(records: Sequence[Record]) -> dict[str, float | None]:
    """What a question costs beside time, on average; None where it is not known."""
    spent = [r.answered.tokens for r in records if r.answered and r.answered.tokens]
    return {
        "candidates": _average([len(record.seen) for record in records]),
        "read": _average([sum(seen.relevance is not None for seen in record.seen) for record in records]),
        "context_tokens": _average([context for context, _ in spent]),
        "answer_tokens": _average([said for _, said in spent]),
    }


def _average(counts: Sequence[int]) -> float | None:
    return round(sum(counts) / len(counts), 1) if counts else None


def _difference(record: Record, found: Outcome) -> float:
    before, after = found.values["fused"][MAIN], found.values["reranked"][MAIN]
    return after[record.id] - before[record.id]


def _worst(records: Sequence[Record], found: Outcome) -> list[Record]:
    if "reranked" not in found.values:
        return []
    measured = [record for record in records if record.id in found.values["fused"][MAIN]]
    lost = [record for record in measured if _difference(record, found) < 0]
    return sorted(lost, key=lambda record: (_difference(record, found), record.id))[:WORST]


def _whole(question: Question, record: Record, found: Outcome) -> dict[str, Any]:
    return {
        "id": question.id,
        "question": question.text,
        "before": found.values["fused"][MAIN][record.id],
        "after": found.values["reranked"][MAIN][record.id],
        "fused": [_passage(seen) for seen in record.in_order("fused")[:_SHOWN]],
        "reranked": [_passage(seen) for seen in record.in_order("reranked")[:_SHOWN]],
    }


def _passage(seen: Seen) -> dict[str, Any]:
    shown = asdict(seen)
    del shown["names"]
    return shown


def _values(question: Question, record: Record, found: Outcome, judged: Judged | None) -> dict[str, Any]:
    values = {
        stage: {name: by_query[record.id] for name, by_query in rows.items()}
        for stage, rows in found.values.items()
        if record.id in rows[MAIN]
    }
    row: dict[str, Any] = {"id": question.id, "question": question.text, "values": values}
    if judged is not None:
        row["answer"] = judged.of(record.id)
    return row


def _times(records: Sequence[Record], sweep: Mapping[int, float]) -> dict[str, Any]:
    stages: dict[str, list[float]] = {}
    for record in records:
        for stage, seconds in record.seconds.items():
            stages.setdefault(stage, []).append(seconds)
    return {
        "written": datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine(),
        "milliseconds": {
            stage: {
                "median": round(median(values) * 1000, 1),
                "p95": round(_quantile(values, 0.95) * 1000, 1),
            }
            for stage, values in stages.items()
        },
        "sweep_milliseconds": {str(depth): round(seconds * 1000, 1) for depth, seconds in sweep.items()},
    }


def _quantile(values: Sequence[float], share: float) -> float:
    """By nearest rank."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
