"""Trajectories of logged figures, and a monitor that is fed them."""

from __future__ import annotations

from dataclasses import replace

from transformers import TrainerControl, TrainerState

from calibrated_sd.trainers.monitoring.collapse_detector import SIGNALS, Signal

DENSITY = {"density": Signal(("epistemic/per_1k",), low=0.5, high=0.7)}
ONLY_DENSITY = dict.fromkeys(name for name in SIGNALS if name != "density")
"""Changes under which nothing but the density is watched."""
BY_HAND = {"baseline": 3, "smoothing": 0.5, "patience": 2}
"""What the alarms below are derived with; no defaults, so that these may change."""
HALF_OF_ALL = {name: replace(signal, low=0.5, high=0.7) for name, signal in SIGNALS.items()}
"""Every signal at half of its baseline."""


def lines(densities, first=1):
    return [{"step": step, "loss": 0.1, "epistemic/per_1k": value} for step, value in enumerate(densities, first)]


def play(monitor, history, state=None, control=None):
    """Feed a live monitor as a trainer does; returns what other callbacks and the history get to see."""
    state = state or TrainerState(is_world_process_zero=True)
    control = control or TrainerControl()
    seen = []
    for line in history:
        state.global_step = line["step"]
        logs = {key: value for key, value in line.items() if key != "step"}
        state.log_history.append({**logs, "step": line["step"]})
        monitor.on_log(None, state, control, logs=logs)
        seen.append(logs)
    return seen


FALL = [10.0, 12.0, 8.0, 10.0, 4.0, 2.0, 1.0, 1.0]
# The baseline is (10 + 12 + 8) / 3 = 10. Shares of it from step 4: 1.0, 0.4, 0.2, 0.1, 0.1.
# Smoothed by half, from 1: 1.0, 0.7, 0.45, 0.275, 0.1875. Below 0.5 from step 6 on, for the second time at step 7.
