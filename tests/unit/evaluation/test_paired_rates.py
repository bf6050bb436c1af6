"""Differences of rates between two arms: by hand, and against the test of plain differences."""

from __future__ import annotations

import numpy as np
import pytest

from calibrated_sd.errors import DataError
from calibrated_sd.evaluation import resampling
from calibrated_sd.evaluation.resampling import swap_arms
from calibrated_sd.evaluation.statistics import paired_difference, paired_ratio_difference, statistic_interval


def test_a_difference_of_rates_by_hand():
    """a: 3 of 10 and 1 of 10; b: 1 of 20 and 1 of 5. 1000 (4/20 − 2/25) = 120, not the mean of the questions' rates."""
    shown, p = paired_ratio_difference(
        {"x": [3], "y": [1]}, {"x": [10], "y": [10]}, {"x": [1], "y": [1]}, {"x": [20], "y": [5]}, scale=1000, unit="u"
    )
    assert shown["value"] == pytest.approx(1000 * (4 / 20 - 2 / 25))
    assert (shown["n"], shown["unit"]) == (2, "u")
    # The four exchanges: none and both give ±120; x alone 1000 (2/30 − 4/15) = −200, y alone +200. All are as large.
    assert p == 1.0


def test_the_exchange_of_arms_enumerated_by_hand():
    """Differences 3, 2, 1: |sum| ≥ 6 in 2 of the 8 sign patterns."""
    a, b = np.array([[3.0, 2.0, 1.0]]), np.zeros((1, 3))
    assert swap_arms(a, b, lambda x, y: x - y, 2000, 0) == 2 / 8


@pytest.mark.parametrize("n", [5, 40])  # enumerated, and at random
def test_equal_denominators_give_the_test_of_plain_differences(n):
    rng = np.random.default_rng(3)
    a, b = (dict(enumerate(rng.integers(0, 6, n).tolist())) for _ in range(2))
    ones = dict.fromkeys(range(n), 1)
    rate = paired_ratio_difference(a, ones, b, ones, unit="share", n_resamples=4000)
    plain = paired_difference(a, b, n_resamples=4000)
    assert rate.figure["value"] == pytest.approx(plain.figure["value"])
    assert rate.figure["lo"] == pytest.approx(plain.figure["lo"])
    assert rate.p_value == pytest.approx(plain.p_value, abs=0 if n == 5 else 0.04)


def test_an_arm_against_itself():
    counts, totals = {0: [1, 2], 1: [0, 0], 2: [4, 1]}, {0: [9, 9], 1: [7, 3], 2: [5, 5]}
    shown, p = paired_ratio_difference(counts, totals, counts, totals, unit="u")
    assert (shown["value"], shown["lo"], shown["hi"], p) == (0.0, 0.0, 0.0, 1.0)


def test_seeds_of_the_arms_are_drawn_separately_but_counts_with_their_totals():
    """Within an arm each seed's rate is 1/2 (counts are half the totals), so no draw of seeds can change it."""
    totals = {s: {q: [4 * (s + 1) + q] for q in range(3)} for s in range(3)}
    counts = {s: {q: [v[0] / 2] for q, v in by.items()} for s, by in totals.items()}
    shown, _ = paired_ratio_difference(counts, totals, {0: [1], 1: [1], 2: [1]}, {0: [4], 1: [4], 2: [4]}, unit="u")
    assert shown["value"] == pytest.approx(0.25)
    assert (shown["lo"], shown["hi"]) == (pytest.approx(0.25), pytest.approx(0.25))
    assert shown["method"].endswith("questions and 3 seeds")


def test_other_questions_are_refused():
    with pytest.raises(DataError, match="same questions"):
        paired_ratio_difference({0: 1}, {0: 1}, {1: 1}, {1: 1}, unit="u")
    with pytest.raises(DataError, match="same questions"):
        statistic_interval([{0: 1}, {1: 1}], lambda x, y: x, unit="u")


@pytest.mark.parametrize("n", [8, 40])  # all exchanges, random ones
def test_exchanges_in_blocks_are_the_same_exchanges(n, monkeypatch):
    """Thousands of questions are exchanged block by block, which bounds memory and changes nothing."""
    a, b = np.random.default_rng(1).random((2, 2, n))

    def p_value():
        return swap_arms(a, b, lambda ca, ta, cb, tb: ca / ta - cb / tb, 500, 0)

    whole = p_value()
    monkeypatch.setattr(resampling, "_MAX_CELLS", 3 * n)
    assert p_value() == whole
    assert 0 < whole < 1
