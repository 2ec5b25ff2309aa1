"""Quality, the mix, margins and calibration from held-out questions."""

from __future__ import annotations

import numpy as np
import pytest

from crossrag.training.fitting import Reading, fitted, ndcg, quality
from crossrag.training.mixing import choose_mix, remixed


def test_ndcg_on_a_case_done_by_hand() -> None:
    grades = np.asarray([0, 2, -1, 1], np.int8)
    assert ndcg(np.asarray([3.0, 2.0, 1.0, 0.0]), grades) == pytest.approx(
        (2 / np.log2(3) + 1 / np.log2(5)) / (2 + 1 / np.log2(3))
    )
    assert ndcg(np.asarray([1.0, 1.0]), np.asarray([0, -1], np.int8)) == 0.0


def readings(noise: float) -> list[Reading]:
    chance = np.random.default_rng(3)
    found = []
    for _ in range(60):
        last = chance.normal(size=40) * 2 - 4
        relevant = chance.random(40) < 1 / (1 + np.exp(-last))
        early = 0.5 * last + 1.0 + chance.normal(size=40) * noise
        grades = np.where(relevant, 1, -1).astype(np.int8)
        found.append(Reading("r", relevant, grades, np.stack([early, last], 1), np.zeros((40, 2))))
    return found


def mixed(collection: str, *, believable: float, seed: int) -> list[Reading]:
    """The first stage's cosine tells what is relevant; the correction does so too, more or less."""
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(80):
        relevant = chance.permutation(np.arange(30) < 3)
        cosine = relevant * 1.0 + chance.normal(size=30) * 0.5
        correction = relevant * believable + chance.normal(size=30) * 2
        features = np.stack([cosine, chance.normal(size=30)], 1)
        logits = (features @ np.asarray([2.0, 0.1]) + correction)[:, np.newaxis]
        found.append(Reading(collection, relevant, relevant.astype(np.int8), logits, features))
    return found


def test_the_mix_trusts_the_first_stage_more_where_the_correction_is_wrong_abroad() -> None:
    home, abroad = mixed("home", believable=4.0, seed=1), mixed("abroad", believable=0.0, seed=2)
    chosen, tried = choose_mix(home, abroad, (2.0, 0.1), price=0.05)
    as_learned = next(mix for mix in tried if (mix.dense, mix.sparse) == (2.0, 0.1))
    assert chosen.dense > 2.0
    assert chosen.abroad > as_learned.abroad + 0.02
    assert chosen.home >= max(mix.home for mix in tried) - 0.05
    kept, _ = choose_mix(home, home, (2.0, 0.1), price=0.0)
    assert kept.home == max(mix.home for mix in tried)


def test_a_remixed_reading_is_what_the_other_weights_would_have_said() -> None:
    (reading, *_) = mixed("home", believable=1.0, seed=3)
    (again,) = remixed([reading], (2.0, 0.1), (5.0, 0.3))
    correction = reading.logits[:, 0] - reading.first_stage @ np.asarray([2.0, 0.1])
    assert again.logits[:, 0] == pytest.approx(correction + reading.first_stage @ np.asarray([5.0, 0.3]))


def test_margins_forecasts_and_calibration_are_read_from_held_out_questions() -> None:
    measured = fitted(readings(noise=0.1), (10.0, 1.0))
    assert measured.forecasts[0] == pytest.approx((2.0, -2.0), abs=0.2)
    assert measured.calibration.slope == pytest.approx(1.0, abs=0.15)
    assert measured.calibration.intercept == pytest.approx(0.0, abs=0.3)
    assert 0 < measured.margins[0] < fitted(readings(noise=1.0), (10.0, 1.0)).margins[0]
    assert quality(readings(noise=0.1), measured.calibration).calibration_error < 0.03
