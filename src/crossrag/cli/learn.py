"""`crossrag calibrate` and `crossrag train`: what a user's own judgements make better."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrag.errors import MissingExtraError, UsageError

from . import show

if TYPE_CHECKING:
    from crossrag.pipeline import Rag
    from crossrag.training.fitting import Quality
    from crossrag.training.mining import Mined
    from crossrag.training.trainer import Outcome


REFUSED = 8
"""Exit code of a training whose model, or a calibration whose error, was not better."""


def calibrate(rag: Rag, path: Path | None, *, remove: bool, as_json: bool) -> int:
    """Fit, keep what is better, and say what the thresholds are worth; or remove it. The exit code."""
    from crossrag.calibrating import FEW, read_judgements

    if remove == (path is not None):
        raise UsageError(
            "Both judgements and --remove" if remove else "No judgements to calibrate with",
            hint="Give a file of judgements, or --remove alone",
        )
    if path is None:
        _remove_calibration(rag, as_json=as_json)
        return 0

    judgements = read_judgements(path)
    with show.counting("asking") as progress:
        found = rag.calibrate(judgements, progress=progress)
    if as_json:
        show.to_json(asdict(found) | {"kept": found.better})
        return 0 if found.better else REFUSED
    print(
        f"{found.questions} questions, {found.pairs} passages read, {found.relevant} of them relevant.\n"
        f"Expected calibration error {found.error_before:.3f} -> {found.error_after:.3f}.\n"
    )
    if found.unmatched:
        show.talk(
            f"Of {found.unmatched} questions no relevant place was found: check their source and quote, "
            "as long as what answers them counts as irrelevant."
        )
    print("threshold  precision  recall")
    for point in _spread(found.points):
        print(f"{point.threshold:9.3f}  {point.precision:9.2f}  {point.recall:6.2f}")
    if found.matched < FEW:
        show.talk(
            f"warning: {found.matched} questions are few. The thresholds are measured on the same questions"
            f" that they are made of: on others expect less. {FEW} or more are a good start."
        )
    if not found.better:
        show.talk(
            "Refused: the calibration error would grow. Nothing was kept, what was in force before still is."
        )
        return REFUSED
    show.talk(
        "Kept beside the index; `crossrag calibrate --remove` undoes it."
        " Now --set reranking.threshold='precision>=0.9' can be resolved."
    )
    return 0


def _remove_calibration(rag: Rag, *, as_json: bool) -> None:
    from crossrag.calibrating import FILE_NAME, remove

    folder = rag.settings.index.path
    removed = remove(folder)
    if as_json:
        show.to_json({"removed": removed})
    elif removed:
        print(f"Removed {folder / FILE_NAME}: relevance is the model's own again.")
    else:
        print(f"There is no calibration at {folder}: nothing to remove.")


def train(
    rag: Rag,
    *,
    data: Path | None,
    judgements: Path | None,
    general: Path | None,
    start: Path | None,
    out: Path,
    steps: int | None,
    seed: int,
    by_prefix: bool,
    as_json: bool,
) -> int:
    """Mine, train, compare; the exit code."""
    from crossrag import registry

    origin = start or registry.BUNDLED_MODELS / "progressive-reranker"
    _check(data, judgements, general, origin, out)
    from crossrag.training import trainer
    from crossrag.training.loop import TrainingOptions

    learned, held, unlabelled = _mined(rag, data, judgements, by_prefix=by_prefix)
    count = sum(len(part.questions) for part in learned)
    steps = steps or max(60, min(4_000, count * 3 // 8))
    options = TrainingOptions(
        steps=steps,
        # A trained model needs smaller steps than a new one.
        encoder_rate=3e-5,
        head_rate=1e-4,
        scalar_rate=1e-3,
        evaluate_every=max(10, steps // 8),
        seed=seed,
    )
    with _training_progress(options.steps) as listener:
        outcome = trainer.improve(
            trainer.Material(
                train=learned, unlabelled=unlabelled, held_out=held, general=_general(rag, general)
            ),
            origin,
            out,
            options=options,
            listener=listener,
        )
    if as_json:
        show.to_json(asdict(outcome))
    else:
        _print(outcome)
    return 0 if outcome.accepted else REFUSED


def _check(data: Path | None, judgements: Path | None, general: Path | None, origin: Path, out: Path) -> None:
    """What can be known to fail, before torch is loaded and anything is searched."""
    from crossrag.calibrating import by_question, read_judgements
    from crossrag.training.enough import check_split
    from crossrag.training.judged import check_folder
    from crossrag.training.placing import check_places

    if (data is None) == (judgements is None):
        what = "Nothing to learn from" if data is None else "--data and --judgements are both given"
        raise UsageError(what, hint="Give either --data FOLDER or --judgements FILE")
    for package in ("torch", "transformers", "onnx", "safetensors"):
        if find_spec(package) is None:
            raise MissingExtraError(
                f"Training needs the package {package}", hint="pip install 'crossrag[training]'"
            )
    check_places(origin, out)
    for folder in (data, general):
        if folder is not None:
            check_folder(folder)
    if judgements is not None:
        check_split(len(by_question(read_judgements(judgements))))


def _mined(
    rag: Rag, data: Path | None, judgements: Path | None, *, by_prefix: bool
) -> tuple[list[Mined], list[Mined], list[Mined]]:
    from crossrag.calibrating import read_judgements
    from crossrag.training import sources, trainer
    from crossrag.training.enough import check_folder_counts

    if judgements is not None:
        mined, lost = sources.from_index(rag, read_judgements(judgements), told=show.talk)
        if lost:
            show.talk(f"{lost} questions were left out: the search finds none of their relevant passages.")
        return *trainer.split([mined]), [sources.unlabelled_from_index(rag, mined)]
    assert data is not None  # noqa: S101 - checked by the caller
    found = sources.from_folder(
        data,
        embedder=rag.embedder,
        sparse_encoder=rag.sparse_encoder,
        by_prefix=by_prefix,
        check=check_folder_counts,
        told=show.talk,
    )
    learned, held = (found.train, found.dev) if found.dev else trainer.split(found.train)
    return learned, held, found.unlabelled


def _general(rag: Rag, folder: Path | None) -> list[Mined]:
    from crossrag.training import sources

    if folder is None:
        return [sources.bundled_questions(rag)]
    found = sources.from_folder(
        folder, embedder=rag.embedder, sparse_encoder=rag.sparse_encoder, told=show.talk, limit=200
    )
    return found.dev or found.train


@contextmanager
def _training_progress(steps: int) -> Iterator[Any]:
    from crossrag.training.trainer import Listener

    if not sys.stderr.isatty():
        yield Listener(stage=show.talk, step=lambda now: show.talk(_line(now)))
        return
    with show.bar() as bar:
        task = bar.add_task("", total=steps)
        yield Listener(
            stage=lambda text: bar.update(task, description=text),
            step=lambda now: bar.update(task, completed=now.step, description=_line(now)),
        )


def _line(now: Any) -> str:
    right = now.exits[-1]
    return f"step {now.step}: loss {now.loss:.3f}, first of its group {now.first:.2f} -> {right:.2f}"


def _print(outcome: Outcome) -> None:
    print(f"{'nDCG@10':<22}first stage  before  after")
    _row(f"{outcome.questions} held-out questions", outcome.before, outcome.after)
    if outcome.standing:
        _row("the model there", outcome.standing, outcome.after)
    if outcome.general_before and outcome.general_after:
        _row("general set", outcome.general_before, outcome.general_after)
    verdict = "Accepted" if outcome.accepted else "Refused"
    print(f"{verdict}: {outcome.reason}.\n{outcome.folder}")
    if outcome.accepted:
        show.talk(f"Use it with --set reranking.model=progressive:{outcome.folder}")


def _row(name: str, before: Quality, after: Quality) -> None:
    print(f"{name:<22}{after.fused:11.3f}  {before.reranked:6.3f}  {after.reranked:5.3f}")


def _spread(points: Any, most: int = 12) -> Any:
    step = max(1, -(-len(points) // most))
    return points[::step]
