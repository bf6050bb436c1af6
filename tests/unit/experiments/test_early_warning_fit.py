"""Thresholds are chosen on the first half of the arms by the declared rule, and reported on the second."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warning_kit import COLLAPSE, FALL, FLAT, NO_COLLAPSE, case, log

from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.experiments.early_warning import Settings, judge
from calibrated_sd.experiments.early_warning_fit import FIRST, GRID, SECOND, choose, fit, half_of, with_low
from calibrated_sd.trainers.monitoring.collapse_detector import SIGNALS, Signal

NAMES = [f"arm{i}" for i in range(40)]
FIRST_ARMS = [name for name in NAMES if hashlib.sha256(name.encode()).hexdigest()[-1] in "02468ace"]
SECOND_ARMS = [name for name in NAMES if name not in FIRST_ARMS]
TWO = Settings({name: SIGNALS[name] for name in ("density", "length")})
ONE = TWO.only("density")


def step_to(share):
    """Falls from 10 to this share of it after the third log and stays there."""
    return [10.0] * 3 + [10.0 * share] * 7


def test_the_halves_are_those_of_the_hash():
    assert 10 < len(FIRST_ARMS) < 30
    assert all(half_of(name) == FIRST for name in FIRST_ARMS)
    assert all(half_of(name) == SECOND for name in SECOND_ARMS)


def test_a_threshold_by_hand():
    """Collapses end at 0.65 of the baseline and others at 0.85. Lows 0.7 and 0.8 part them. Unsmoothed, without patience and
    with a baseline of one log, both fire at step 4; the lower is the less sensitive. But a baseline of three logs is
    the longest that can fire at step 4, so it stays."""
    cases = [case("x", 0, log(density=step_to(0.65)), COLLAPSE), case("y", 0, log(density=step_to(0.85)), NO_COLLAPSE)]
    chosen = choose(cases, ONE)
    assert (chosen.baseline, chosen.smoothing, chosen.patience) == (3, 0.0, 1)
    assert chosen.signals == {"density": Signal(("epistemic/per_1k",), low=0.7, high=0.9)}


def test_smoothing_and_patience_stay_where_they_cost_nothing():
    """At 0 of the baseline: smoothing 0.3 is at 0.3 at once, under 0.4; at 0.5 it is 0.5, so a low of 0.6 is needed. A sum
    of lows that is smaller counts first; then more smoothing would."""
    cases = [case("x", 0, log(density=step_to(0.0)), COLLAPSE), case("y", 0, log(density=step_to(1.0)), NO_COLLAPSE)]
    chosen = choose(cases, ONE)
    assert (chosen.baseline, chosen.smoothing, chosen.patience) == (3, 0.3, 1)
    assert chosen.signals["density"].low == 0.4


def test_a_signal_that_only_disturbs_is_not_watched():
    noisy = step_to(0.1)
    cases = [
        case("x", 0, log(density=step_to(0.2), length=step_to(1.0)), COLLAPSE),
        case("y", 0, log(density=step_to(1.0), length=noisy), NO_COLLAPSE),
        case("z", 0, log(density=step_to(1.0), length=noisy[::-1]), NO_COLLAPSE),
    ]
    chosen = choose(cases, TWO)
    assert list(chosen.signals) == ["density"]
    assert chosen.as_dict()["signals"]["length"] is None
    assert not any(judge(one, chosen)["alarm"] for one in cases[1:])


def test_signals_that_nobody_logs_stay_as_given():
    cases = [case("x", 0, log(density=FALL), COLLAPSE), case("y", 0, log(density=FLAT), NO_COLLAPSE)]
    chosen = choose(cases, Settings())
    assert {name: s for name, s in chosen.signals.items() if name != "density"} == {
        name: s for name, s in SIGNALS.items() if name != "density"
    }


SMALL = {"low": (None, 0.5, 0.8), "baseline": (2, 1), "smoothing": (0.5, 0.0), "patience": (2, 1)}
logs_of_one = st.lists(
    st.tuples(st.sampled_from([0.0, 4.0, 7.0, 10.0]), st.sampled_from([2.0, 6.0, 10.0])), min_size=5, max_size=5
)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(logs_of_one, st.booleans()), min_size=1, max_size=3), logs_of_one, logs_of_one)
def test_it_is_the_best_of_all(others, collapsing, fine):
    """By trying every setting one by one, with the rule written out again."""
    rows = [(collapsing, True), (fine, False), *others]
    cases = [
        case(
            f"x{i}", i, log(density=[a for a, _ in values], length=[b for _, b in values]), {4: 10, 5: 2 if bad else 10}
        )
        for i, (values, bad) in enumerate(rows)
    ]

    def rank(setting):
        alarms = [judge(one, setting)["alarm"] for one in cases]
        hits = [a for a, one in zip(alarms, cases, strict=True) if a is not None and one.outcome.collapsed]
        false_alarms = sum(a is not None for a in alarms) - len(hits)
        mean = sum(hits) / len(hits) if hits else float("inf")
        lows = round(sum(signal.low for signal in setting.signals.values()), 6)
        return (false_alarms - len(hits), mean, lows, -setting.patience, -setting.smoothing, -setting.baseline)

    every = [
        Settings({n: with_low(TWO.signals[n], low) for n, low in zip(TWO.signals, lows, strict=True) if low}, b, s, p)
        for lows in product(SMALL["low"], repeat=2)
        for b, s, p in product(SMALL["baseline"], SMALL["smoothing"], SMALL["patience"])
    ]
    chosen = choose(cases, TWO, SMALL)
    assert rank(chosen) == min(rank(setting) for setting in every)
    assert chosen in every
    assert choose(cases[::-1], TWO, SMALL) == chosen  # the order of the runs decides no tie


# ---- the two halves ------------------------------------------------------------------------------------------------


def study(second=(0.65, 0.85)):
    """Two arms of two seeds in each half; `second` are the shares at which those of the second half end."""
    arms = [*zip(FIRST_ARMS, (0.65, 0.85), strict=False), *zip(SECOND_ARMS, second, strict=False)]
    return [
        case(arm, seed, log(density=step_to(share - seed / 100)), NO_COLLAPSE if i % 2 else COLLAPSE)
        for i, (arm, share) in enumerate(arms)
        for seed in (0, 1)
    ]


def test_the_second_half_is_reported_and_not_looked_at():
    found = fit(study(), ONE, n_resamples=100)
    summary = found["chosen"]["summary"]
    assert (summary["n_runs"], summary["n_hits"], summary["n_false_alarms"]) == (4, 2, 0)
    assert found["verdict"] == "holds"
    assert found["defaults"]["summary"]["n_hits"] == 0  # 0.65 is not below 0.5
    assert found["defaults"]["summary"]["n_runs"] == 4
    assert found["halves"] == {
        "first": {"arms": FIRST_ARMS[:2], "n_runs": 4, "n_collapsing": 2},
        "second": {"arms": sorted(SECOND_ARMS[:2]), "n_runs": 4, "n_collapsing": 2},
    }
    other = fit(study((0.95, 0.3)), ONE, n_resamples=100)
    assert other["settings"] == found["settings"]
    assert other["verdict"] == "fails"
    assert (other["chosen"]["summary"]["n_hits"], other["chosen"]["summary"]["n_false_alarms"]) == (0, 2)


def test_each_signal_alone_is_chosen_for_itself():
    """Length says nothing: alone it is best not watched at all, which hits nothing."""
    cases = [
        replace(one, run=replace(one.run, logs=[{**line, "completions/mean_length": 9.0} for line in one.run.logs]))
        for one in study()
    ]
    found = fit(cases, TWO, n_resamples=100)
    assert {name: row["summary"]["n_hits"] for name, row in found["alone"].items()} == {"density": 2, "length": 0}
    assert found["alone"]["length"]["settings"]["signals"]["length"] is None


def test_what_cannot_be_fitted_is_said():
    cases = study()
    with pytest.raises(DataError, match="second half of the arms is empty"):
        fit(cases[:4], ONE)
    with pytest.raises(DataError, match="of the 2 runs of the first half of the arms, 2 collapse"):
        fit([one for one in cases if one.run.arm != FIRST_ARMS[1]], ONE)
    seven = {f"s{i}": Signal((f"s{i}",)) for i in range(7)}
    many = [
        case("x", i, log(**{name: FALL for name in seven}), right) for i, right in enumerate((COLLAPSE, NO_COLLAPSE))
    ]
    with pytest.raises(ConfigError, match="can do so for 6 signals, but 7 are"):
        choose(many, Settings(seven))


def test_the_grid_is_of_valid_settings():
    for low, signal in product(GRID["low"][1:], SIGNALS.values()):
        fitted = with_low(signal, low)
        assert fitted.low == low <= fitted.high <= 1
