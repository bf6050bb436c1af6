"""Equal token budgets and equal lengths: every number from tables that can be added up by hand."""

from __future__ import annotations

import numpy as np
import pytest
from record_kit import record

from calibrated_sd.evaluation.matched_length import (
    accuracy_at_equal_length,
    budget_figures,
    standardised_difference,
    token_budgets,
    wrong_minus_right_at_equal_length,
)
from calibrated_sd.evaluation.metrics import tidy


def test_accuracy_within_a_budget_by_hand():
    rows = [record("a", 0, True, 10), record("a", 1, True, 40), record("b", 0, True, 16), record("b", 1, False, 100)]
    shown = {name: f["value"] for name, f in budget_figures(rows).items()}
    # powers of two below 100, the four largest; a: ½ until 40 tokens fit, b: ½ from 16 on
    assert shown == {
        "accuracy_within@8": 0.0,
        "accuracy_within@16": 0.5,
        "accuracy_within@32": 0.5,
        "accuracy_within@64": 0.75,
    }


def test_budgets_suit_all_runs():
    free = tidy([record("a", 0, True, 1000)])
    cut = tidy([record("a", 0, False, 200, finish_reason="length")])
    assert token_budgets(free) == [64, 128, 256, 512]
    assert token_budgets(free, cut) == [16, 32, 64, 128]  # the second could not write more than 200
    assert token_budgets(tidy([record("a", 0, True, 64)])) == [4, 8, 16, 32]
    assert token_budgets(tidy([])) == []


def test_ungraded_samples_stay_ungraded():
    rows = [record("a", 0, True, 10), record("a", 1, None, 100)]
    assert budget_figures(rows)["accuracy_within@64"]["value"] == 1.0


def test_standardised_difference_by_hand():
    """Two strata. Side 0: 4 and 1 completions, rates 1/2 and 1; side 1: 2 and 3, rates 1 and 1/3.

    Weights min(4, 2) : min(1, 3) = 2 : 1, gaps 1/2 and −2/3, so (2 · 1/2 − 1 · 2/3) / 3 = 1/9.
    """
    sums = [np.array(x, dtype=float) for x in (4, 1, 2, 1, 4, 1, 2, 3, 2, 1, 2, 3)]
    assert standardised_difference(2, 1.0)(*sums) == pytest.approx(1 / 9)


def test_strata_of_one_side_only_do_not_count():
    """Right answers are short, wrong ones short or long. Only the short stratum compares: 50 − 20 per 1k."""
    rows = [record("a", s, True, 100, 2) for s in range(3)]
    rows += [record("b", s, False, 100, 5) for s in range(3)]
    rows += [record("b", 3 + s, False, 1000, 500) for s in range(2)]
    shown = wrong_minus_right_at_equal_length(tidy(rows), "lexical", rng=0)
    assert shown["value"] == pytest.approx(30.0)
    plain = 1000 * (15 + 1000) / 2300 - 20
    assert plain > 400  # what a comparison without matching would say


def test_two_arms_that_differ_in_length_alone():
    """At each length both arms are equally right; the arm with more long answers only looks worse."""

    def arm(n_long):
        rows = []
        for q in "abcd":
            rows += [record(q, s, s % 2 == 0, 10) for s in range(8 - n_long)]
            rows += [record(q, 8 - n_long + s, False, 100) for s in range(n_long)]
        return tidy(rows)

    few, many = arm(2), arm(6)
    assert few["correct"].mean() - many["correct"].mean() == 3 / 8 - 1 / 8
    shown, p = accuracy_at_equal_length(few, many)
    assert (shown["value"], shown["n"]) == (0.0, 4)
    assert p == 1.0
    forward, back = accuracy_at_equal_length(few, arm(0)), accuracy_at_equal_length(arm(0), few)
    assert forward.figure["value"] == -back.figure["value"]
