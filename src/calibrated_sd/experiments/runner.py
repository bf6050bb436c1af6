"""Runs jobs as separate processes, a few at a time, one torch thread each; skips what is finished. No torch.

A job is a folder with a `run.json`; `python -m calibrated_sd.experiments.worker FOLDER` does it and sets its status.
Two busy torch threads on one small model are slower than one, so the parallelism is over jobs.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrated_sd.errors import CalibratedSDError, DataError
from calibrated_sd.experiments.archive import archived_state, run_states
from calibrated_sd.experiments.provenance import code_state
from calibrated_sd.organism.species import SPECIES
from calibrated_sd.records import read_object, write_json

OK, FAILED, CANCELLED, RUNNING, WAITING = "ok", "failed", "cancelled", "running", "waiting"


@dataclass(frozen=True)
class Job:
    """One folder to work on.

    Attributes:
        folder: holds `run.json`, and everything the job writes.
        recipe: what to do; if it differs from the one on disk, the old results no longer count.
        cost: relative duration, to start long jobs first.
    """

    folder: Path
    recipe: dict[str, Any]
    cost: float = 1.0

    @property
    def label(self) -> str:
        """The folder below ``runs``, for messages."""
        parts = self.folder.parts
        return "/".join(parts[len(parts) - parts[::-1].index("runs") :] if "runs" in parts else parts[-1:])


def status_of(folder: Path) -> str:
    """Status recorded in a job folder, or ``ok`` if the finished job is archived; ``waiting`` if it was never started."""
    file = folder / "run.json"
    if file.is_file():
        return _record(file, "status")["status"]
    archived = archived_state(folder)
    return OK if archived and archived["status"] == OK else WAITING


def set_status(folder: Path, status: str, **fields: Any) -> None:
    """Record a status, keeping what `run.json` holds already."""
    file = folder / "run.json"
    old = _record(file) if file.is_file() else {}
    write_json(file, {**old, "status": status, **fields})


def is_done(job: Job) -> bool:
    """Whether the job has been finished, its folder archived perhaps. Raises DataError if another recipe was used."""
    file = job.folder / "run.json"
    archived = not file.is_file()
    old = archived_state(job.folder) if archived else _record(file, "status", "recipe")
    if old is None or (archived and old["status"] != OK):  # nothing is left that could be continued
        return False
    if old["recipe"] != job.recipe:
        where = " (it is in archive.json.gz)" if archived else ""
        raise DataError(
            f"{job.folder} was made with another recipe{where}, so it cannot be continued. Use a new output folder, or "
            "--if-exists overwrite to start anew."
        )
    return old["status"] == OK


def _record(file: Path, *keys: str) -> dict[str, Any]:
    try:
        return read_object(file, *keys)
    except DataError as error:
        raise DataError(
            f"{error} Or delete the folder {file.parent} and do that run again with --if-exists resume."
        ) from error


def runs_made_at(directory: Path) -> list[str]:
    """Commits at which the jobs ran, e.g. ``["8c0302f… (clean)"]``; more than one after resuming with changed code."""
    states = {tuple(state.get("code") or ("unknown", "unknown")) for state in run_states(directory).values()}
    words = {True: " (with uncommitted changes)", False: " (clean)"}
    return sorted(f"{commit}{words.get(dirty, '')}" for commit, dirty in states)


def worker_command(folder: Path) -> list[str]:
    """What does the job of a folder."""
    return [sys.executable, "-m", "calibrated_sd.experiments.worker", str(folder)]


def worker_environment(recipe: dict[str, Any]) -> dict[str, str]:
    """Environment of a worker: one thread and no network for the organism, the caller's own for other models."""
    quiet = {"TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
             "TRANSFORMERS_VERBOSITY": "error"}  # fmt: skip
    if recipe.get("problems", "organism") in SPECIES:
        quiet |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        # Small tensors by the million: giving memory back and taking it again costs a tenth of the time under glibc
        quiet |= {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
    return {**os.environ, **quiet}


def prepare_job(job: Job) -> None:
    """Make the folder and write `run.json`, from which the worker reads what to do."""
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json(
        job.folder / "run.json", {"schema_version": 1, "status": RUNNING, "recipe": job.recipe, "code": code_state()}
    )


def _start(job: Job) -> subprocess.Popen[bytes]:
    prepare_job(job)
    with open(job.folder / "worker.log", "ab") as log:
        return subprocess.Popen(
            worker_command(job.folder), stdout=log, stderr=subprocess.STDOUT, env=worker_environment(job.recipe)
        )


def run_jobs(
    jobs: Sequence[Job], *, workers: int = 2, progress: Callable[[str, float], None] | None = None, poll_s: float = 0.5
) -> dict[Path, str]:
    """Do all jobs that are not done yet.

    Args:
        jobs: the jobs, started in order of falling cost.
        workers: processes at the same time.
        progress: called with a line to show and the share of finished cost.
        poll_s: seconds between looks at the processes.

    Returns:
        The status of each folder. A failed job does not stop the others.

    Raises:
        KeyboardInterrupt: after ending the processes and marking their folders ``cancelled``.
        DataError: a folder holds results of another recipe.
    """
    waiting = sorted((job for job in jobs if not is_done(job)), key=lambda j: -j.cost)
    total = sum(job.cost for job in jobs) or 1.0
    done = total - sum(job.cost for job in waiting)
    active: dict[subprocess.Popen[bytes], tuple[Job, float]] = {}
    say = progress or (lambda line, share: None)
    try:
        while waiting or active:
            while waiting and len(active) < workers:
                job = waiting.pop(0)
                active[_start(job)] = (job, time.monotonic())
                say(f"started   {job.label}", done / total)
            time.sleep(poll_s)
            for process, (job, since) in list(active.items()):
                if process.poll() is None:
                    continue
                del active[process]
                done += job.cost
                status = status_of(job.folder)
                if status == RUNNING:  # it ended without saying so
                    status = FAILED
                    set_status(job.folder, FAILED, error=f"exit code {process.returncode}; see worker.log")
                say(f"{status:<9} {job.label} ({time.monotonic() - since:.0f} s)", done / total)
    except BaseException:
        for process, (job, _) in active.items():
            process.terminate()
            with contextlib.suppress(CalibratedSDError):  # the others have to be ended, too, on a full disk as well
                set_status(job.folder, CANCELLED)
        for process in active:
            with contextlib.suppress(subprocess.TimeoutExpired):  # it ends with this command in any case
                process.wait(timeout=30)
        raise
    return {job.folder: status_of(job.folder) for job in jobs}
