"""Checkpoints that were written to the end. Imports nothing heavy."""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calibrated_sd.errors import OutputError
from calibrated_sd.trainers.whole import damage, unreadable

STATE = "trainer_state.json"
"""The file that transformers writes last into a checkpoint."""


def last_finished_checkpoint(
    folder: str | Path, *, required: Sequence[str] = (), start_anew: bool = False
) -> Path | None:
    """The newest ``checkpoint-<step>`` below a folder from which a run can go on, or None.

    A checkpoint that was being written when the run was killed is passed over: ``trainer_state.json`` is its last file,
    and the calibrated trainers add theirs before it. So is one whose files are cut off or missing, as after a power
    failure. A warning says which one was passed over, and why.

    Args:
        folder: where the checkpoints are.
        required: files that each of them has in any case.
        start_anew: None, with a warning, where there are finished checkpoints and all of them are damaged.

    Raises:
        OutputError: all finished checkpoints are damaged, and not ``start_anew``; or one cannot be read, which may pass.
    """
    passed_over: list[tuple[Path, str]] = []
    damaged = False
    for path in reversed(_by_step(Path(folder))):
        finished = _is_finished(path / STATE)
        problem = damage(path, required) if finished else "it was not written to the end"
        if problem is None:
            _say(passed_over, f"The run goes on from {path.name}.")
            return path
        damaged = damaged or finished
        passed_over.append((path, problem))
    if damaged and not start_anew:
        path, problem = next(p for p in passed_over if _is_finished(p[0] / STATE))
        raise OutputError(
            f"{path} is damaged ({problem}), and there is no other checkpoint from which the run could go on. Nothing was "
            "changed. Put the file back from a copy, or delete the folder to start the run from its beginning with "
            "--if-exists resume."
        )
    _say(passed_over, "The run starts from its beginning.")
    return None


def order_by_step(folder: str | Path, step: int, *, saved_now: bool = True) -> None:
    """Let the times of change of older checkpoints follow their steps, whatever the clock did between them.

    transformers deletes the oldest by these times. After a clock was set back, that would be the one just written.
    Checkpoints of a later step than the present one are left-overs of a run that went on from an earlier one: they come
    first. One of the present step, too, is written anew if something is ``saved_now``, and does not count as finished
    until it is.
    """
    paths = _by_step(Path(folder))
    for path in paths:
        if _step(path) == step and saved_now:
            (path / STATE).unlink(missing_ok=True)
            os.utime(path)
    wanted = [p for p in paths if _step(p) > step] + [p for p in paths if _step(p) < step]
    latest = time.time()
    for path in reversed(wanted):
        latest -= 2.0  # transformers takes differences below a second for a file system without such times
        if path.stat().st_mtime > latest:
            os.utime(path, (latest, latest))
        latest = path.stat().st_mtime


def save_whole_model(trainer: Any, folder: Path) -> None:
    """Save model and tokenizer beside ``folder``, then put them in its place: it never holds half a model.

    Every process must call it.
    """
    unfinished, main = folder.with_name(f"{folder.name}.unfinished"), trainer.is_world_process_zero()
    if main:
        shutil.rmtree(unfinished, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    try:
        trainer.save_model(str(unfinished))
        trainer.accelerator.wait_for_everyone()
        if main:
            trainer.processing_class.save_pretrained(str(unfinished))
            _replace_folder(unfinished, folder)
    except BaseException:
        if main:
            shutil.rmtree(unfinished, ignore_errors=True)  # a full disk gets its room back
        raise


def _replace_folder(unfinished: Path, folder: Path) -> None:
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    unfinished.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _say(passed_over: list[tuple[Path, str]], what_now: str) -> None:
    for path, problem in passed_over:
        warnings.warn(f"{path} was passed over: {problem}. {what_now}", stacklevel=3)


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _by_step(folder: Path) -> list[Path]:
    """Folders of checkpoints, earliest step first. Times of change say nothing: a clock may have been set."""
    found = [p for p in folder.glob("checkpoint-*") if p.name.rpartition("-")[2].isdecimal() and p.is_dir()]
    return sorted(found, key=_step)


def _is_finished(state: Path) -> bool:
    try:
        return "global_step" in json.loads(state.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, RecursionError):  # not there, cut off
        return False
    except OSError as error:
        raise unreadable(state, error) from error
