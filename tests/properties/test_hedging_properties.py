"""Laws of the figures about doubt and of comparisons, over random runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrated_sd.evaluation.hedging import auroc
from calibrated_sd.evaluation.matched_length import standardised_difference
from calibrated_sd.evaluation.resampling import swap_arms

small = st.integers(0, 5)
samples = st.lists(st.tuples(small, st.booleans()), min_size=2, max_size=20)


def columns(pairs):
    return np.array([d for d, _ in pairs], dtype=float), np.array([w for _, w in pairs])


@given(samples)
def test_auroc_of_right_and_of_wrong_add_up_to_one(pairs):
    density, wrong = columns(pairs)
    there, back = auroc(density, wrong), auroc(density, ~wrong)
    if wrong.all() or not wrong.any():
        assert np.isnan(there)
    else:
        assert there + back == pytest.approx(1.0)


@given(samples)
def test_auroc_sees_the_order_only(pairs):
    density, wrong = columns(pairs)
    assert auroc(density, wrong) == pytest.approx(auroc(np.exp(density) + 7, wrong), nan_ok=True)


@given(samples)
def test_auroc_is_the_share_of_pairs(pairs):
    density, wrong = columns(pairs)
    pairs_won = [(a > b) + 0.5 * (a == b) for a in density[wrong] for b in density[~wrong]]
    expected = np.mean(pairs_won) if pairs_won else np.nan
    assert auroc(density, wrong) == pytest.approx(expected, nan_ok=True)


strata = st.lists(st.tuples(*[st.integers(1, 9)] * 6), min_size=1, max_size=4)


@given(strata)
def test_matched_difference_changes_sign_with_its_sides_and_lies_between_the_strata(rows):
    sums = np.array(rows, dtype=float).T  # count, above, below of side 0, then of side 1, by stratum
    forward = standardised_difference(len(rows), 1.0)(*sums.reshape(-1))
    back = standardised_difference(len(rows), 1.0)(*np.concatenate([sums[3:], sums[:3]]).reshape(-1))
    assert forward == pytest.approx(-back)
    gaps = sums[4] / sums[5] - sums[1] / sums[2]
    assert gaps.min() - 1e-9 <= forward <= gaps.max() + 1e-9


@settings(max_examples=40)
@given(st.lists(st.tuples(small, small), min_size=2, max_size=8))
def test_exchanging_the_arms_keeps_the_p_value(pairs):
    a, b = np.array(pairs, dtype=float).T[:, None, :]
    there = swap_arms(a, b, lambda x, y: x - y, 300, 0)
    assert there == swap_arms(b, a, lambda x, y: x - y, 300, 0)
    assert 0 < there <= 1
