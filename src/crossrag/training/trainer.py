"""Judged questions -> a better reranker, or a refusal: mine, train, export, measure, compare.

The whole way of `crossrag train`. A model is only put in place if it beats the one that it started from on
held-out questions and does not lose on a general set.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossrag import registry
from crossrag.calibration import Calibration
from crossrag.exported import read_config
from crossrag.inference import load_tokenizer
from crossrag.residual import bm25_unit

from .batches import Batches, BatchOptions
from .enough import HELD_BACK, check_counts
from .export import export, refit
from .fitting import Quality, Reading, fitted, quality, read
from .loop import Progress, TrainingOptions, train
from .mixing import best_share, choose_share, remixed
from .network import ProgressiveCrossEncoder, from_exported
from .placing import check_places, put, rejected, restore

if TYPE_CHECKING:
    from .mining import Mined, Question

TOLERANCE = 0.005
"""How much nDCG@10 may be lost on the general set."""
LEAST_GAIN = 0.002
"""How much must be gained on the held-out questions: what is less is chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What is learned from and what decides."""

    train: Sequence[Mined]
    held_out: Sequence[Mined]
    unlabelled: Sequence[Mined] = ()
    """Questions without judgements, on which the first stage's order is to be kept."""
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
    questions: int
    """How many held-out questions decided."""
    general_before: Quality | None = None
    general_after: Quality | None = None
    standing: Quality | None = None
    """Of the model that stood at the wanted place already; it, too, had to be beaten."""


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
    material = _complete(material, read_config(start)["first_stage"]["typical"])
    check_counts(*(sum(len(p.questions) for p in parts) for parts in (material.train, material.held_out)))
    choosing, deciding = _halves(material.held_out)
    if restore(out):
        told.stage(f"{out} was put back: an earlier exchange had been cut off")
    told.stage("measuring the model to start from")
    before, general_before = _measured(start, deciding), _known(start, material.general)
    standing = _measured(out, deciding) if out.exists() else None
    with tempfile.TemporaryDirectory(prefix="crossrag-train-") as scratch:
        folder = Path(scratch) / "model"
        drawn = Batches(
            [*material.train, *material.unlabelled],
            load_tokenizer(start / "tokenizer.json"),
            batches or BatchOptions(seed=options.seed),
        )
        network = _train(start, folder, drawn, choosing, options, told)
        told.stage("measuring and calibrating the new model")
        least = general_before.reranked - TOLERANCE if general_before else 0.0
        _finish(network, start, folder, choosing, material.general, least, out.name)
        after, general_after = _measured(folder, deciding), _known(folder, material.general)
        accepted, reason = _verdict(before, after, general_before, general_after, standing)
        place = out if accepted else rejected(out)
        put(folder, place)
    return Outcome(
        accepted=accepted,
        reason=reason,
        folder=place,
        before=before,
        after=after,
        questions=sum(len(part.questions) for part in deciding),
        standing=standing,
        general_before=general_before,
        general_after=general_after,
    )


def _halves(parts: Sequence[Mined]) -> tuple[list[Mined], list[Mined]]:
    """Questions that choose among checkpoints and calibrate, and others that decide."""
    return _dealt(parts, lambda number: number % 2 == 0)


def split(mined: Sequence[Mined], *, every: int = HELD_BACK) -> tuple[list[Mined], list[Mined]]:
    """Questions to learn from, and each fifth question held out."""
    return _dealt(mined, lambda number: (number + 1) % every != 0)


def _dealt(parts: Sequence[Mined], first: Callable[[int], bool]) -> tuple[list[Mined], list[Mined]]:
    """Counted through all parts, so that many small ones give to both; empty parts are left out."""
    piles: tuple[list[Mined], list[Mined]] = ([], [])
    number = 0
    for part in parts:
        hands: tuple[list[Question], list[Question]] = ([], [])
        for question in part.questions:
            hands[0 if first(number) else 1].append(question)
            number += 1
        for pile, hand in zip(piles, hands, strict=True):
            if hand:
                pile.append(replace(part, questions=tuple(hand)))
    return piles


