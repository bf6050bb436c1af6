"""The alarm comes at the step that arithmetic says, and obeys its laws on any trajectory."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrated_sd.trainers.callbacks import CollapseMonitor
from calibrated_sd.trainers.monitoring.collapse_detector import SIGNALS, CollapseDetector, Signal
from collapse_kit import DENSITY, FALL, ONLY_DENSITY, lines, play

# ---- when --------------------------------------------------------------------------------------------------------


def test_a_collapse_by_hand():
    alarms = CollapseMonitor.replay(lines(FALL), signals=ONLY_DENSITY, baseline=3, smoothing=0.5, patience=2)
    (alarm,) = alarms
    assert (alarm.step, alarm.signal) == (7, "density")
    assert alarm.value == pytest.approx(2.75)
    assert alarm.baseline == 10.0
    assert alarm.threshold == 5.0
    assert "Step 7: density (epistemic/per_1k) has fallen to 2.75" in alarm.message
    assert "\n" not in alarm.message


@pytest.mark.parametrize(("patience", "step"), [(1, 6), (2, 7), (3, 8), (4, None)])
def test_patience_by_hand(patience, step):
    alarms = CollapseMonitor.replay(lines(FALL), signals=ONLY_DENSITY, patience=patience)
    assert [alarm.step for alarm in alarms] == ([] if step is None else [step])


@pytest.mark.parametrize(("smoothing", "step"), [(0.0, 5), (0.5, 6), (0.75, 8)])
def test_smoothing_by_hand(smoothing, step):
    # 0.75: 1.0, 0.85, 0.6875, 0.540625, 0.43046875
    alarms = CollapseMonitor.replay(lines(FALL), signals=ONLY_DENSITY, smoothing=smoothing, patience=1)
    assert [alarm.step for alarm in alarms] == [step]


def test_a_share_that_rises():
    """Truncated from 0.2 to 0.9: finished from 0.8 to 0.1, alarm below half of 0.8, that is above 0.6 truncated."""
    history = [{"step": s, "loss": 0.0, "completions/clipped_ratio": v} for s, v in enumerate([0.2, 0.2, 0.5, 0.9], 1)]
    changes = {**dict.fromkeys(SIGNALS), "truncated": SIGNALS["truncated"]}
    (alarm,) = CollapseMonitor.replay(history, signals=changes, baseline=2, smoothing=0.0, patience=1)
    assert alarm.step == 4
    assert (alarm.value, alarm.baseline, alarm.threshold) == pytest.approx((0.9, 0.2, 0.6))
    assert "risen" in alarm.message


def test_the_alarm_ends_above_the_upper_threshold_and_may_come_again():
    values = [10, 10, 10, 4, 6, 6.9, 7, 6, 4]
    monitor = CollapseMonitor(signals=ONLY_DENSITY, smoothing=0.0, patience=1)
    with pytest.warns(UserWarning, match="density"):
        seen = play(monitor, lines(values))
    assert [logs["monitor/alarm"] for logs in seen] == [0, 0, 0, 1, 1, 1, 0, 0, 1]
    assert [alarm.step for alarm in monitor.alarms] == [4, 9]


def test_nothing_to_lose_is_no_alarm():
    assert CollapseMonitor.replay(lines([0, 0, 0, 0, 0, 0]), signals=ONLY_DENSITY) == []


def test_the_first_name_that_is_found_stays():
    """TRL's entropy and ours differ; a log without ours must not be compared with a baseline of ours."""
    history = [{"step": s, "loss": 0.0, "monitor/entropy": 2.0, "entropy": 0.5} for s in (1, 2)]
    history += [{"step": s, "loss": 0.0, "entropy": 0.5} for s in (3, 4, 5)]
    changes = {**dict.fromkeys(SIGNALS), "entropy": SIGNALS["entropy"]}
    assert CollapseMonitor.replay(history, signals=changes, baseline=2, smoothing=0.0, patience=1) == []


def test_numbers_that_say_nothing_are_skipped():
    history = lines([10, None, float("nan"), 10, 10, float("nan"), 1, None])
    (alarm,) = CollapseMonitor.replay(history, signals=ONLY_DENSITY, smoothing=0.0, patience=1)
    assert (alarm.step, alarm.baseline) == (7, 10.0)


