"""Judged questions -> a better reranker, or a refusal: mine, train, export, measure, compare.

The whole way of `crossrag train`. A model is only put in place if it beats the one that it started from on
held-out questions and does not lose on a general set.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from crossrag import registry
from crossrag.errors import UsageError
from crossrag.exported import read_config
from crossrag.inference import load_tokenizer

from .batches import Batches, BatchOptions
from .export import export, refit
from .fitting import Quality, fitted, quality, read
from .loop import Progress, TrainingOptions, train
from .network import ProgressiveCrossEncoder, from_exported

if TYPE_CHECKING:
    from .mining import Mined, Question

TOLERANCE = 0.005
"""How much nDCG@10 may be lost on the general set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What is learned from and what decides."""

    train: Sequence[Mined]
    held_out: Sequence[Mined]
    general: Sequence[Mined] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What training came to: quality on held-out questions and on the general set."""

    accepted: bool
    reason: str
    folder: Path
    """Where the new model lies: the wanted place if it was accepted, else beside it."""
    before: Quality
    after: Quality
    general_before: Quality | None = None
    general_after: Quality | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Told what goes on; every part may be left out."""

    stage: Callable[[str], None] = field(default=lambda _: None)
    step: Callable[[Progress], None] = field(default=lambda _: None)


def improve(
    material: Material,
    start: Path,
    out: Path,
    *,
    options: TrainingOptions,
    batches: BatchOptions | None = None,
    listener: Listener | None = None,
) -> Outcome:
    """Train from an exported model and put the result at `out`, if it is better.

    Args:
        material: Mined questions.
        start: Exported model folder to go on from, such as the bundled one.
        out: Folder for the new model; must not exist or be a model that may be replaced.
        options: Steps, rates and so on.
        batches: How groups are drawn.
        listener: Told what goes on.

    Raises:
        UsageError: There is nothing to learn from, or nothing to decide with.
    """
    told = listener or Listener()
    check_places(start, out)
    _check(material)
    choosing, deciding = _halves(material.held_out)
    told.stage("measuring the model to start from")
    before = _measured(start, deciding)
    general_before = _measured(start, material.general) if material.general else None
    with tempfile.TemporaryDirectory(prefix="crossrag-train-") as scratch:
        folder = Path(scratch) / "model"
        drawn = Batches(
            material.train,
            load_tokenizer(start / "tokenizer.json"),
            batches or BatchOptions(seed=options.seed),
        )
        _train(start, folder, drawn, choosing, options, told, out.name)
        after = _measured(folder, deciding)
        general_after = _measured(folder, material.general) if material.general else None
        accepted, reason = _verdict(before, after, general_before, general_after)
        place = out if accepted else _rejected(out)
        _put(folder, place)
    return Outcome(
        accepted=accepted,
        reason=reason,
        folder=place,
        before=before,
        after=after,
        general_before=general_before,
        general_after=general_after,
    )


def check_places(start: Path, out: Path) -> None:
    """Refuse at once what could only fail, or destroy something, after hours.

    Raises:
        UsageError: `out`, or the place of a refused model, is no model of ours, or is `start`.
    """
    if not out.name:
        raise UsageError(f"{out} cannot be the folder of a model", hint="Name a new folder with --out")
    for place in (out, _rejected(out)):
        if place.resolve() == start.resolve() or place.resolve() in start.resolve().parents:
            raise UsageError(
                f"{place} would replace the model that training starts from", hint="Name another folder"
            )
        if place.exists() and not _is_ours(place):
            raise UsageError(f"{place} exists and is no model of crossrag", hint="Name another folder")


def _rejected(out: Path) -> Path:
    return out.with_name(f"{out.name}.rejected")


def _is_ours(place: Path) -> bool:
    try:
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
        return bool(config["kind"] == "progressive")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _put(folder: Path, place: Path) -> None:
    """Copy whole, then swap: whatever happens in between, there is the old model or the new one."""
    place.parent.mkdir(parents=True, exist_ok=True)
    partial, old = place.with_name(f"{place.name}.partial"), place.with_name(f"{place.name}.old")
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(folder, partial)
    if place.exists():
        place.rename(old)
    partial.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def _halves(parts: Sequence[Mined]) -> tuple[list[Mined], list[Mined]]:
    """Questions that choose among checkpoints and calibrate, and others that decide."""
    return (
        [replace(part, questions=part.questions[::2]) for part in parts],
        [replace(part, questions=part.questions[1::2]) for part in parts],
    )


def _train(
    start: Path,
    folder: Path,
    drawn: Batches,
    choosing: Sequence[Mined],
    options: TrainingOptions,
    told: Listener,
    name: str,
) -> None:
    """Train from `start` and leave the best state, calibrated, in `folder`."""
    network = from_exported(start)
    tokenizer = start / "tokenizer.json"

    def held_out(current: ProgressiveCrossEncoder) -> float:
        export(current, tokenizer, folder)
        return _measured(folder, choosing).reranked

    told.stage("training")
    train(network, drawn, options, evaluate=held_out, report=told.step)
    told.stage("measuring and calibrating the new model")
    export(network, tokenizer, folder, name=name)
    _fit(folder, choosing, start)


def split(mined: Sequence[Mined], *, every: int = 5) -> tuple[list[Mined], list[Mined]]:
    """Questions to learn from, and each fifth question held out."""
    kept, held = [], []
    for part in mined:
        kept.append(replace(part, questions=tuple(_rest(part.questions, every))))
        held.append(replace(part, questions=part.questions[every - 1 :: every]))
    return kept, held


def _rest(questions: Sequence[Question], every: int) -> list[Question]:
    return [question for number, question in enumerate(questions, start=1) if number % every]


def _check(material: Material) -> None:
    counts = [sum(len(part.questions) for part in parts) for parts in (material.train, material.held_out)]
    if counts[0] < 20 or counts[1] < 5:
        raise UsageError(
            f"{counts[0]} questions to learn from and {counts[1]} held out are too few",
            hint="Judge at least 25 questions; some hundreds are a good start",
        )


def _measured(folder: Path, parts: Sequence[Mined]) -> Quality:
    from crossrag.calibration import Calibration

    reranker = registry.load("rerankers", f"progressive:{folder}")
    config = read_config(folder)
    return quality(read(reranker, parts), Calibration(**config["calibration"]))


def _fit(folder: Path, parts: Sequence[Mined], start: Path) -> None:
    """Calibrate on the held-out questions; margins may become wider than those of `start`."""
    config = read_config(folder)
    old = read_config(start)
    weights = config["first_stage"]["dense"], config["first_stage"]["sparse"]
    readings = read(registry.load("rerankers", f"progressive:{folder}"), parts)
    measured = fitted(readings, weights)
    margins = tuple(max(new, kept) for new, kept in zip(measured.margins, old["margins"], strict=True))
    refit(folder, replace(measured, margins=margins))


def _verdict(
    before: Quality, after: Quality, general_before: Quality | None, general_after: Quality | None
) -> tuple[bool, str]:
    if after.reranked <= before.reranked:
        return False, "it is not better on the held-out questions"
    if general_before and general_after and general_after.reranked < general_before.reranked - TOLERANCE:
        return False, "it loses on the general set"
    return True, "it is better on the held-out questions"
