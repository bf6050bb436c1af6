"""Callbacks that work with any TRL trainer."""

from __future__ import annotations

import json
import os
from pathlib import Path

from transformers import TrainerCallback


class JsonlLogCallback(TrainerCallback):
    """Append every dictionary that the trainer logs to a JSONL file, keys as logged, plus `step`.

    Written by the main process only, one line per log, flushed at once: a run that is killed keeps its lines. When a run
    is resumed from a checkpoint, lines after that checkpoint's step are dropped first, so that no step appears twice.

    Args:
        path: the file, e.g. `runs/<arm>/seed_0/train.jsonl`; its folder is created.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Start the file, or cut it back to the step from which the run goes on."""
        if not state.is_world_process_zero:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in self._lines() if line["step"] <= state.global_step] if state.global_step else []
        temporary = self.path.with_name(self.path.name + ".tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        temporary.replace(self.path)

    def _lines(self) -> list[dict]:
        if not self.path.exists():
            return []
        lines = []
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break  # the run was killed while it wrote this line
        return lines

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Append one line."""
        if logs and state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")
