"""Calibration of hedging: gaps and AUROC counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from record_kit import record

from calibrated_sd.evaluation.hedging import auroc, hedging_figures


@pytest.fixture
def records():
    """Densities per 1k. a: right 10, 30; wrong 40. b: right 20; wrong 20, 60. c: all right, 0."""
    return [
        record("a", 0, True, 100, 1),
        record("a", 1, True, 100, 3),
        record("a", 2, False, 100, 4),
        record("b", 0, True, 100, 2),
        record("b", 1, False, 100, 2),
        record("b", 2, False, 50, 3),
        record("c", 0, True, 100, 0),
        record("c", 1, True, 100, 0),
        record("c", 2, None, 100, 9),  # not graded
    ]


def test_by_hand(records):
    shown = hedging_figures(records)
    gap = shown["lexical_wrong_minus_right"]
    # a: 40 − 20 = 20, b: 40 − 20 = 20; c was never wrong and says nothing
    assert (gap["value"], gap["n"], gap["unit"]) == (20.0, 2, "per 1k tokens")
    assert shown["legacy_wrong_minus_right"]["value"] == 40.0
    # within: a 40 > 10, 30: 2 of 2; b 20 = 20: ½, 60 > 20: 1, of 2. (2 + 1.5) / 4
    assert shown["lexical_auroc_within"]["value"] == pytest.approx(3.5 / 4)
    # pooled: right 10 30 20 0 0; wrong 40: 5, 20: 3 + ½ (10 0 0 | 20), 60: 5, of 15
    assert shown["lexical_auroc"]["value"] == pytest.approx(13.5 / 15)
    assert shown["held_out_auroc"]["value"] == 0.5  # no marker at all tells nothing
    assert shown["lexical_auroc"]["n"] == 3


def test_auroc_alone():
    assert auroc(np.array([1.0, 2.0, 3.0]), np.array([False, False, True])) == 1.0
    assert auroc(np.array([1.0, 2.0, 3.0]), np.array([True, False, False])) == 0.0
    assert np.isnan(auroc(np.array([1.0]), np.array([True])))


def test_the_resampled_auroc_is_that_of_the_drawn_questions():
    """Two questions, each right once and wrong once: a draw holds aa, ab or bb, with AUROC 1, ½ and 0."""
    rows = [record("a", 0, True, 100, 0), record("a", 1, False, 100, 1)]
    rows += [record("b", 0, True, 100, 3), record("b", 1, False, 100, 2)]
    shown = hedging_figures(rows, n_resamples=500)["lexical_auroc"]
    # wrong 1: over right 0 only; wrong 2: over right 0 only. 2 of 4
    assert shown["value"] == 0.5
    assert (shown["lo"], shown["hi"]) == (0.0, 1.0)  # bb: the wrong 2 is below the right 3; aa: above
    assert "questions only, 1 seed" in shown["method"]


def test_seeds_are_resampled_too():
    rows = [record("a", s, s % 2 == 0, 100, s, seed=seed) for seed in (0, 1) for s in range(4)]
    rows += [record("b", s, s % 2 == 0, 100, 3 - s, seed=seed) for seed in (0, 1) for s in range(4)]
    for name in ("lexical_auroc", "lexical_auroc_within", "lexical_wrong_minus_right"):
        assert hedging_figures(rows)[name]["method"].endswith("questions and 2 seeds")


def test_hard_questions_make_the_pooled_figure_look_skilled():
    """Doubt follows the question alone: within a question it tells nothing, across questions it seems to."""
    rows = [record("easy", s, s > 0, 100, 1) for s in range(4)]
    rows += [record("hard", s, s == 0, 100, 5) for s in range(4)]
    shown = hedging_figures(rows)
    assert shown["lexical_wrong_minus_right"]["value"] == 0.0
    assert shown["lexical_auroc_within"]["value"] == 0.5
    # wrong: 1 at 10, 3 at 50; right: 3 at 10, 1 at 50. 10 vs (3 ties): 1.5; each 50: 3 + ½. Of 16
    assert shown["lexical_auroc"]["value"] == pytest.approx((1.5 + 3 * 3.5) / 16)


def test_without_grades_or_without_errors_there_is_no_value(records):
    for rows in ([{**r, "correct": None} for r in records], [{**r, "correct": True} for r in records]):
        shown = hedging_figures(rows)
        assert len(shown) == 12
        assert all(f["value"] is None for f in shown.values())
