"""Logits to probabilities, and thresholds for a wanted precision: known answers and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrag.calibration import (
    Calibration,
    Operating,
    calibration_error,
    fit,
    operating_points,
    reliability,
    threshold_for,
)
from crossrag.errors import ModelError, UsageError


def pairs(slope: float, intercept: float, *, count: int = 8_000) -> tuple[list[float], list[bool]]:
    """Logits, and labels that are true as often as the calibration says."""
    random = np.random.default_rng(11)
    logits = random.normal(1.0, 3.0, count)
    wanted = 1.0 / (1.0 + np.exp(-(slope * logits + intercept)))
    return logits.tolist(), (random.random(count) < wanted).tolist()


@pytest.mark.parametrize(("slope", "intercept"), [(0.7, -1.2), (2.0, 0.5), (0.2, -3.0)])
def test_the_fit_finds_what_made_the_pairs(slope: float, intercept: float) -> None:
    found = fit(*pairs(slope, intercept))
    assert found.slope == pytest.approx(slope, rel=0.08)
    assert found.intercept == pytest.approx(intercept, abs=0.15)


def test_the_scale_of_the_logits_does_not_matter() -> None:
    logits, labels = pairs(0.7, -1.2)
    small, large = fit(logits, labels), fit([1000 * logit + 5e6 for logit in logits], labels)
    for logit in (-4.0, 0.0, 4.0):
        assert large.probability(1000 * logit + 5e6) == pytest.approx(small.probability(logit), abs=1e-6)


def test_one_logit_far_off_does_not_turn_the_fit_into_a_step() -> None:
    logits = [*np.linspace(4, 8, 80).tolist(), 1000.0, *np.linspace(-8, -5, 5).tolist()]
    found = fit(logits, [True] * 81 + [False] * 5)
    # Where the likelihood is greatest, probabilities add up to the labels, here smoothed as Platt did.
    assert sum(map(found.probability, logits)) == pytest.approx(81 * 82 / 83 + 5 / 7, abs=1e-6)
    assert 0.1 < found.probability(-6.0) < found.probability(4.0) < 0.99


def test_probabilities_rise_with_the_logit_and_lead_back_to_it() -> None:
    found = fit(*pairs(0.7, -1.2))
    logits = [-20.0, -3.0, 0.0, 0.001, 2.5, 20.0]
    probabilities = [found.probability(logit) for logit in logits]
    assert probabilities == sorted(set(probabilities))
    assert [found.logit(probability) for probability in probabilities] == pytest.approx(logits, abs=1e-6)


def test_a_weight_counts_as_so_many_repetitions() -> None:
    logits = [-2.0, -1.0, 0.5, 0.0, 1.0, 3.0]
    labels = [False, False, False, True, True, True]
    times = [3, 1, 2, 5, 1, 2]
    weighted = fit(logits, labels, times)
    repeated = fit(np.repeat(logits, times).tolist(), np.repeat(labels, times).tolist())
    assert weighted.slope == pytest.approx(repeated.slope, rel=1e-6)
    assert weighted.intercept == pytest.approx(repeated.intercept, rel=1e-6)


@pytest.mark.parametrize(
    ("logits", "labels", "says"),
    [
        ([], [], "0 relevant and 0 irrelevant"),
        ([1.0, 2.0, 0.0], [True, True, False], "2 relevant and 1 irrelevant pairs are too few"),
        ([1.0, 2.0, 0.0, -1.0], [False, False, True, True], "do not score higher"),
        ([1.0, 1.0, 1.0, 1.0], [False, False, True, True], "do not score higher"),
    ],
)
def test_pairs_that_teach_nothing_are_refused(logits: list[float], labels: list[bool], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        fit(logits, labels)


@given(
    slope=st.floats(1e-6, 1e6),
    intercept=st.floats(-1e6, 1e6),
    logit=st.floats(allow_nan=True, allow_infinity=True),
)
def test_a_probability_is_one_or_is_no_number(slope: float, intercept: float, logit: float) -> None:
    said = Calibration(slope, intercept).probability(logit)
    assert 0.0 <= said <= 1.0 if math.isfinite(logit) else math.isnan(said)


def test_bins_hold_a_tenth_of_the_scale_and_certainty_belongs_to_the_last() -> None:
    found = reliability([1.0, 0.05, 0.95, 0.31, 0.39, 0.0], [True, False, False, True, True, True])
    assert [(group.count, group.was) for group in found] == [(2, 0.5), (2, 1.0), (2, 0.5)]
    assert [group.said for group in found] == pytest.approx([0.025, 0.35, 0.975])


def test_the_calibration_error_is_the_mean_distance_by_count() -> None:
    # One bin of three, off by |0.9 - 1/3|, and one of one, off by 0.2.
    error = calibration_error([0.9, 0.9, 0.9, 0.2], [True, False, False, False])
    assert error == pytest.approx((3 * (0.9 - 1 / 3) + 0.2) / 4)
    assert calibration_error([1.0, 0.0], [True, False]) == 0.0
    assert calibration_error([], []) == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_said_to_be_none(value: float) -> None:
    for measure in (reliability, calibration_error):
        with pytest.raises(ModelError, match="1 of 3 probabilities that onnx:abc gave are no finite numbers"):
            measure([0.5, value, 0.25], [True, False, True], of="onnx:abc")


def test_every_distinct_probability_is_a_threshold_and_ties_are_kept_together() -> None:
    points = operating_points([0.2, 0.8, 0.9, 0.4, 0.8], [True, False, True, False, True])
    assert points == [
        Operating(0.9, 1.0, 1 / 3),
        Operating(0.8, 2 / 3, 2 / 3),
        Operating(0.4, 2 / 4, 2 / 3),
        Operating(0.2, 3 / 5, 1.0),
    ]
    assert operating_points([0.5], [False]) == [Operating(0.5, 0.0, 0.0)]


@pytest.mark.parametrize(
    ("precision", "threshold"), [(1.0, 0.9), (0.7, 0.9), (2 / 3, 0.8), (0.6, 0.2), (0.0, 0.2)]
)
def test_the_threshold_finds_the_most_that_keeps_the_precision(precision: float, threshold: float) -> None:
    points = operating_points([0.9, 0.8, 0.8, 0.4, 0.2], [True, False, True, False, True])
    assert threshold_for(points, precision).threshold == threshold


def test_what_a_laxer_threshold_would_add_in_vain_is_left_out() -> None:
    points = operating_points([0.9, 0.8, 0.4, 0.3], [True, True, False, False])
    assert threshold_for(points, 0.5) == Operating(0.8, 1.0, 1.0)


def test_a_precision_out_of_reach_is_refused_with_the_best_there_is() -> None:
    with pytest.raises(UsageError, match=r"0\.95: the best is 0\.50 at a threshold of 0\.300"):
        threshold_for(operating_points([0.7, 0.3], [False, True]), 0.95)
    with pytest.raises(UsageError, match="no pairs"):
        threshold_for([], 0.5)
