"""Where jobs run: as processes on this machine, or on a SLURM cluster through submitit.

A cluster job starts the same worker process, in the same folder, as a local one. So a sweep that was begun on one can be
finished on the other, and submitit's own local executor (``cluster: local``) tests the path without a cluster.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrated_sd.errors import CalibratedSDError, CompatError, ConfigError, unknown_name
from calibrated_sd.experiments.runner import (
    CANCELLED,
    FAILED,
    OK,
    RUNNING,
    Job,
    is_done,
    prepare_job,
    run_jobs,
    set_status,
    status_of,
    worker_command,
    worker_environment,
)
from calibrated_sd.records import read_json, read_object, write_json

LAUNCHERS = ("local", "slurm")
CLUSTERS = ("slurm", "local")
"""Values of ``cluster`` among the parameters: submitit's executors; ``slurm`` unless told otherwise."""
TICKET = "submitted.json"
"""File in a job's folder that says which cluster job does it."""
Progress = Callable[[str, float], None]


def open_launcher(launcher: str, directory: Path, slurm: Mapping[str, Any] | None = None) -> Any:
    """What :func:`launch` needs: None for this machine, an executor for a cluster. Starts and writes nothing.

    Args:
        launcher: one of `LAUNCHERS`.
        directory: the sweep's folder; a cluster's own logs go to ``directory/cluster``.
        slurm: the cluster's parameters, e.g. ``{"partition": "gpu", "time": 120}``.

    Raises:
        ConfigError: no such launcher or parameter, or no cluster here.
        CompatError: submitit is not installed.
    """
    if launcher not in LAUNCHERS:
        raise unknown_name("launcher", launcher, LAUNCHERS)
    return None if launcher == "local" else make_executor(directory / "cluster", slurm or {})


def launch(
    jobs: Sequence[Job],
    executor: Any = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    poll_s: float = 0.5,
) -> dict[Path, str]:
    """Do all jobs that are not done yet, and wait for them; a failed job does not stop the others.

    Args:
        jobs: the jobs.
        executor: from :func:`open_launcher`.
        workers: jobs at the same time; None is two on this machine and no limit on a cluster.
        progress: called with a line to show and the share done.
        poll_s: seconds between looks.

    Returns:
        The status of each folder.

    Raises:
        KeyboardInterrupt: after ending the jobs and marking their folders ``cancelled``.
        DataError: a folder holds results of another recipe.
    """
    if executor is None:
        return run_jobs(jobs, workers=workers or 2, progress=progress, poll_s=poll_s)
    return submit_jobs(jobs, executor, workers=workers, progress=progress, poll_s=poll_s)


