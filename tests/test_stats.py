"""Intervals and bounds, against values worked by hand or by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as reference

from nightshift import stats


def test_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        stats.paired([], binary=True)


def test_the_interval_is_students() -> None:
    values = [0.1, -0.2, 0.3, 0.05, 0.0, 0.4]
    found = stats.paired(values, binary=False)
    low, high = reference.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_equal_outcomes_still_leave_room_for_what_was_not_seen() -> None:
    found = stats.paired([0.0] * 60, binary=True)
    assert found.high == pytest.approx(reference.binomtest(0, 60).proportion_ci(0.95).high)
    assert stats.paired([0.0] * 60, binary=False) == stats.Interval(0.0, 0.0, 0.0, 60)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    drawn = np.random.default_rng(1).normal(0.2, 1.0, size=(2000, 40))
    covered = sum(one.low <= 0.2 <= one.high for one in (stats.paired(list(row), False) for row in drawn))
    assert 0.93 < covered / 2000 < 0.97


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [(0, 0, 1.0), (0, 40, 1.0), (40, 0, 2.0**-40), (4, 0, 1 / 16), (5, 0, 1 / 32), (1, 1, 0.75), (7, 3, 176 / 1024)],
)
def test_the_sign_test_is_exact(wins: int, losses: int, p: float) -> None:
    assert stats.sign_test(wins, losses) == p


def test_the_sign_test_is_the_binomial_test_of_the_pairs_that_differ() -> None:
    wins, losses = np.random.default_rng(1).integers(0, 60, size=(2, 40)).tolist()
    for won, lost in zip(wins, losses, strict=True):
        wanted = reference.binomtest(won, won + lost, alternative="greater").pvalue if won + lost else 1.0
        assert stats.sign_test(won, lost) == pytest.approx(wanted)


def test_the_smallest_effect_is_what_the_items_needed_would_show() -> None:
    values = [0.0, 1.0] * 50
    effect = stats.smallest_effect(values)
    assert stats.items_needed(values, effect) == pytest.approx(100, abs=1)
    assert stats.items_needed(values, effect / 2) == pytest.approx(400, abs=4)
    assert stats.smallest_effect([1.0]) == math.inf


def test_stability_of_equal_distributions_is_zero_and_of_others_not() -> None:
    assert stats.stability([0.5, 0.5], [0.5, 0.5]) == 0
    assert stats.stability([0.5, 0.5], [0.6, 0.4]) == pytest.approx(0.1 * math.log(1.2) - 0.1 * math.log(0.8))


@pytest.mark.parametrize(
    ("good", "valid", "low", "high"),
    # 81 of 263 is Newcombe's example (1998): 0.2553 to 0.3662
    [(0, 10, 0.0, 0.277533), (10, 10, 0.722467, 1.0), (81, 263, 0.255289, 0.366210), (1, 1, 0.206549, 1.0)],
)
def test_a_share_has_wilsons_interval(good: int, valid: int, low: float, high: float) -> None:
    found = stats.share(good, valid)
    assert (found.mean, found.items) == (good / valid, valid)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-5), pytest.approx(high, abs=1e-5))


def test_no_events_have_no_share() -> None:
    with pytest.raises(ValueError, match="no events"):
        stats.share(0, 0)


def test_what_chance_makes_of_psi_shrinks_with_the_samples() -> None:
    assert stats.by_chance(10, 100, 1000, 0.999) == pytest.approx(27.877 * 0.011, rel=1e-3)
    assert stats.by_chance(10, 1000, 10_000, 0.999) < stats.by_chance(10, 100, 1000, 0.999)
