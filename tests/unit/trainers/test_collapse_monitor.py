"""A live monitor: the same alarms as a replay, once, also after a resume; what it refuses."""

from __future__ import annotations

import dataclasses
import json
import warnings
from types import SimpleNamespace

import pytest
from transformers import TrainerCallback, TrainerControl, TrainerState

from calibrated_sd.errors import ConfigError
from calibrated_sd.records import read_jsonl
from calibrated_sd.trainers.callbacks import CollapseMonitor, JsonlLogCallback, MarkerMassCallback
from calibrated_sd.trainers.monitoring.collapse_detector import SIGNALS, Signal, read_signals
from collapse_kit import BY_HAND, FALL, ONLY_DENSITY, lines, play

# ---- live --------------------------------------------------------------------------------------------------------


def test_live_equals_replay():
    monitor = CollapseMonitor(signals=ONLY_DENSITY, **BY_HAND)
    with pytest.warns(UserWarning, match="Step 7: density"):
        play(monitor, lines(FALL))
    assert monitor.alarms == CollapseMonitor.replay(lines(FALL), signals=ONLY_DENSITY, **BY_HAND)


def test_one_warning_for_an_alarm_and_only_from_the_main_process():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        play(CollapseMonitor(signals=ONLY_DENSITY, **BY_HAND), lines([*FALL, 0.5, 0.5, 0.5]))
        assert len(caught) == 1
        silent = CollapseMonitor(signals=ONLY_DENSITY, **BY_HAND)
        play(silent, lines(FALL), TrainerState(is_world_process_zero=False))
        assert len(caught) == 1
        assert len(silent.alarms) == 1


@pytest.mark.filterwarnings("ignore:Step")
def test_stop():
    for stop in (False, True):
        control = TrainerControl()
        monitor = CollapseMonitor(signals=ONLY_DENSITY, **BY_HAND, stop=stop)
        play(monitor, lines(FALL[:6]), control=control)
        assert not control.should_training_stop
        play(monitor, lines(FALL[6:], first=7), control=control)
        assert control.should_training_stop is stop


ALL_BELOW = {name: {"low": 1.0, "high": 1.0} for name in SIGNALS}


@pytest.mark.filterwarnings("ignore:Step")
def test_a_real_run_in_one_line(make_trainer, tmp_path):
    """On TRL's own SDPO: the monitor brings the counting along, every reader of the log sees it, and it can stop."""
    seen = []

    class Reader(TrainerCallback):
        begun = 0

        def on_train_begin(self, args, state, control, **kwargs):
            self.begun += 1

        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(dict(logs))

    readers = [Reader(), Reader(), JsonlLogCallback(tmp_path / "train.jsonl")]
    trainer = make_trainer(upstream=True, callbacks=readers, max_steps=8)
    trainer.add_callback(CollapseMonitor(trainer, baseline=1, smoothing=0.0, patience=1, signals=ALL_BELOW, stop=True))
    trainer.train()
    monitor = trainer.callback_handler.callbacks[0]
    assert isinstance(monitor, CollapseMonitor)
    assert [reader.begun for reader in readers[:2]] == [1, 1]
    assert sum(isinstance(c, MarkerMassCallback) for c in trainer.callback_handler.callbacks) == 1
    assert trainer.state.global_step == monitor.alarms[0].step < 8
    alarms = [line["monitor/alarm"] for line in trainer.state.log_history if "loss" in line]
    assert alarms == [0.0] * (len(alarms) - 1) + [1.0]
    written = list(read_jsonl(tmp_path / "train.jsonl", check_version=False))
    assert written == trainer.state.log_history
    assert [logs["monitor/alarm"] for logs in seen[::2] if "loss" in logs] == alarms
    settings_ = {"baseline": 1, "smoothing": 0.0, "patience": 1, "signals": ALL_BELOW}
    assert CollapseMonitor.replay(written, **settings_) == monitor.alarms
    assert CollapseMonitor.replay(trainer.state.log_history, **settings_) == monitor.alarms


@pytest.mark.filterwarnings("ignore:Step")
@pytest.mark.parametrize("restores", [False, True])
def test_a_resumed_run_keeps_baseline_and_gate(make_trainer, tmp_path, restores):
    """With and without transformers' own way of restoring callbacks, which makes new ones that know no trainer."""
    settings_ = {"baseline": 2, "smoothing": 0.3, "signals": {"density": {"low": 0.9, "high": 1.0}}}

    def build(**changes):
        trainer = make_trainer(upstream=True, max_steps=6, seed=3, **changes)
        trainer.add_callback(CollapseMonitor(trainer, **settings_))
        return trainer

    straight = build(save_strategy="steps", save_steps=3)
    straight.train()
    resumed = build(restore_callback_states_from_checkpoint=restores)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))
    (monitor,) = (c for c in resumed.callback_handler.callbacks if isinstance(c, CollapseMonitor))
    # The rollouts after a resume may differ from those of the straight run; what the monitor makes of its lines may not.
    assert len(resumed.state.log_history) >= 6
    assert monitor.alarms == CollapseMonitor.replay(resumed.state.log_history, **settings_)
    reread = CollapseMonitor(**settings_)
    reread._read(resumed.state.log_history)
    assert monitor.memory == reread.memory
    assert all("epistemic/per_1k" in line for line in resumed.state.log_history if "loss" in line)


