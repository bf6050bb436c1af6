"""Checkpoints that were written to the end. Imports nothing heavy."""

from __future__ import annotations

import json
from pathlib import Path


def last_finished_checkpoint(folder: str | Path) -> Path | None:
    """The newest ``checkpoint-<step>`` below a folder from which a run can go on, or None.

    A checkpoint that was being written when the run was killed is passed over: ``trainer_state.json`` is its last file,
    and the calibrated trainers add theirs before it.
    """
    finished = [
        (int(state.parent.name.rpartition("-")[2]), state.parent)
        for state in Path(folder).glob("checkpoint-*/trainer_state.json")
        if state.parent.name.rpartition("-")[2].isdecimal() and _is_whole(state)
    ]
    return max(finished)[1] if finished else None


def _is_whole(state: Path) -> bool:
    try:
        return "global_step" in json.loads(state.read_text(encoding="utf-8"))
    except ValueError:  # cut off
        return False