def make_executor(folder: Path, parameters: Mapping[str, Any]) -> Any:
    """submitit's executor with these parameters: names of its own (``timeout_min, mem_gb, gpus_per_node, …``) or of
    sbatch options (``partition, time, account, qos, constraint, setup, …``), with or without the prefix ``slurm_``.

    Raises:
        ConfigError: an unknown parameter (the nearest one is suggested), or a value of the wrong type.
        CompatError: submitit is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise CompatError(
            "--launcher slurm needs submitit, which is not installed. Run `pip install 'calibrated-sd[slurm]'`."
        ) from error
    given = dict(parameters)
    cluster = given.pop("cluster", "slurm")
    if cluster not in CLUSTERS:
        raise unknown_name("cluster", cluster, CLUSTERS)
    general = set(submitit.AutoExecutor._typed_parameters())
    special = set(submitit.SlurmExecutor._valid_parameters())
    named = {}
    for key, value in given.items():
        plain = key.removeprefix("slurm_")
        if plain not in general | special:
            raise unknown_name("parameter of the cluster", plain, {*general, *special, "cluster"})
        named[plain if plain in general else f"slurm_{plain}"] = value
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster)
        executor.update_parameters(**{"name": "csd-sweep", **named})
    except (AssertionError, NameError, ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(
            f"The cluster's parameters {given} were refused: {error} Correct `slurm` in the sweep, or --slurm."
        ) from error
    return executor


@dataclass(frozen=True)
class ClusterJob:
    """What a cluster node does: the worker process of one folder. Picklable, and resubmitted after a time limit or a
    preemption, to continue from the last checkpoint.

    Attributes:
        folder: the job's folder, on a file system that the node sees.
        command: the worker's command line.
    """

    folder: str
    command: tuple[str, ...]

    def __call__(self) -> int:
        """Run the worker; its exit code. A failure is recorded in the folder, not raised."""
        recipe = read_object(Path(self.folder) / "run.json", "recipe")["recipe"]
        with open(Path(self.folder) / "worker.log", "ab") as log:
            done = subprocess.run(
                self.command, stdout=log, stderr=subprocess.STDOUT, env=worker_environment(recipe), check=False
            )
        return done.returncode

    def checkpoint(self) -> Any:
        """Called by submitit before the node is taken away."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit_jobs(
    jobs: Sequence[Job],
    executor: Any,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    poll_s: float = 0.5,
    patience_s: float = 10.0,
) -> dict[Path, str]:
    """Submit all jobs that are not done yet and wait for them, as :func:`~.runner.run_jobs` does for processes.

    Args:
        jobs: the jobs, submitted in order of falling cost.
        executor: from :func:`make_executor`.
        workers: submitted jobs at the same time; None for all at once.
        progress, poll_s: as in ``run_jobs``.
        patience_s: how long a finished cluster job's status may take to arrive through a shared file system.
    """
    waiting = sorted((job for job in jobs if not is_done(job)), key=lambda j: -j.cost)
    total = sum(job.cost for job in jobs) or 1.0
    done = total - sum(job.cost for job in waiting)
    active: dict[Any, tuple[Job, float]] = {}
    say = progress or (lambda line, share: None)
    try:
        while waiting or active:
            while waiting and (workers is None or len(active) < workers):
                job = waiting.pop(0)
                submitted, word = _submitted(job, executor)
                active[submitted] = (job, time.monotonic())
                say(f"{word:<9} {job.label} (cluster job {submitted.job_id})", done / total)
            time.sleep(poll_s)
            for submitted, (job, since) in list(active.items()):
                if not submitted.done():
                    continue
                del active[submitted]
                done += job.cost
                status = _final_status(job.folder, submitted, patience_s)
                (job.folder / TICKET).unlink(missing_ok=True)
                say(f"{status:<9} {job.label} ({time.monotonic() - since:.0f} s)", done / total)
    except BaseException:
        for submitted, (job, _) in active.items():
            submitted.cancel(check=False)
            with contextlib.suppress(OSError, CalibratedSDError):  # the others have to be ended, too
                set_status(job.folder, CANCELLED)
                (job.folder / TICKET).unlink(missing_ok=True)
        raise
    return {job.folder: status_of(job.folder) for job in jobs}


def _submitted(job: Job, executor: Any) -> tuple[Any, str]:
    """A cluster job for this folder: the one that is still doing it, if the sweep lost its terminal, or a new one."""
    ticket = job.folder / TICKET
    if ticket.is_file() and status_of(job.folder) == RUNNING:
        import submitit

        told = read_json(ticket)
        if told["cluster"] == "slurm":
            old: Any = submitit.SlurmJob(folder=told["folder"], job_id=told["job_id"])
            if not old.done():
                return old, "found"
    prepare_job(job)
    folder = job.folder.resolve()
    submitted = executor.submit(ClusterJob(str(folder), tuple(worker_command(folder))))
    told = {"cluster": executor.cluster, "folder": str(executor.folder), "job_id": submitted.job_id}
    write_json(ticket, told)
    return submitted, "submitted"


def _final_status(folder: Path, submitted: Any, patience_s: float) -> str:
    """The status that the worker recorded; failed if it ended without recording one."""
    deadline = time.monotonic() + patience_s
    while status_of(folder) == RUNNING and time.monotonic() < deadline:
        time.sleep(0.5)
    status = status_of(folder)
    if status not in (OK, FAILED, CANCELLED):
        status = FAILED
        set_status(folder, FAILED, error=f"the cluster job ended as {submitted.state}; see worker.log")
    return status