def test_evaluations_and_the_summary_are_not_read():
    history = lines([10, 10, 10, 1, 1])
    noise = [{"step": 3, "eval_loss": 1.0, "epistemic/per_1k": 0.0}, {"step": 5, "train_loss": 1.0}]
    expected = CollapseMonitor.replay(history, signals=ONLY_DENSITY)
    assert CollapseMonitor.replay([*history[:3], noise[0], *history[3:], noise[1]], signals=ONLY_DENSITY) == expected
    seen = play(CollapseMonitor(signals=ONLY_DENSITY), noise)
    assert all("monitor/alarm" not in logs for logs in seen)


# ---- laws --------------------------------------------------------------------------------------------------------

numbers = st.floats(0.0, 30.0, allow_nan=False)
trajectories = st.lists(numbers, min_size=1, max_size=60)
thresholds = st.tuples(st.floats(0.05, 0.9), st.floats(0.0, 0.1)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.51, 0.69), max_size=80), st.floats(0.0, 0.9), st.integers(1, 4))
def test_no_chatter_on_a_noisy_plateau(plateau, smoothing, patience):
    """However noise plays between the thresholds: not one alarm without a fall, exactly one after it."""
    quiet = CollapseMonitor.replay(
        lines([10.0] * 3 + [10 * x for x in plateau]), signals=ONLY_DENSITY, smoothing=smoothing, patience=patience
    )
    assert quiet == []
    fall = [10.0] * 3 + [0.0] * 30 + [10 * x for x in plateau]
    alarms = CollapseMonitor.replay(lines(fall), signals=ONLY_DENSITY, smoothing=smoothing, patience=patience)
    assert len(alarms) == 1


def test_a_patience_of_any_size_costs_no_memory():
    detector = CollapseDetector(DENSITY, patience=10**30)
    for line in lines(FALL):
        detector.update(line["step"], line)
    assert detector.alarms == []
    assert len(json.dumps(detector.state_dict())) < 1000


@settings(max_examples=100, deadline=None)
@given(trajectories, thresholds, st.floats(0.0, 0.9), st.integers(1, 4), st.integers(1, 5))
def test_between_two_alarms_the_signal_was_back(values, pair, smoothing, patience, n):
    """By a second reading of the definition: no alarm begins while one lasts, nor earlier than `patience` values."""
    signal = Signal(("epistemic/per_1k",), *pair)
    detector = CollapseDetector({"density": signal}, n, smoothing, patience)
    for line in lines(values):
        detector.update(line["step"], line)
    if len(values) <= n or sum(values[:n]) == 0:
        assert detector.alarms == []
        return
    base, smoothed, shares = sum(values[:n]) / n, 1.0, []
    for value in values[n:]:
        smoothed = smoothing * smoothed + (1 - smoothing) * value / base
        shares.append(smoothed)
    expected, alarming = [], False
    for i, share in enumerate(shares):
        if alarming and share >= signal.high:
            alarming = False
        elif not alarming and i + 1 >= patience and all(s < signal.low for s in shares[i + 1 - patience : i + 1]):
            alarming = True
            expected.append(n + i + 1)
    assert [alarm.step for alarm in detector.alarms] == expected


@settings(max_examples=50, deadline=None)
@given(trajectories, st.integers(0, 60), st.integers(1, 3))
def test_a_run_that_is_cut_anywhere_goes_on_as_if_it_had_not_been(values, cut, patience):
    straight = CollapseDetector(DENSITY, patience=patience)
    first, second = CollapseDetector(DENSITY, patience=patience), CollapseDetector(DENSITY, patience=patience)
    for line in lines(values):
        straight.update(line["step"], line)
        (first if line["step"] <= cut else second).update(line["step"], line)
        if line["step"] == cut:
            second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    last = second if len(values) > cut else first
    if cut:
        assert last.alarms == straight.alarms
        assert last.state_dict() == straight.state_dict()


@settings(max_examples=50, deadline=None)
@given(trajectories, st.floats(0.1, 10.0))
def test_the_unit_does_not_matter(values, factor):
    steps = [
        [alarm.step for alarm in CollapseMonitor.replay(lines([f * x for x in values]), signals=ONLY_DENSITY)]
        for f in (1.0, 2.0 ** round(factor))  # a power of two, so that rounding is the same
    ]
    assert steps[0] == steps[1]
