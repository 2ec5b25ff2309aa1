"""The whole way, and the verdict."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossrag.errors import UsageError
from crossrag.registry import load
from crossrag.training.batches import BatchOptions
from crossrag.training.export import Fitted, export
from crossrag.training.loop import TrainingOptions
from crossrag.training.trainer import Material, check_places, improve, split
from crossrag.types import Scores

from .toys import TOKENIZER, tiny, toy


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
    out = {"start": start, "other": tmp_path / "other", "new.rejected": tmp_path / "new"}[place]
    with pytest.raises(UsageError, match=r"Name another folder"):
        check_places(start, out)
    check_places(start, tmp_path / "fresh")
