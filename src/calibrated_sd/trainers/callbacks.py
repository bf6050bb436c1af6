"""Callbacks that work with any TRL trainer."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from calibrated_sd.records import append_jsonl, read_jsonl, repair_tail, write_jsonl
from calibrated_sd.trainers.monitoring.collapse_monitor import CollapseMonitor
from calibrated_sd.trainers.monitoring.marker_callback import MarkerMassCallback

__all__ = ["CollapseMonitor", "JsonlLogCallback", "MarkerMassCallback"]

RATES = ("_samples_per_second", "_steps_per_second", "_tokens_per_second")
"""How the names of what transformers divides by a duration end."""


class JsonlLogCallback(TrainerCallback):
    """Append every dictionary that the trainer logs to a JSONL file, keys as logged, plus `step`.

    Written by the main process only, one line per log, flushed at once: a run that is killed keeps its lines. A run that
    starts from step 0 starts the file anew; a run that is resumed from a checkpoint first drops the lines after the
    checkpoint's step, so that no step appears twice. Numbers that JSON does not have (NaN, infinity) become null.

    transformers takes durations from the clock, which may be set while it trains. Where it was, the duration of the
    training and its steps per second are those of a clock that cannot be set; other rates of the training, and durations
    that became negative, are null.

    Args:
        path: the file, e.g. `runs/<arm>/seed_0/train.jsonl`; its folder is created.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._began = (time.time(), time.monotonic())

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Start the file, or cut it back to the step from which the run goes on."""
        self._began = (time.time(), time.monotonic())
        if not state.is_world_process_zero:
            return
        kept = []
        if state.global_step:
            if self.path.exists():
                repair_tail(self.path)
                lines = read_jsonl(self.path, check_version=False)
                kept = [line for line in lines if line["step"] <= state.global_step]
            there = {
                line["step"] for line in kept
            }  # a damaged or lost file lacks some, and the checkpoint has them, too
            kept += [_finite(line) for line in state.log_history if line["step"] not in there]
            kept.sort(key=lambda line: line["step"])
        write_jsonl(self.path, kept)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Append one line."""
        if not logs or not state.is_world_process_zero:
            return
        append_jsonl(self.path, [{"step": state.global_step, **self._timed(_finite(logs), state.max_steps)}])

    def _timed(self, logs: dict[str, Any], steps: int) -> dict[str, Any]:
        clock, seconds = time.time() - self._began[0], time.monotonic() - self._began[1]
        if "train_runtime" in logs and abs(clock - seconds) > 1.0:  # more than a clock's daemon slews
            rates = [key for key in logs if key.startswith("train_") and key.endswith(RATES)]
            logs = {**logs, **dict.fromkeys(rates), "train_runtime": round(seconds, 4)}
            if seconds > 0:
                logs["train_steps_per_second"] = round(steps / seconds, 3)
        negative = [key for key, v in logs.items() if key.endswith((*RATES, "_runtime")) and v is not None and v < 0]
        return {**logs, **dict.fromkeys(negative)}


def _finite(logs: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in logs.items()
    }
