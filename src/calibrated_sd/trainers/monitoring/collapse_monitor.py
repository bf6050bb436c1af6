"""An early warning for the collapse of self-distillation, live or over a log that was written before."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from calibrated_sd.errors import ConfigError
from calibrated_sd.trainers.monitoring.collapse_detector import (
    BASELINE,
    PATIENCE,
    SIGNALS,
    SMOOTHING,
    TEXT_SIGNALS,
    Alarm,
    CollapseDetector,
    Signal,
    read_signals,
)
from calibrated_sd.trainers.monitoring.marker_callback import MarkerMassCallback, logs_epistemic_figures
from calibrated_sd.trainers.monitoring.text_capture import TextSource


class CollapseMonitor(TrainerCallback, ExportableState):
    """Warns when markers, marker mass, retention, length, finished responses or entropy collapse.

    Each is compared with its own mean over the first logs, smoothed, with two thresholds, so that noise around one of
    them does not make it flutter (see `CollapseDetector`). Every log gets `monitor/alarm`: 1 while any signal is in
    alarm, else 0. An alarm warns once, when it begins. Only logged values are read; they must be equal on all processes,
    as those that TRL and this package log are. The memory is part of the trainer's checkpoints.

    The defaults come from a study on a model organism (docs/results/study.md, part E): they find most collapses, late.

    Args:
        trainer: the trainer: `trainer.add_callback(CollapseMonitor(trainer))`. A `MarkerMassCallback` is added to it,
            unless it has one or logs `epistemic/...` itself. None: the values that are logged anyway are read.
        signals: changes to what is watched, e.g. `{"density": {"low": 0.6, "high": 0.8}, "length": None}`; see
            `SIGNALS` and `read_signals`. A trainer on given texts (SFT, DPO) is watched without `TEXT_SIGNALS`.
        baseline: number of logs that make the baseline.
        smoothing: weight of the past in the moving average, in [0, 1).
        patience: number of smoothed values in a row below the threshold that make an alarm.
        stop: whether an alarm ends the training.

    Raises:
        ConfigError: a setting out of range; a trainer that cannot be watched. Without `trainer`, at the first log: the
            density is to be watched and nobody logs it.
    """

    def __init__(
        self,
        trainer: Any = None,
        signals: Mapping[str, Any] | None = None,
        baseline: int = BASELINE,
        smoothing: float = SMOOTHING,
        patience: int = PATIENCE,
        stop: bool = False,
    ) -> None:
        self.trainer = trainer
        defaults = SIGNALS if trainer is None else self._watch_texts(trainer)
        self.signals = read_signals(signals, defaults)
        self.baseline, self.smoothing, self.patience, self.stop = baseline, smoothing, patience, stop
        self.detector = self._new_detector()

    @staticmethod
    def _watch_texts(trainer: Any) -> dict[str, Signal]:
        """Make sure that somebody counts markers, and say which signals make sense."""
        present = [c for c in trainer.callback_handler.callbacks if isinstance(c, MarkerMassCallback)]
        if not present and logs_epistemic_figures(trainer, TextSource.of(trainer)):
            return SIGNALS
        if not present:
            present = [MarkerMassCallback(trainer)]
            present[0].added_by_monitor = True
            trainer.add_callback(present[0])
        if present[0].trainer is None or present[0].source.generates:
            return SIGNALS
        return {name: signal for name, signal in SIGNALS.items() if name not in TEXT_SIGNALS}

    def _new_detector(self) -> CollapseDetector:
        return CollapseDetector(self.signals, self.baseline, self.smoothing, self.patience)

    @property
    def alarms(self) -> list[Alarm]:
        """All alarms of the run so far, those before a resume included."""
        return self.detector.alarms

    @classmethod
    def replay(cls, lines: Iterable[Mapping[str, Any]], **settings: Any) -> list[Alarm]:
        """The alarms that a run would have raised.

        Args:
            lines: the logged lines, in order, each with its `step`: of a `train.jsonl` (`read_jsonl(path,
                check_version=False)`), or `trainer.state.log_history`.
            settings: `signals`, `baseline`, `smoothing`, `patience` as for the live monitor.
        """
        monitor = cls(**settings)
        monitor._read(lines)
        return monitor.alarms

    def _read(self, lines: Iterable[Mapping[str, Any]]) -> None:
        for line in lines:
            if _is_a_training_step(line):
                self.detector.update(line["step"], line)

    # ---- events ------------------------------------------------------------------------------------------------

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Start anew, or go on from the checkpoint from which the run goes on."""
        name = type(self).__name__
        if state.global_step == 0:
            self.detector = self._new_detector()
        elif isinstance(saved := state.stateful_callbacks.get(name), dict):
            self.memory = saved["attributes"]["memory"]
        else:  # the checkpoint was made without a monitor: read what it would have seen
            self.detector = self._new_detector()
            self._read(state.log_history)
        # The trainer fails to save a callback that its checkpoint did not know.
        state.stateful_callbacks.setdefault(name, self.state())
        if self.trainer is not None:
            # First in the list, so that every other callback sees `monitor/alarm` in the line.
            callbacks = self.trainer.callback_handler.callbacks
            if self in callbacks:
                callbacks.remove(self)
                callbacks.insert(0, self)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Read a line and add `monitor/alarm` to it."""
        if not logs or not _is_a_training_step(logs):
            return
        self._check_that_somebody_counts(logs)
        begun = self.detector.update(state.global_step, logs)
        alarm = {"monitor/alarm": float(bool(self.detector.active))}
        logs.update(alarm)
        if state.log_history and state.log_history[-1].get("step") == state.global_step:
            state.log_history[-1].update(alarm)  # a copy that was taken before the callbacks were called
        if state.is_world_process_zero:
            for one in begun:
                warnings.warn(one.message, stacklevel=2)
        if begun and self.stop:
            control.should_training_stop = True

    def _check_that_somebody_counts(self, logs: Mapping[str, Any]) -> None:
        watch = self.detector.watches.get("density")
        if self.trainer is None and watch is not None and watch.key is None and not watch.is_logged(logs):
            raise ConfigError(
                f"CollapseMonitor watches the density of markers, but nothing logs {' or '.join(watch.signal.keys)}. "
                "Write `trainer.add_callback(CollapseMonitor(trainer))` after the trainer is made, which also counts "
                "them, or add `trainer.add_callback(MarkerMassCallback(trainer))`, or pass "
                'signals={"density": None} to do without.'
            )

    # ---- checkpoints -------------------------------------------------------------------------------------------

    @property
    def memory(self) -> dict[str, Any]:
        """What has been seen so far, as JSON can hold it."""
        return self.detector.state_dict()

    @memory.setter
    def memory(self, saved: Mapping[str, Any]) -> None:
        self.detector = self._new_detector()
        self.detector.load_state_dict(saved)

    def state(self) -> dict[str, Any]:
        """What transformers writes to a checkpoint: the settings and the memory."""
        dropped = dict.fromkeys(name for name in SIGNALS if name not in self.signals)
        return {
            "args": {
                "signals": {**{name: asdict(signal) for name, signal in self.signals.items()}, **dropped},
                "baseline": self.baseline,
                "smoothing": self.smoothing,
                "patience": self.patience,
                "stop": self.stop,
            },
            "attributes": {"memory": self.memory},
        }


def _is_a_training_step(line: Mapping[str, Any]) -> bool:
    """Whether a logged line is that of a training step, not of an evaluation or the summary at the end."""
    return "loss" in line