def test_a_checkpoint_that_knew_no_monitor_is_read_from_its_history(make_trainer, tmp_path):
    before = make_trainer(max_steps=2, save_strategy="steps", save_steps=2)  # logs epistemic/* itself
    before.train()
    trainer = make_trainer(max_steps=4, save_strategy="steps", save_steps=2)
    monitor = CollapseMonitor(trainer, signals=ONLY_DENSITY, baseline=4)
    trainer.add_callback(monitor)
    assert not any(isinstance(c, MarkerMassCallback) for c in trainer.callback_handler.callbacks)
    trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))  # and saves without an error
    logged = [line["epistemic/per_1k"] for line in trainer.state.log_history if "loss" in line]
    assert len(logged) == 4
    assert monitor.detector.watches["density"].baseline.value == pytest.approx(sum(logged) / 4)


def test_a_second_run_begins_anew(make_trainer):
    trainer = make_trainer(max_steps=2)
    monitor = CollapseMonitor(trainer, signals=ONLY_DENSITY, baseline=2)
    trainer.add_callback(monitor)
    trainer.train()
    trainer.train()
    logged = [line["epistemic/per_1k"] for line in trainer.state.log_history if "loss" in line]
    assert monitor.detector.watches["density"].baseline.value == pytest.approx(sum(logged) / 2)


def test_the_users_own_callback_replaces_the_one_that_the_monitor_brought(make_trainer):
    trainer = make_trainer(upstream=True, max_steps=1)
    trainer.add_callback(CollapseMonitor(trainer))
    trainer.add_callback(MarkerMassCallback(trainer, markers="legacy", mass=False))
    trainer.train()
    logged = trainer.state.log_history[0]
    assert "epistemic/per_1k" in logged
    assert "monitor/marker_mass" not in logged


def test_given_texts_are_not_judged_by_their_words():
    trainer = SimpleNamespace(
        callback_handler=SimpleNamespace(callbacks=[MarkerMassCallback()]), calibration=SimpleNamespace()
    )
    present = trainer.callback_handler.callbacks[0]
    present.trainer, present.source = trainer, SimpleNamespace(generates=False)
    assert set(CollapseMonitor(trainer).signals) == {"marker_mass", "retention", "entropy"}
    present.source.generates = True
    assert set(CollapseMonitor(trainer).signals) == set(SIGNALS)


# ---- what it refuses ---------------------------------------------------------------------------------------------


def test_nobody_counts_the_markers(make_trainer):
    trainer = make_trainer(upstream=True, callbacks=[CollapseMonitor()])
    with pytest.raises(ConfigError, match=r"trainer\.add_callback\(CollapseMonitor\(trainer\)\)") as refused:
        trainer.train()
    assert "\n" not in str(refused.value)
    make_trainer(upstream=True, max_steps=1, callbacks=[CollapseMonitor(signals={"density": None})]).train()
    make_trainer(max_steps=1, callbacks=[CollapseMonitor()]).train()  # the calibrated trainer counts them itself


@pytest.mark.parametrize(
    ("settings_", "says"),
    [
        ({"signals": {"density": {"lo": 0.5}}}, "Did you mean 'low'"),
        ({"signals": {"density": {"low": 0.8}}}, "low=0.8 and high=0.7"),
        ({"signals": {"density": {"low": 0.0}}}, "0 < low"),
        ({"signals": {"density": 0.5}}, "Give a mapping"),
        ({"signals": {"reward": {"low": 0.5}}}, "under which names it is logged"),
        ({"smoothing": 1.0}, r"smoothing must be in \[0, 1\)"),
        ({"patience": 0}, "patience must be"),
        ({"baseline": 0}, "at least 1"),
    ],
)
def test_bad_settings(settings_, says):
    with pytest.raises(ConfigError, match=says) as refused:
        CollapseMonitor(**settings_)
    assert "\n" not in str(refused.value)


def test_signals_are_changed_added_and_dropped_in_one_dict():
    changes = {"density": {"low": 0.6}, "length": None, "reward": {"keys": "reward", "low": 0.8, "high": 0.9}}
    signals = read_signals(changes)
    assert signals["density"] == dataclasses.replace(SIGNALS["density"], low=0.6)
    assert "length" not in signals
    assert signals["reward"] == Signal(("reward",), 0.8, 0.9)
    assert signals["entropy"] is SIGNALS["entropy"]


def test_the_settings_survive_a_checkpoint():
    monitor = CollapseMonitor(signals={"length": None, "reward": {"keys": ["reward"]}}, baseline=4, stop=True)
    again = CollapseMonitor.from_state(json.loads(json.dumps(monitor.state())))
    assert again.signals == monitor.signals
    assert again.state() == monitor.state()
