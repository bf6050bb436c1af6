"""Laws of the statistics, on data nobody thought of."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrated_sd.evaluation.metrics import majority_correct, pass_at_k
from calibrated_sd.evaluation.statistics import (
    holm,
    mean_interval,
    paired_difference,
    rate_per_1k_interval,
    ratio_interval,
)

FAST = {"n_resamples": 200}
few = settings(max_examples=40, deadline=None)
# BCa counts the resamples below the estimate, so a rounding error that breaks a tie moves the interval visibly. Numbers
# here are multiples of 1/8, samples come in ones, twos or fours, and scales are powers of two: sums and means are exact.
eighths = st.integers(-40, 40).map(lambda k: k / 8)
positive = st.integers(1, 80).map(lambda k: k / 8)
scales = st.integers(-3, 3).map(lambda k: 2.0**k)
samples = st.sampled_from([1, 2, 4]).flatmap(lambda n: st.lists(eighths, min_size=n, max_size=n))
questions = st.dictionaries(st.integers(0, 50), samples, min_size=2, max_size=12)
probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def ends(figure):
    return [figure["value"], figure["lo"], figure["hi"]]


@few
@given(questions)
def test_an_interval_is_ordered_and_inside_the_data(values):
    shown = mean_interval(values, unit="points", **FAST)
    means = [sum(s) / len(s) for s in values.values()]
    assert min(means) - 1e-9 <= shown["lo"] <= shown["hi"] <= max(means) + 1e-9
    assert shown["value"] == pytest.approx(sum(means) / len(means))


@few
@given(questions, st.randoms())
def test_the_order_of_questions_and_samples_does_not_matter(values, random):
    shuffled = list(values.items())
    random.shuffle(shuffled)
    assert ends(mean_interval(dict(shuffled), **FAST)) == ends(mean_interval(values, **FAST))


@few
@given(questions)
def test_copying_every_sample_is_no_new_evidence(values):
    copies = {q: s * 2 for q, s in values.items()}
    assert ends(mean_interval(copies, **FAST)) == pytest.approx(ends(mean_interval(values, **FAST)))


@few
@given(questions, eighths, scales)
def test_units_of_measurement_do_not_matter(values, shift, scale):
    moved = {q: [scale * x + shift for x in s] for q, s in values.items()}
    before = ends(mean_interval(values, unit="points", **FAST))
    assert ends(mean_interval(moved, unit="points", **FAST)) == pytest.approx([scale * x + shift for x in before])


@few
@given(questions, st.data())
def test_a_difference_changes_sign_with_its_sides(a, data):
    b = {q: data.draw(samples) for q in a}
    forth, back = paired_difference(a, b, **FAST), paired_difference(b, a, **FAST)
    assert ends(back.figure) == pytest.approx([-forth.figure["value"], -forth.figure["hi"], -forth.figure["lo"]])
    assert back.p_value == pytest.approx(forth.p_value)
    assert 0 < forth.p_value <= 1


@few
@given(questions)
def test_an_arm_does_not_differ_from_itself(values):
    same = paired_difference(values, values, **FAST)
    assert ends(same.figure) == [0, 0, 0]
    assert same.p_value == 1


@few
@given(st.lists(st.tuples(positive, positive), min_size=2, max_size=12), scales)
def test_a_ratio_scales_and_a_rate_is_a_thousand_times_it(pairs, scale):
    x, y = [p[0] for p in pairs], [p[1] for p in pairs]
    shown = ratio_interval(x, y, **FAST)
    assert ends(ratio_interval([scale * v for v in x], y, **FAST)) == pytest.approx([scale * v for v in ends(shown)])
    # with one sample per question, a ratio of sums is a ratio of means
    assert ends(rate_per_1k_interval(x, y, **FAST)) == pytest.approx([1000 * v for v in ends(shown)])
    assert min(a / b for a, b in pairs) - 1e-9 <= shown["lo"] <= shown["hi"] <= max(a / b for a, b in pairs) + 1e-9


@few
@given(questions, st.integers(2, 4))
def test_equal_seeds_keep_the_value(values, n_seeds):
    one, many = mean_interval(values, **FAST), mean_interval(dict.fromkeys(range(n_seeds), values), **FAST)
    assert many["value"] == pytest.approx(one["value"])
    assert many["lo"] <= many["hi"]


@given(probabilities)
def test_holm_lies_between_the_p_value_and_bonferroni(p):
    for raw, adjusted in zip(p, holm(p), strict=True):
        assert raw <= adjusted <= min(1, raw * len(p)) or adjusted == pytest.approx(raw)


@given(probabilities, st.randoms())
def test_holm_keeps_the_order_and_follows_its_comparison(p, random):
    adjusted = holm(p)
    for i, j in itertools.combinations(range(len(p)), 2):
        if p[i] < p[j]:
            assert adjusted[i] <= adjusted[j]
    order = list(range(len(p)))
    random.shuffle(order)
    assert holm([p[i] for i in order]) == pytest.approx([adjusted[i] for i in order])


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_all_draws_with_a_right_one(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    right = [True] * c + [False] * (n - c)
    draws = [any(draw) for draw in itertools.combinations(right, k)]
    assert pass_at_k(n, c, k) == pytest.approx(sum(draws) / len(draws))


@given(st.integers(1, 30), st.data())
def test_pass_at_k_grows_from_the_mean_to_any(n, data):
    c = data.draw(st.integers(0, n))
    chances = [pass_at_k(n, c, k) for k in range(1, n + 1)]
    assert chances == sorted(chances)
    assert chances[0] == pytest.approx(c / n)
    assert chances[-1] == float(c > 0)


@given(st.lists(st.tuples(st.sampled_from(["1", "2", "3", None]), st.just(0.0)), max_size=9), st.sampled_from("123"))
def test_the_majority_is_right_as_often_as_its_answers_are(votes, truth):
    answers = [answer for answer, _ in votes]
    chance = majority_correct(answers, [float(a == truth) for a in answers])
    counts = {a: answers.count(a) for a in answers if a is not None}
    top = [a for a, k in counts.items() if k == max(counts.values())]
    assert chance == pytest.approx(top.count(truth) / len(top) if top else 0.0)


@few
@given(st.integers(1, 6), st.integers(0, 2**32))
def test_a_p_value_is_a_number_of_sign_patterns(n, seed):
    d = np.random.default_rng(seed).normal(size=n)
    patterns = [np.dot(s, d) for s in itertools.product((-1, 1), repeat=n)]
    tail = min(np.mean(np.array(patterns) >= d.sum() - 1e-9), np.mean(np.array(patterns) <= d.sum() + 1e-9))
    p = paired_difference(d, np.zeros(n), n_resamples=500).p_value
    assert p == pytest.approx(min(1.0, 2 * tail))
    assert math.isfinite(p)