def _complete(material: Material, typical: Sequence[float]) -> Material:
    """A leg that was not searched counts as is typical, as it does when the model is asked."""

    def complete(parts: Sequence[Mined]) -> list[Mined]:
        return [
            replace(part, questions=tuple(_completed(one, typical, part.indexed) for one in part.questions))
            for part in parts
        ]

    return Material(
        train=complete(material.train),
        unlabelled=complete(material.unlabelled),
        held_out=complete(material.held_out),
        general=complete(material.general),
    )


def _completed(question: Question, typical: Sequence[float], indexed: int | None) -> Question:
    if np.isfinite(question.first_stage).all():
        return question
    usual = np.asarray([typical[0], typical[1] * bm25_unit(question.text, indexed)], np.float32)
    scores = np.where(np.isfinite(question.first_stage), question.first_stage, usual)
    return replace(question, first_stage=scores.astype(np.float32))


def _train(
    start: Path,
    folder: Path,
    drawn: Batches,
    choosing: Sequence[Mined],
    options: TrainingOptions,
    told: Listener,
) -> ProgressiveCrossEncoder:
    """Train from `start` and return the best state."""
    network = from_exported(start)
    tokenizer = start / "tokenizer.json"
    calibrated = read_config(start)["calibration"]
    # Else the first steps go into the scale of the logits, and what the model knows is shaken.
    losses = replace(options.losses, temperature=1.0 / calibrated["slope"], shift=calibrated["intercept"])

    def held_out(current: ProgressiveCrossEncoder) -> float:
        export(current, tokenizer, folder)
        return best_share(_read(folder, choosing), _weights(folder))

    told.stage("training")
    return train(
        network,
        drawn,
        replace(options, losses=losses),
        evaluate=held_out,
        report=told.step,
        interrupted=lambda: told.stage("stopped early: the best state so far is taken"),
    )


def _finish(
    network: ProgressiveCrossEncoder,
    start: Path,
    folder: Path,
    choosing: Sequence[Mined],
    general: Sequence[Mined],
    least: float,
    name: str,
) -> None:
    """Weigh the first stage anew, calibrate, and leave the model in `folder`."""
    tokenizer = start / "tokenizer.json"
    export(network, tokenizer, folder, name=name)
    own, weights = _read(folder, choosing), _weights(folder)
    share = choose_share(own, _read(folder, general), weights, least=least)
    network.weigh(share)
    export(network, tokenizer, folder, name=name)
    _fit(folder, remixed(own, weights, _weights(folder)), start)


def _measured(folder: Path, parts: Sequence[Mined]) -> Quality:
    return quality(_read(folder, parts), Calibration(**read_config(folder)["calibration"]))


def _known(folder: Path, parts: Sequence[Mined]) -> Quality | None:
    return _measured(folder, parts) if parts else None


def _read(folder: Path, parts: Sequence[Mined]) -> list[Reading]:
    return read(registry.load("rerankers", f"progressive:{folder}"), parts)


def _weights(folder: Path) -> tuple[float, float]:
    config = read_config(folder)["first_stage"]
    return config["dense"], config["sparse"]


def _fit(folder: Path, readings: Sequence[Reading], start: Path) -> None:
    """Calibrate on held-out questions; margins may become wider than those of `start`."""
    old = read_config(start)
    kept = Calibration(**old["calibration"]), Calibration(**old["alone"])
    measured = fitted(readings, _weights(folder), otherwise=kept)
    margins = tuple(max(new, wide) for new, wide in zip(measured.margins, old["margins"], strict=True))
    refit(folder, replace(measured, margins=margins))


def _verdict(
    before: Quality,
    after: Quality,
    general_before: Quality | None,
    general_after: Quality | None,
    standing: Quality | None,
) -> tuple[bool, str]:
    if after.reranked < before.reranked + LEAST_GAIN:
        return False, "it is not better on the held-out questions"
    if standing and after.reranked <= standing.reranked:
        return False, "it is not better on the held-out questions than the model that is there"
    if general_before and general_after and general_after.reranked < general_before.reranked - TOLERANCE:
        return False, "it loses on the general set"
    return True, "it is better on the held-out questions"
