"""Statistics: point estimates and exact tests by hand; intervals by their defining behaviour."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest

from calibrated_sd.errors import DataError
from calibrated_sd.evaluation.statistics import (
    holm,
    interval_scope,
    mean_interval,
    paired_difference,
    rate_per_1k_interval,
    ratio_interval,
    ratio_of_sums_interval,
)


def width(figure):
    return figure["hi"] - figure["lo"]


def scores(n_questions=60, n_samples=8, seed=0):
    """Right answers (0/1) of questions that differ much in difficulty."""
    rng = np.random.default_rng(seed)
    difficulty = rng.beta(0.5, 0.5, n_questions)
    return {f"q{i}": rng.binomial(1, p, n_samples).tolist() for i, p in enumerate(difficulty)}


class TestValues:
    def test_a_question_counts_once_however_many_samples_it_has(self):
        # a: 1/2, b: 1. Mean over questions (1/2 + 1) / 2 = 3/4; over samples it would be 2/3.
        shown = mean_interval({"a": [1, 0], "b": [1]})
        assert shown["value"] == 0.75
        assert (shown["n"], shown["unit"]) == (2, "share")

    def test_difference(self):
        # a − b: (1/2 − 0) and (1 − 1/2): mean 1/2
        assert paired_difference({"x": [1, 0], "y": [1]}, {"x": [0], "y": [1, 0]}).figure["value"] == 0.5

    def test_ratio_of_means_is_not_the_mean_of_ratios(self):
        # (1 + 9) / (1 + 3) = 2.5, while the mean of 1/1 and 9/3 is 2
        assert ratio_interval([1, 9], [1, 3])["value"] == 2.5

    def test_rate_per_1k_is_a_ratio_of_sums(self):
        # markers 1 + 2 + 0 = 3 in 100 + 200 + 100 = 400 tokens: 7.5 per 1k (mean of the three rates: 6.67)
        shown = rate_per_1k_interval({"a": [1, 2], "b": [0]}, {"a": [100, 200], "b": [100]})
        assert shown["value"] == 7.5
        assert shown["unit"] == "per 1k tokens"

    def test_missing_samples_are_left_out(self):
        assert mean_interval({"a": [1, None], "b": [0, float("nan")], "c": [None]})["value"] == 0.5
        assert mean_interval({"a": [1, None], "b": [0], "c": [None]})["n"] == 2

    def test_seeds_are_averaged(self):
        # seed 0: (1 + 0)/2, seed 1: (1 + 1)/2, together 3/4
        assert mean_interval({0: {"a": [1], "b": [0]}, 1: {"a": [1], "b": [1]}})["value"] == 0.75
        # a question missing under one seed: cells 1, 0, 1 → 2/3
        assert mean_interval({0: {"a": [1], "b": [0]}, 1: {"a": [1]}})["value"] == pytest.approx(2 / 3)


class TestIntervals:
    def test_width_is_the_normal_one_for_many_questions(self):
        x = np.random.default_rng(1).normal(5, 2, 400)
        shown = mean_interval(x, unit="tokens")
        # 2 · 1.96 · s / √n, and resampling noise of a few percent
        assert width(shown) == pytest.approx(2 * 1.96 * x.std(ddof=1) / 20, rel=0.08)
        assert shown["lo"] < x.mean() < shown["hi"]
        assert width(mean_interval(x, unit="tokens", confidence=0.5)) == pytest.approx(
            2 * 0.6745 * x.std(ddof=1) / 20, rel=0.08
        )

    def test_the_seed_of_the_resampling_matters_and_repeats(self):
        x = scores()
        assert mean_interval(x, rng=3) == mean_interval(x, rng=3)
        assert mean_interval(x, rng=3)["lo"] != mean_interval(x, rng=4)["lo"]
        y = scores(seed=1)
        assert paired_difference(x, y, rng=3) == paired_difference(x, y, rng=3)
        assert paired_difference(x, y, rng=3).figure["lo"] != paired_difference(x, y, rng=4).figure["lo"]
        assert mean_interval({0: x, 1: y}, rng=3) == mean_interval({0: x, 1: y}, rng=3)
        assert mean_interval({0: x, 1: y}, rng=3)["lo"] != mean_interval({0: x, 1: y}, rng=4)["lo"]

    def test_nobody_elses_random_state_matters(self):
        x = scores()
        np.random.seed(1)
        first = mean_interval(x)
        np.random.seed(2)
        assert mean_interval(x) == first

    def test_samples_within_a_question_are_not_independent_evidence(self):
        x = scores()
        assert mean_interval({q: s * 16 for q, s in x.items()}) == mean_interval(x)

    def test_pairing_removes_what_the_arms_share(self):
        b = {q: np.mean(s) for q, s in scores().items()}
        rng = np.random.default_rng(2)
        a = {q: v + 0.1 + rng.normal(0, 0.02) for q, v in b.items()}
        shown = paired_difference(a, b).figure
        assert 0.09 < shown["lo"] < shown["hi"] < 0.11
        assert width(shown) < width(mean_interval(b)) / 5
        # and the ratio too: a / b with b varying 0…1 is known to a few percent
        assert width(ratio_interval(a, b)) < 0.1

    def test_method_states_what_was_done(self):
        method = paired_difference(scores(), scores(seed=1)).figure["method"]
        assert method == "95% paired BCa bootstrap, 2000 resamples; covers questions only, 1 seed"


class TestSignFlip:
    def test_all_three_differences_positive(self):
        # 2³ sign patterns; the observed mean and its mirror image are the two most extreme: 2/8
        assert paired_difference([1, 2, 3], [0, 0, 0]).p_value == 0.25

    def test_no_difference_in_the_mean(self):
        assert paired_difference([1, 0], [0, 1]).p_value == 1.0

    def test_five_of_five(self):
        # 2/32
        assert paired_difference([1] * 5, [0] * 5).p_value == 0.0625

    def test_many_questions(self):
        b = {q: np.mean(s) for q, s in scores(100).items()}
        rng = np.random.default_rng(2)
        clear = paired_difference({q: v + 0.05 + rng.normal(0, 0.05) for q, v in b.items()}, b)
        none = paired_difference({q: v + rng.normal(0, 0.05) for q, v in b.items()}, b)
        assert clear.p_value < 0.002
        assert none.p_value > 0.02


class TestDegenerate:
    @pytest.fixture(autouse=True)
    def no_warnings(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield

    @pytest.mark.parametrize("empty", [[], {}, {"a": []}, {"a": [None]}, {0: {}, 1: {}}])
    def test_nothing(self, empty):
        for shown in (mean_interval(empty), ratio_interval(empty, empty), paired_difference(empty, empty).figure):
            assert (shown["value"], shown["lo"], shown["hi"], shown["n"]) == (None, None, None, 0)
        assert paired_difference(empty, empty).p_value is None

    def test_one_question(self):
        shown = mean_interval({"a": [1, 0, 0, 0]})
        assert (shown["value"], shown["lo"], shown["hi"], shown["n"]) == (0.25, None, None, 1)
        assert "no interval" in shown["method"]
        assert paired_difference([1], [0]) == (
            {**shown, "value": 1.0},
            1.0,
        )

    def test_all_equal(self):
        shown = mean_interval([0.5] * 8)
        assert (shown["value"], shown["lo"], shown["hi"]) == (0.5, 0.5, 0.5)
        same = paired_difference([0.5, 1.0], [0.5, 1.0])
        assert (same.figure["value"], same.figure["lo"], same.figure["hi"], same.p_value) == (0, 0, 0, 1.0)

    @pytest.mark.parametrize("value", [0, 1])
    def test_all_right_is_not_certainty(self, value):
        shown = mean_interval([value] * 3)
        # Wilson for 3 of 3: lower end n / (n + z²) = 3 / (3 + 1.95996²) = 0.43850
        ends = (0.43850, 1.0) if value == 1 else (0.0, 1 - 0.43850)
        assert (shown["lo"], shown["hi"]) == pytest.approx(ends, abs=1e-5)
        assert "Wilson" in shown["method"]
        # other units have no upper end to be uncertain about
        assert mean_interval([value] * 3, unit="tokens")["lo"] == value

    def test_two_questions(self):
        shown = mean_interval([0.0, 1.0])
        assert (shown["value"], shown["lo"], shown["hi"]) == (0.5, 0.0, 1.0)

    def test_zero_denominators(self):
        shown = ratio_interval([1, 2, 3], [0, 0, 0])
        assert (shown["value"], shown["lo"], shown["hi"]) == (None, None, None)
        assert "denominator" in shown["method"]
        # 6/1, but a resample without the third question has no finite ratio: no upper end
        shown = ratio_interval([1, 2, 3], [0, 0, 1])
        assert (shown["value"], shown["hi"]) == (6.0, None)
        assert shown["lo"] is not None
        # accuracy among finished answers when one question never finished
        assert ratio_of_sums_interval({"a": [1, 0], "b": [0, 0]}, {"a": [1, 1], "b": [0, 0]})["value"] == 0.5


class TestSeeds:
    def test_scope(self):
        assert interval_scope(200) == "questions only, 1 seed"
        assert interval_scope(200, 3) == "questions and 3 seeds"
        assert interval_scope(1, 3) == "3 seeds only, 1 question"
        assert mean_interval({0: scores()})["method"].endswith("covers questions only, 1 seed")
        assert mean_interval({0: scores(), 1: scores(seed=1)})["method"].endswith("covers questions and 2 seeds")

    def test_one_seed_in_a_dict_is_one_seed(self):
        assert mean_interval({7: scores()}) == mean_interval(scores())

    def test_copies_of_one_run_are_no_new_evidence(self):
        # Crossed resampling: the questions are the same for all seeds, so ten copies are as uncertain as one.
        # (Nested resampling would make the interval √10 times too narrow.)
        one, ten = mean_interval(scores()), mean_interval(dict.fromkeys(range(10), scores()))
        assert ten["value"] == pytest.approx(one["value"])
        assert width(ten) == pytest.approx(width(one), rel=0.1)

    def test_seeds_that_disagree_widen_the_interval(self):
        base = {q: np.mean(s) for q, s in scores(200).items()}
        spread = {s: {q: v + d for q, v in base.items()} for s, d in enumerate((-0.1, 0.0, 0.1))}
        shown = paired_difference(spread, base).figure
        assert shown["value"] == pytest.approx(0, abs=1e-12)
        # Every question agrees within a seed, so only the seed means −.1, 0, .1 vary. Of the 27 draws of three seeds
        # one gives −.1 (3.7 % > 2.5 %), one +.1: the interval is [−.1, .1].
        assert (shown["lo"], shown["hi"]) == pytest.approx((-0.1, 0.1))
        assert paired_difference(spread[1], base).figure["hi"] == pytest.approx(0)

    def test_arms_may_have_different_numbers_of_seeds(self):
        arm = {s: scores(seed=s) for s in range(3)}
        shown = paired_difference(arm, scores(seed=9))
        assert shown.figure["method"].endswith("questions and 3 seeds")
        assert 0 <= shown.p_value <= 1


def test_different_questions_cannot_be_paired():
    with pytest.raises(DataError, match=r"1 occur only on the left and 2 only on the right \(e\.g\. 'a', 'c', 'd'\)"):
        paired_difference({"a": [1], "b": [1]}, {"b": [1], "c": [0], "d": [0]})


class TestHolm:
    def test_by_hand(self):
        # sorted .005 .01 .03 .04; times 4 3 2 1: .02 .03 .06 .04; never decreasing: .02 .03 .06 .06
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_at_most_one_and_keys_kept(self):
        assert holm({"x": 0.6, "y": 0.9}) == {"x": 1.0, "y": 1.0}
        assert holm([]) == []
        assert holm([0.03]) == [0.03]

    @pytest.mark.parametrize("bad", [[0.1, 1.2], [-0.1], [float("nan")]])
    def test_what_is_no_p_value(self, bad):
        with pytest.raises(DataError, match="p-values lie between 0 and 1"):
            holm(bad)


def quickest(call, times):
    """The best of several, in time of this process's own."""
    took = []
    for _ in range(times):
        since = time.process_time()
        call()
        took.append(time.process_time() - since)
    return min(took)


