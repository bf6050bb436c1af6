"""C11: the interaction of method and number of problems."""

import math

import pytest
from claims_kit import by_hand, data, fewer_resamples, rows  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrated_sd.experiments.claim_checks.coverage import pairs_by_size, slope_on_log2
from calibrated_sd.experiments.claims import CHECKS
from calibrated_sd.experiments.collect import coverage_of

SIZES = (1, 8, 32, 128)
COVERAGE = {
    method: {n: method if n == 32 else f"{method}_n{n}" for n in SIZES}
    for method in ("policy_gradient", "sdpo", "best")
}


def trained(arm, accuracy, seeds=(0, 1)):
    """Each seed trains on problems of its own."""
    made = []
    for seed in seeds:
        made += rows(arm, 0.5, 4, 50, seed=seed, suites=("heldout", "far"))
        made += [
            {**r, "problem_id": f"{seed}/{r['problem_id']}"}
            for r in rows(arm, accuracy, 4, 50, seed=seed, suites=("train",))
        ]
    return made


def run(sdpo, policy_gradient=(0.5, 0.5, 0.5, 0.5), best=(), more=()):
    accuracies = {"sdpo": sdpo, "policy_gradient": policy_gradient, "best": best}
    arms = [
        trained(arm, accuracy)
        for method, values in accuracies.items()
        for arm, accuracy in zip(COVERAGE[method].values(), values, strict=False)
    ]
    return data(*arms, *more, coverage=COVERAGE)


@pytest.mark.parametrize(
    ("sdpo", "expected"),
    [
        ((0.1, 0.9, 0.7, 0.5), "shown"),
        ((0.9, 0.5, 0.4, 0.3), "not shown"),  # ahead on a single problem only, which decides nothing
        ((0.9, 0.9, 0.9, 0.9), "not shown"),  # ahead everywhere alike
        ((0.9, 0.1, 0.2, 0.1), "contradicted"),
        ((0.1, 0.9), "not run"),  # one size is no slope
    ],
)
def test_all_verdicts(sdpo, expected):
    assert CHECKS["narrow_coverage_pays"](run(sdpo), "best")[1] == expected


def test_differences_and_slope_by_hand():
    # at 8, 32 and 128 problems: +0.4, +0.2, 0 against log2 of 3, 5, 7
    figures, _ = CHECKS["narrow_coverage_pays"](run((0.9, 0.9, 0.7, 0.5), best=(0.5, 0.6, 0.7, 0.8)), "best")
    name = "in_domain_sdpo_minus_policy_gradient"
    assert [by_hand(figures[f"{name}_n{n}"]) for n in SIZES] == [0.4, 0.4, 0.2, 0.0]
    assert by_hand(figures[f"slope_{name}"]) == -0.1
    assert by_hand(figures["slope_in_domain_best_minus_policy_gradient"]) == 0.05
    assert by_hand(figures["slope_ood_sdpo_minus_policy_gradient"]) == 0.0
    assert next(iter(figures)) == f"{name}_n8"  # what decides stands first


def test_a_seed_that_only_one_arm_has_is_left_out():
    more = trained("sdpo_n8", 0.9, seeds=(2,))
    pairs = pairs_by_size(run((0.1, 0.9, 0.7, 0.5), more=[more]), "sdpo", "in_domain")
    assert [sorted(side) for side in pairs[8]] == [[0, 1], [0, 1]]
    assert CHECKS["narrow_coverage_pays"](run((0.1, 0.9, 0.7, 0.5), more=[more]), "best")[1] == "shown"


@settings(max_examples=20, deadline=None)
@given(
    slope=st.floats(-0.2, 0.2),
    offset=st.floats(-0.5, 0.5),
    sizes=st.sets(st.sampled_from([8, 16, 64, 128, 334]), min_size=2),
    n_seeds=st.integers(1, 3),
)
def test_a_straight_line_without_noise_is_found_exactly(slope, offset, sizes, n_seeds):
    questions = [f"q{i}" for i in range(12)]
    base = {s: {q: 0.1 * i for i, q in enumerate(questions)} for s in range(n_seeds)}
    pairs = {
        n: ({s: {q: v + offset + slope * math.log2(n) for q, v in one.items()} for s, one in base.items()}, base)
        for n in sorted(sizes)
    }
    found = slope_on_log2(pairs)
    assert [found[key] for key in ("value", "lo", "hi")] == pytest.approx([slope] * 3, abs=1e-9)


def test_sizes_of_a_manifest():
    arms = [
        {"name": "base"},
        {"name": "sdpo", "n_train_problems": 64, "coverage_of": None},
        {"name": "sdpo_n128", "n_train_problems": 128, "coverage_of": "sdpo"},
        {"name": "sdpo_n8", "n_train_problems": 8, "coverage_of": "sdpo"},
    ]
    assert coverage_of(arms) == {"sdpo": {8: "sdpo_n8", 64: "sdpo", 128: "sdpo_n128"}}
    assert list(coverage_of(arms)["sdpo"]) == [8, 64, 128]
    found = data(*(trained(a, 0.5) for a in ("sdpo", "sdpo_n8")), coverage=coverage_of(arms))
    assert found.coverage_arms == {"sdpo_n8", "sdpo_n128"}
