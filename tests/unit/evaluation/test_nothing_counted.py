"""Where no event was seen, an interval must not say that there are none."""

import math

import pytest

from calibrated_sd.evaluation.statistics import mean_interval, rate_per_1k_interval, ratio_of_sums_interval

QUESTIONS = range(4)
NONE = {q: [0, 0] for q in QUESTIONS}


def test_a_rate_without_events_ends_at_the_poisson_bound():
    """4 questions × 2 samples × 125 tokens = 1000 tokens: −ln(0.025) = 3.689 events at most, 3.689 per 1k."""
    shown = rate_per_1k_interval(NONE, {q: [125, 125] for q in QUESTIONS})
    assert (shown["value"], shown["lo"]) == (0.0, 0.0)
    assert shown["hi"] == pytest.approx(-math.log(0.025))
    assert shown["hi"] == pytest.approx(3.689, abs=1e-3)
    assert "no event" in shown["method"]


def test_more_tokens_and_seeds_lower_the_bound():
    seeds = {seed: {q: [125, 125] for q in QUESTIONS} for seed in (0, 1)}
    shown = rate_per_1k_interval(dict.fromkeys((0, 1), NONE), seeds)
    assert shown["hi"] == pytest.approx(3.689 / 2, abs=1e-3)
    assert "4" not in shown["method"].partition(";")[0]
    assert "2 seeds" in shown["method"]


def test_a_count_per_response_takes_each_question_as_one_response():
    assert mean_interval(NONE, unit="per response")["hi"] == pytest.approx(3.689 / 4, abs=1e-3)
    assert mean_interval({**NONE, 0: [0, 1]}, unit="per response")["method"].count("bootstrap") == 1


@pytest.mark.parametrize(("right", "value"), [(0, 0.0), (1, 1.0)])
def test_a_share_of_sums_that_is_always_the_same_gets_wilsons_interval(right, value):
    """As 0 (or 4) of 4: Wilson's other end is z² / (n + z²) = 3.8415 / 7.8415 from it."""
    shown = ratio_of_sums_interval({q: [right] for q in QUESTIONS}, {q: [1] for q in QUESTIONS})
    assert shown["value"] == value
    assert abs(shown["hi"] - shown["lo"]) == pytest.approx(3.8415 / 7.8415, abs=1e-4)


def test_questions_without_a_finished_answer_do_not_count():
    shown = ratio_of_sums_interval({q: [0] for q in QUESTIONS}, {0: [1], 1: [1], 2: [0], 3: [0]})
    assert shown["hi"] == pytest.approx(3.8415 / 5.8415, abs=1e-4)


def test_one_question_still_has_no_interval():
    assert rate_per_1k_interval({0: [0]}, {0: [50]})["hi"] is None


def test_nothing_finished_still_has_no_value():
    assert ratio_of_sums_interval(NONE, NONE)["value"] is None


@pytest.mark.parametrize("value", [0, 1])
def test_an_auroc_is_no_rate_and_ends_at_1(value):
    """Two of four questions have pairs, three each: Wilson's interval for two."""
    pairs = {0: [3], 1: [3], 2: [0], 3: [0]}
    shown = ratio_of_sums_interval({q: [value * n for n in of] for q, of in pairs.items()}, pairs, unit="AUROC")
    assert (shown["value"], shown["n"], shown["unit"]) == (value, 2, "AUROC")
    assert (shown["lo"], shown["hi"]) == pytest.approx((0, 0.6576) if value == 0 else (1 - 0.6576, 1), abs=1e-4)


def test_a_share_that_stands_on_one_question_has_no_interval():
    shown = ratio_of_sums_interval({0: [1], 1: [0], 2: [0]}, {0: [3], 1: [0], 2: [0]})
    assert (shown["value"], shown["lo"], shown["hi"], shown["n"]) == (pytest.approx(1 / 3), None, None, 1)