def test_two_hundred_questions_take_well_under_50_ms():
    """On a machine that others use, too: as long as 60 passes over the resamples take there (0.8 ms each on a free one)."""
    rng = np.random.default_rng(0)
    table, drawn = rng.random((2000, 200)), rng.integers(200, size=(2000, 200))
    one_pass = quickest(lambda: np.take_along_axis(table, drawn, axis=1).sum(axis=1), 20)
    a, b = scores(200, 16), scores(200, 16, seed=1)
    seeds = {s: scores(200, 16, seed=s) for s in range(3)}
    for call in (lambda: mean_interval(a), lambda: paired_difference(a, b), lambda: paired_difference(seeds, b)):
        assert quickest(call, 10) < max(0.05, 60 * one_pass)


def test_coverage_is_near_nominal():
    """95 % intervals hold the truth about 95 % of the time (docs/explanation/statistics.md has the long table)."""
    from coverage_study import coverage_of_difference, coverage_of_mean

    # 300 trials: ± 2.5 points is two standard errors
    assert 0.91 <= coverage_of_mean(n_questions=40, n_seeds=1, seed_sd=0.0, trials=300).share <= 0.98
    assert 0.91 <= coverage_of_difference(n_questions=40, n_seeds=1, seed_sd=0.0, trials=300).share <= 0.98
    assert coverage_of_difference(n_questions=40, n_seeds=3, seed_sd=0.02, trials=300).share >= 0.88
