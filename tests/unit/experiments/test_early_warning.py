"""Collapse, onset, hits and lead times of hand-made runs, by hand."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warning_kit import (
    BASE,
    COLLAPSE,
    EARLY_FALL,
    FALL,
    FLAT,
    NO_COLLAPSE,
    answers,
    case,
    five_cases,
    log,
    run,
    write_study,
)

from calibrated_sd.errors import DataError
from calibrated_sd.experiments.archive import write_archive
from calibrated_sd.experiments.early_warning import Settings, assess, collect_cases, first_alarms, judge, verdict
from calibrated_sd.experiments.early_warning_study import early_warning
from calibrated_sd.experiments.watched_runs import Study, WatchedRun, outcome, read_study
from calibrated_sd.trainers.monitoring.collapse_detector import BASELINE, PATIENCE, SIGNALS, SMOOTHING
from calibrated_sd.trainers.monitoring.collapse_monitor import CollapseMonitor
from collapse_kit import BY_HAND, HALF_OF_ALL

# ---- what became of a run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "collapsed"), [(2, True), (4, True), (7, False), (10, False)])
def test_collapse_is_three_standard_errors_below(right, collapsed):
    """4 of 10: −0.6, SE √(0.24/10) = 0.155, three of them 0.46. 7 of 10: −0.3, SE √(0.21/10) = 0.145, three 0.43."""
    found = outcome(run("a", 0, log(density=FLAT), {8: right}), BASE)
    assert found.difference["value"] == pytest.approx(right / 10 - 1)
    assert found.collapsed is collapsed
    assert found.final_step == 8


def test_a_gain_is_no_collapse_even_where_every_question_agrees():
    """Its interval has no width, and 0 is no fall."""
    assert not outcome(run("a", 0, log(density=FLAT), {8: 10}), BASE).collapsed
    assert not outcome(run("a", 0, log(density=FLAT), {8: 10}), answers(3)).collapsed


@pytest.mark.parametrize(
    ("rights", "onset", "last_good"),
    [
        ({2: 10, 4: 10, 8: 2}, 8, 4),
        ({2: 10, 4: 9, 8: 2}, 4, 2),  # exactly ten points
        ({4: 5, 8: 2}, 4, 0),  # nothing before it but the base model
        ({4: 5, 8: 10}, 4, 0),  # the first drop counts, even if it is made up for
        ({4: 10, 8: 10}, None, None),
        ({8: 2}, None, None),  # no evaluation on the way
    ],
)
def test_onset_by_hand(rights, onset, last_good):
    found = outcome(run("a", 0, log(density=FLAT), rights), BASE)
    assert (found.onset, found.last_good) == (onset, last_good)


def test_an_evaluation_on_the_way_is_compared_on_its_own_questions():
    """The base model solves the first five of ten. Asked only those, four of five are a drop of 0.2, not a gain of 0.3."""
    one = WatchedRun("study", "a", 0, "arm", log(density=FLAT), {2: answers(5, 5), 4: answers(4, 5), 8: answers(5)})
    found = outcome(one, answers(5))
    assert (found.onset, found.last_good) == (4, 2)


def test_no_common_question():
    one = WatchedRun("study", "a", 0, "arm", log(density=FLAT), {8: {("other", "q0"): [1.0]}})
    with pytest.raises(DataError, match=r"study: a/seed_0, step 8: not one graded"):
        outcome(one, BASE)


AS_DERIVED = Settings(HALF_OF_ALL, **BY_HAND)


# ---- when it fires -------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_monitor():
    monitor = CollapseMonitor()
    assert (monitor.signals, monitor.baseline, monitor.smoothing, monitor.patience) == (
        SIGNALS,
        BASELINE,
        SMOOTHING,
        PATIENCE,
    )
    assert Settings() == Settings(SIGNALS, BASELINE, SMOOTHING, PATIENCE)


def test_what_fires_first():
    """Length falls two steps before density: alarms at 6 and 7; retention is not logged, and truncated never rises."""
    logs = log(density=FALL, length=EARLY_FALL, **{"completions/clipped_ratio": [0.1] * 8})
    judged = judge(case("a", 0, logs, COLLAPSE), AS_DERIVED)
    assert judged == {
        "alarm": 6,
        "signals": ["length"],
        "lead": 2,
        "lead_from_last_good": -2,
        "by_signal": {"density": 7, "length": 6, "truncated": None},
    }


def test_given_texts_are_not_watched():
    """As the live monitor does on an SFT trainer: what its texts look like is not the model's doing."""
    logs = log(density=FALL, length=FALL, entropy=EARLY_FALL)
    assert first_alarms(run("a", 0, logs, COLLAPSE, kind="sft"), AS_DERIVED) == {"entropy": 6}


