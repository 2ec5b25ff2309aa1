"""Quality, the mix, margins and calibration from held-out questions."""

from __future__ import annotations

import numpy as np
import pytest

from crossrag.calibration import Calibration
from crossrag.errors import UsageError
from crossrag.training.fitting import Reading, fitted, ndcg, quality
from crossrag.training.mixing import SHARES, _mean, best_share, choose_mix, choose_share, remixed


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


def test_at_home_a_model_trusts_itself_as_far_as_it_is_good_enough_elsewhere() -> None:
    usual, weights = (2.0, 0.1), (8.0, 0.4)
    own = remixed(mixed("own", believable=4.0, seed=6), usual, weights)
    general = remixed(mixed("general", believable=0.0, seed=7), usual, weights)
    at_home = {share: _mean(remixed(own, weights, (8.0 * share, 0.4 * share))) for share in SHARES}
    assert choose_share(own, [], weights, least=0.0) == max(SHARES, key=lambda share: at_home[share]) < 1.0
    assert best_share(own, weights) == max(at_home.values())
    elsewhere = {share: _mean(remixed(general, weights, (8.0 * share, 0.4 * share))) for share in SHARES}
    kept = choose_share(own, general, weights, least=elsewhere[0.7])
    assert elsewhere[kept] >= elsewhere[0.7]
    assert choose_share(own, general, weights, least=2.0) == 1.0


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


def test_the_correction_alone_is_judged_over_all_candidates() -> None:
    """Among the best few by the whole logit it is high where the first stage is low: it would look wrong."""
    found = mixed("home", believable=1.0, seed=4)
    weights = (2.0, 0.1)
    best = [np.argsort(-reading.logits[:, -1])[:10] for reading in found]
    corrections = [reading.logits[:, -1] - reading.first_stage @ np.asarray(weights) for reading in found]
    relevant = np.concatenate([one.relevant[few] for one, few in zip(found, best, strict=True)])
    shown = np.concatenate([one[few] for one, few in zip(corrections, best, strict=True)])
    assert shown[relevant].mean() < shown[~relevant].mean()
    assert fitted(found, weights).alone.slope > 0.1


def test_without_another_calibration_one_that_cannot_be_fitted_is_an_error() -> None:
    upside_down = [
        Reading(one.collection, ~one.relevant, one.grades, one.logits, one.first_stage)
        for one in mixed("home", believable=4.0, seed=5)
    ]
    with pytest.raises(UsageError, match="do not score higher"):
        fitted(upside_down, (2.0, 0.1))
    kept = Calibration(0.5, 1.0), Calibration(0.25, 2.0)
    measured = fitted(upside_down, (2.0, 0.1), otherwise=kept)
    assert (measured.calibration, measured.alone) == kept
