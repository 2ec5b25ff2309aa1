"""The whole way, and the verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from crossrag.errors import UsageError
from crossrag.exported import read_config
from crossrag.registry import load
from crossrag.training import fitting, trainer
from crossrag.training.batches import BatchOptions
from crossrag.training.export import Fitted, export
from crossrag.training.loop import TrainingOptions
from crossrag.training.placing import check_places, put, restore
from crossrag.training.trainer import Listener, Material, Outcome, improve, split
from crossrag.types import Scores

from .toys import TOKENIZER, tiny, toy

if TYPE_CHECKING:
    from crossrag.calibration import Calibration


def exported(path: Path) -> Path:
    export(tiny(), TOKENIZER, path, fitted=Fitted(margins=(5.0,), forecasts=((1.0, 0.0),)))
    return path


OPTIONS = TrainingOptions(steps=60, encoder_rate=1e-3, head_rate=5e-3, evaluate_every=30)


def test_a_better_model_is_put_in_place(tmp_path: Path) -> None:
    learned, held = split([toy()])
    out = tmp_path / "new"
    done = improve(
        Material(train=learned, held_out=held, general=[toy(20, seed=5)]),
        exported(tmp_path / "start"),
        out,
        options=OPTIONS,
        batches=BatchOptions(negatives=3, batch_tokens=1024),
    )
    assert done.accepted, done.reason
    assert done.after.reranked > done.before.reranked + 0.1
    assert done.folder == out
    said = load("rerankers", f"progressive:{out}").score(
        "which item 3", ["no item 4", "yes item 9"], first_stage=[Scores(dense=0.0, sparse=0.0)] * 2
    )
    assert said.logit[1] > said.logit[0]


def test_a_model_that_learned_nothing_is_refused_and_kept_aside(tmp_path: Path) -> None:
    learned, held = split([toy(shuffled=True)])
    general = toy(40, seed=5)
    start = exported(tmp_path / "start")
    done = improve(
        Material(train=learned, held_out=held, general=[general]),
        start,
        tmp_path / "new",
        options=TrainingOptions(steps=2, encoder_rate=0.0, head_rate=0.0, scalar_rate=0.0, evaluate_every=1),
        batches=BatchOptions(negatives=3, batch_tokens=1024),
    )
    assert not done.accepted
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "new.rejected" / "config.json").is_file()


def test_too_little_to_learn_from_is_said(tmp_path: Path) -> None:
    learned, held = split([toy(10)])
    with pytest.raises(UsageError, match="too few"):
        improve(
            Material(train=learned, held_out=held), exported(tmp_path / "s"), tmp_path / "n", options=OPTIONS
        )


@pytest.mark.parametrize("place", ["start", "other", "new.rejected"])
def test_no_folder_but_an_old_model_is_ever_replaced(tmp_path: Path, place: str) -> None:
    start = exported(tmp_path / "start")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"kind": "something else"}', encoding="utf-8")
    (tmp_path / "new.rejected").write_text("a file", encoding="utf-8")
    (tmp_path / "fresh.old").mkdir()
    out = {"start": start, "other": tmp_path / "other", "new.rejected": tmp_path / "new"}[place]
    with pytest.raises(UsageError, match=r"Name another folder"):
        check_places(start, out)
    check_places(start, tmp_path / "fresh")


@pytest.mark.parametrize("start", ["missing", "other"])
def test_a_start_that_is_no_model_is_said_at_once(tmp_path: Path, start: str) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match="no model that training could go on from"):
        check_places(tmp_path / start, tmp_path / "new")


def test_neighbours_of_the_new_model_are_left_alone(tmp_path: Path) -> None:
    for name in ("new", "new.old", "new.partial"):
        exported(tmp_path / name)
    (tmp_path / "new" / "mark").touch()
    put(exported(tmp_path / "trained"), tmp_path / "new")
    assert not (tmp_path / "new" / "mark").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "new.old", "new.partial", "trained"]


def test_an_exchange_that_is_killed_between_its_two_renames_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = exported(tmp_path / "new")
    (out / "mark").touch()
    renamed = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if target == out:
            raise KeyboardInterrupt
        return renamed(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            put(exported(tmp_path / "trained"), out)
    assert not out.exists()
    assert restore(out)
    assert (out / "mark").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "trained"]
    assert not restore(out)


def trained(
    tmp_path: Path,
    options: TrainingOptions,
    *,
    learned: int = 60,
    general: int = 20,
    told: Callable[[str], None] = lambda _: None,
) -> Outcome:
    kept, held = split([toy(learned)])
    start = tmp_path / "start"
    return improve(
        Material(train=kept, held_out=held, general=[toy(general, seed=5)]),
        start if start.exists() else exported(start),
        tmp_path / "new",
        options=options,
        batches=BatchOptions(negatives=3, batch_tokens=1024),
        listener=Listener(stage=told),
    )


def test_a_better_model_is_not_replaced_by_a_worse_one(tmp_path: Path) -> None:
    first = trained(tmp_path, OPTIONS)
    assert first.accepted, first.reason
    before = (tmp_path / "new" / "SHA256SUMS").read_text(encoding="utf-8")
    # Better than the start, which knows nothing, and worse than what stands there.
    second = trained(tmp_path, replace(OPTIONS, steps=4, evaluate_every=4))
    assert second.standing is not None
    assert second.standing.reranked == first.after.reranked
    assert not second.accepted
    assert (tmp_path / "new" / "SHA256SUMS").read_text(encoding="utf-8") == before


def test_a_model_that_loses_elsewhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = trainer._measured

    def elsewhere(folder: Path, parts: list[object]) -> fitting.Quality:
        said = measured(folder, parts)  # type: ignore[arg-type]
        lost = folder.name != "start" and len(parts[0].questions) == 20  # type: ignore[attr-defined]
        return replace(said, reranked=said.reranked - 1.0) if lost else said

    monkeypatch.setattr(trainer, "_measured", elsewhere)
    done = trained(tmp_path, OPTIONS)
    assert not done.accepted
    assert "general set" in done.reason
    assert (tmp_path / "new.rejected").exists()


def test_a_calibration_that_cannot_be_fitted_is_that_of_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unfit(*_: object) -> Calibration:
        raise UsageError("Relevant pairs do not score higher than irrelevant ones")

    monkeypatch.setattr(fitting, "fit", unfit)
    done = trained(tmp_path, OPTIONS)
    assert done.accepted, done.reason
    config = read_config(done.folder)
    assert config["calibration"] == config["alone"] == {"slope": 1.0, "intercept": 0.0}


def test_interrupted_after_an_evaluation_the_best_so_far_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, evaluations, said = trainer._read, [], list[str]()

    def stop(folder: Path, parts: list[object]) -> list[fitting.Reading]:
        if said[-1] == "training":
            evaluations.append(folder)
            if len(evaluations) == 2:
                raise KeyboardInterrupt
        return reading(folder, parts)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer, "_read", stop)
    done = trained(tmp_path, replace(OPTIONS, steps=600, evaluate_every=60), told=said.append)
    assert len(evaluations) == 2
    assert any("stopped early" in stage for stage in said)
    assert done.after.reranked > done.before.reranked


def test_many_small_sets_give_to_both_sides() -> None:
    parts = [replace(toy(2, seed=number), name=str(number)) for number in range(30)]
    learned, held = split(parts)
    assert sum(len(part.questions) for part in learned) == 48
    assert sum(len(part.questions) for part in held) == 12
    assert all(part.questions for part in [*learned, *held])


def test_a_leg_that_was_not_searched_counts_as_is_typical(tmp_path: Path) -> None:
    one = toy(60)
    blind = replace(
        one,
        questions=tuple(
            replace(q, first_stage=np.column_stack([q.first_stage[:, 0], np.full(8, np.nan, np.float32)]))
            for q in one.questions
        ),
    )
    learned, held = split([blind])
    done = improve(
        Material(train=learned, held_out=held),
        exported(tmp_path / "start"),
        tmp_path / "new",
        options=replace(OPTIONS, steps=2, evaluate_every=2),
        batches=BatchOptions(negatives=3, batch_tokens=1024),
    )
    assert np.isfinite(done.after.calibration_error)