numbers = st.integers(0, 960).map(lambda i: i / 32)
trajectories = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=30)
shared = {"baseline": st.integers(1, 4), "smoothing": st.floats(0.0, 0.9), "patience": st.integers(1, 4)}


def two_signals(pairs, scale=1.0):
    return log(density=[scale * a for a, _ in pairs], length=[b for _, b in pairs])


@settings(max_examples=100, deadline=None)
@given(trajectories, st.integers(-8, 8), st.fixed_dictionaries(shared))
def test_the_unit_of_a_signal_does_not_matter(pairs, power, given_settings):
    setting = Settings(**given_settings)
    alarms = first_alarms(run("a", 0, two_signals(pairs), COLLAPSE), setting)
    assert first_alarms(run("a", 0, two_signals(pairs, 2.0**power), COLLAPSE), setting) == alarms


@settings(max_examples=100, deadline=None)
@given(trajectories, st.fixed_dictionaries(shared))
def test_more_patience_never_fires_earlier(pairs, given_settings):
    one = run("a", 0, two_signals(pairs), COLLAPSE)
    hasty = first_alarms(one, Settings(**given_settings))
    patient = first_alarms(one, Settings(**{**given_settings, "patience": given_settings["patience"] + 1}))
    for name, step in patient.items():
        assert step is None or (hasty[name] is not None and hasty[name] < step)


@settings(max_examples=50, deadline=None)
@given(trajectories, st.fixed_dictionaries(shared))
def test_it_is_the_monitors_replay(pairs, given_settings):
    logs = two_signals(pairs)
    alarms = CollapseMonitor.replay(logs, **given_settings)
    steps = [step for step in first_alarms(run("a", 0, logs, COLLAPSE), Settings(**given_settings)).values() if step]
    assert min(steps, default=None) == (alarms[0].step if alarms else None)


# ---- over runs -----------------------------------------------------------------------------------------------------


def test_five_runs_by_hand():
    """Alarms at 7 and 6, onsets at 8: leads 1 and 2. 2 of 3 collapses hit, 1 of 2 others fires.

    Wilson for 2 of 3, z² = 3.8415: centre (2/3 + z²/6) / (1 + z²/3) = 0.57309, half width 0.36542.
    """
    found = assess(five_cases(), AS_DERIVED)
    summary = found["summary"]
    counts = ("n_runs", "n_arms", "n_collapsing", "n_hits", "n_false_alarms")
    assert [summary[name] for name in counts] == [5, 4, 3, 2, 1]
    assert summary["hit_rate"]["value"] == pytest.approx(2 / 3)
    assert summary["hit_rate"]["lo"] == pytest.approx(0.57309 - 0.36542, abs=1e-4)
    assert summary["hit_rate"]["hi"] == pytest.approx(0.57309 + 0.36542, abs=1e-4)
    assert summary["hit_rate"]["n"] == 3
    assert summary["false_alarm_rate"]["value"] == 0.5
    assert summary["lead"]["value"] == 1.5
    assert summary["lead"]["lo"] is None  # both hits are of one arm
    assert summary["lead_from_last_good"]["value"] == -2.5  # last good at 4
    assert summary["in_time"]["value"] == 1.0
    assert list(found["signals"]) == ["density"]  # no other is logged
    assert found["signals"]["density"]["first"] == 2
    assert verdict(summary) == "fails"


def test_seeds_of_an_arm_are_no_new_arms():
    """Leads 1 in one arm and 2 in the other, [1, 2] whether each has one seed or ten."""
    few = [case(arm, 0, log(density=fall), COLLAPSE) for arm, fall in (("a", FALL), ("b", EARLY_FALL))]
    many = [case(one.run.arm, seed, one.run.logs, COLLAPSE) for one in few for seed in range(10)]
    leads = [assess(cases, AS_DERIVED)["summary"]["lead"] for cases in (few, many)]
    assert [(lead["value"], lead["lo"], lead["hi"], lead["n"]) for lead in leads] == [(1.5, 1.0, 2.0, 2)] * 2


