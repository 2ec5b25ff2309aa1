"""A grounding model and labels of people -> how far it agrees with them: what judges built on it are worth.

Rows are JSON Lines: `{"context": …, "claim": …, "label": 1, 0 or null}`; what people were not sure of is left
out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crossrag.calibration import calibration_error
from crossrag.errors import UsageError

from .journal import Journal, key
from .local import SUPPORTED
from .reading import text_of

if TYPE_CHECKING:
    from crossrag.protocols import Grounder

_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Over one set of labelled claims."""

    claims: int
    supported: int
    """As people say."""
    accuracy: float
    balanced: float
    """Mean of the accuracy on supported and on unsupported claims: 0.5 is chance."""
    kappa: float
    """Cohen (1960): 0 is chance, 1 is perfect."""
    area: float
    """Chance that a supported claim scores above an unsupported one: ROC AUC."""
    error: float
    """Expected calibration error."""
    undefined: int
    """Claims for which the model gave no finite number; they count as unsupported."""


def read_labels(path: Path) -> list[tuple[str, str, bool]]:
    """Evidence, claim, and whether it is supported.

    Raises:
        UsageError: A line is broken.
    """
    found = []
    for number, line in enumerate(text_of(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if row["label"] is not None:
                found.append((str(row["context"]), str(row["claim"]), bool(row["label"])))
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path}, line {number}: {error!r}", hint="Each needs context, claim and label"
            ) from None
    return found


def agreement(
    grounder: Grounder,
    labels: Sequence[tuple[str, str, bool]],
    *,
    journal: Journal,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Agreement:
    """Ask the model about every claim, and compare."""
    said: list[float] = []
    for start in range(0, len(labels), _BATCH):
        progress(start, len(labels))
        pairs = [(evidence, claim) for evidence, claim, _ in labels[start : start + _BATCH]]
        name = key("support", grounder.fingerprint, pairs)
        if (kept := journal.get(name)) is None:
            kept = " ".join(map(repr, grounder.support(pairs))).encode()
            journal.put([(name, kept)])
        said += [float(value) for value in kept.split()]
    return compared([label for *_, label in labels], said)


def compared(truth: Sequence[bool], said: Sequence[float]) -> Agreement:
    """Labels against probabilities.

    Raises:
        UsageError: There are no labels of one kind.
    """
    yes, no = sum(truth), len(truth) - sum(truth)
    if not yes or not no:
        raise UsageError("Agreement needs supported and unsupported claims", hint="Label both kinds")
    values = [value if math.isfinite(value) else 0.0 for value in said]
    right = [(value >= SUPPORTED) == label for value, label in zip(values, truth, strict=True)]
    hits = sum(ok for ok, label in zip(right, truth, strict=True) if label)
    rejects = sum(right) - hits
    accuracy = sum(right) / len(truth)
    says_yes = (hits + no - rejects) / len(truth)
    chance = says_yes * yes / len(truth) + (1 - says_yes) * no / len(truth)
    return Agreement(
        claims=len(truth),
        supported=yes,
        accuracy=accuracy,
        balanced=(hits / yes + rejects / no) / 2,
        kappa=(accuracy - chance) / (1 - chance) if chance < 1 else 0.0,
        area=_area(values, truth),
        error=calibration_error(values, truth),
        undefined=sum(not math.isfinite(value) for value in said),
    )


def _area(values: Sequence[float], truth: Sequence[bool]) -> float:
    """By ranks; ties count half."""
    ordered = sorted(range(len(values)), key=lambda place: values[place])
    total, start = 0.0, 0
    while start < len(ordered):
        end = start
        while end < len(ordered) and values[ordered[end]] == values[ordered[start]]:
            end += 1
        total += sum(truth[place] for place in ordered[start:end]) * (start + end + 1) / 2
        start = end
    yes = sum(truth)
    return (total - yes * (yes + 1) / 2) / (yes * (len(truth) - yes))