def test_runs_without_an_onset_count_for_hits_only():
    found = assess([case("a", 0, log(density=FALL), {8: 2})], AS_DERIVED)["summary"]
    assert found["hit_rate"]["value"] == 1.0
    assert found["lead"]["value"] is None
    assert found["false_alarm_rate"]["value"] is None
    assert verdict(found) == "undecided"


def test_a_signal_is_judged_on_the_runs_that_log_it():
    cases = [
        case("a", 0, log(density=FLAT, retention=FALL), COLLAPSE),
        case("b", 0, log(density=FALL), COLLAPSE),
        case("c", 0, log(density=FLAT), NO_COLLAPSE),
    ]
    found = assess(cases, AS_DERIVED)
    assert found["summary"]["hit_rate"]["value"] == 1.0
    assert {name: (row["n_hits"], row["n_runs"], row["first"]) for name, row in found["signals"].items()} == {
        "density": (1, 3, 1),
        "retention": (1, 1, 1),
    }


@pytest.mark.parametrize(
    ("hit_rate", "false_alarms", "expected"),
    [(0.8, 0.2, "holds"), (0.79, 0.0, "fails"), (1.0, 0.21, "fails"), (None, 0.0, "undecided")],
)
def test_the_bar(hit_rate, false_alarms, expected):
    assert verdict({"hit_rate": {"value": hit_rate}, "false_alarm_rate": {"value": false_alarms}}) == expected


# ---- folders -------------------------------------------------------------------------------------------------------


def test_a_run_of_two_studies_counts_once():
    """The one with evaluations on the way is kept, under whatever name; another seed is another run."""
    ends = run("a", 0, log(density=FALL), {8: 2}, folder="first")
    way = run("same under another name", 0, log(density=FALL), COLLAPSE, folder="second")
    seed = run("a", 1, log(density=FALL), {8: 2}, folder="second")
    silent = run("a", 2, log(reward=FALL), {8: 2}, folder="second")
    cases, left_out = collect_cases([Study(BASE, [ends], []), Study(BASE, [way, seed, silent], ["b/seed_0: failed"])])
    assert [one.run for one in cases] == [way, seed]
    assert left_out == [
        "first: a/seed_0: the same run as second: same under another name/seed_0",
        "second: a/seed_2: logs no signal of the monitor",
        "b/seed_0: failed",
    ]


def test_a_folder_gives_what_was_written(tmp_path):
    write_study(tmp_path, five_cases())
    (tmp_path / "runs" / "broken" / "seed_0").mkdir(parents=True)
    state = '{"schema_version": 1, "status": "failed", "recipe": {"kind": "arm", "arm": "broken", "seed": 0}}'
    (tmp_path / "runs" / "broken" / "seed_0" / "run.json").write_text(state)
    study = read_study(tmp_path)
    assert study.base == BASE  # the trained suite is left out
    assert study.left_out == ["broken/seed_0: failed"]
    expected = [one.run for one in five_cases()]
    assert [(r.arm, r.seed, r.logs, r.graded) for r in study.runs] == [
        (r.arm, r.seed, r.logs, r.graded) for r in expected
    ]


def test_the_archive_is_as_good_as_the_runs(tmp_path):
    third = [value / 3 for value in FALL]  # more digits than an archive keeps
    write_study(tmp_path, [*five_cases(), case("e", 0, log(density=third), COLLAPSE)])
    from_runs = early_warning([tmp_path], n_resamples=200)
    write_archive(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    from_archive = early_warning([tmp_path], n_resamples=200)
    assert from_runs["provenance"]["runs_made_at"] == ["c0ffee (clean)"]
    for document in (from_runs, from_archive):
        del document["provenance"]
    assert from_archive == from_runs
    assert from_runs["summary"]["n_hits"] == 3


def test_what_cannot_be_replayed_is_said(tmp_path):
    with pytest.raises(DataError, match=r"no manifest\.json"):
        read_study(tmp_path)
    write_study(tmp_path, [])
    with pytest.raises(DataError, match="no finished run"):
        read_study(tmp_path)
    write_study(tmp_path, [case("a", 0, log(reward=FALL), COLLAPSE)])
    with pytest.raises(DataError, match=r"logs no signal of the monitor"):
        early_warning([tmp_path])
    shutil.rmtree(tmp_path / "runs" / "base")
    with pytest.raises(DataError, match="no evaluation of the base model"):
        read_study(tmp_path)
