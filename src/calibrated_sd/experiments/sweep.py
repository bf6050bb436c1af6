"""`csd sweep`: every point of a sweep × every seed, as jobs; failures kept apart; then the results. No torch here.

Layout of the output folder::

    manifest.json  results.csv  results.json  archive.json.gz  pareto.png  report.html
    runs/<arm>/seed_<k>/     finished and interrupted runs, as `csd reproduce` writes them
    failed/<arm>/seed_<k>/   failed runs, with error.txt
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from calibrated_sd.errors import CalibratedSDError, DataError
from calibrated_sd.evaluation.named_functions import function_file
from calibrated_sd.experiments.archive import write_archive
from calibrated_sd.experiments.launcher import launch, open_launcher
from calibrated_sd.experiments.provenance import provenance
from calibrated_sd.experiments.runner import FAILED, OK, WAITING, Job, is_done, status_of
from calibrated_sd.experiments.sweep_plan import BASE, Sweep, SweepArm
from calibrated_sd.experiments.training import is_organism, organism_name
from calibrated_sd.organism.checkpoint import organism_path
from calibrated_sd.organism.species import SPECIES
from calibrated_sd.organism.suites import suites_of as organism_suites
from calibrated_sd.records import check_output, prepare_output, read_object, write_json
from calibrated_sd.records.files import write_bytes

RUNS, APART = "runs", "failed"
Progress = Callable[[str, float], None]


def sweep_jobs(sweep: Sweep, directory: Path) -> list[Job]:
    """The base evaluation, and one job for each arm and seed."""
    evaluation = asdict(sweep.evaluation)
    eval_steps, suites = evaluation.pop("eval_steps"), evaluation.pop("suites")
    if not evaluation["question_seed"]:  # runs made before it could be chosen stay the same work
        del evaluation["question_seed"]
    shared = {**sweep.shared, **evaluation, **({} if is_organism(sweep.shared) else {"suites": suites})}
    most = max(arm.data["n_problems"] for arm in sweep.arms)
    base = {"kind": "base", "arm": BASE, "seed": 0, "trace_rollouts": 0, "n_train_problems": most, **shared}
    jobs = [Job(directory / RUNS / BASE / "seed_0", base)]
    for seed in sweep.seeds:
        for arm in sweep.arms:
            on_the_way = [step for step in eval_steps if step < arm.steps]
            recipe = {
                "kind": "arm",
                "arm": arm.name,
                "seed": seed,
                "steps": arm.steps,
                "eval_steps": [*on_the_way, arm.steps],
                "save_steps": on_the_way[0] if on_the_way else max(1, arm.steps // 4),
                "trainer": arm.trainer,
                "n_train_problems": arm.data["n_problems"],
                "subset_seed": seed if arm.data["subset_seed"] == "seed" else arm.data["subset_seed"],
                "keep_model": sweep.keep_models,
                **shared,
            }
            jobs.append(Job(directory / RUNS / arm.name / f"seed_{seed}", recipe, cost=2.0 + 0.3 * arm.steps))
    return jobs


def sweep_statuses(sweep: Sweep, directory: Path) -> list[tuple[str, SweepArm | None, int, str]]:
    """(arm, its plan, seed, status) of every run: ok, running, cancelled, failed, waiting. Writes nothing."""
    arms = {arm.name: arm for arm in sweep.arms}
    rows = []
    for job in sweep_jobs(sweep, directory):
        name, seed = job.recipe["arm"], job.recipe["seed"]
        status = status_of(job.folder)
        if status == WAITING and (apart(directory, job) / "run.json").is_file():
            status = FAILED
        rows.append((name, arms.get(name), seed, status))
    return rows


def apart(directory: Path, job: Job) -> Path:
    """Where the job's folder goes if it fails."""
    return directory / APART / job.folder.relative_to(directory / RUNS)


def suites_of(sweep: Sweep) -> list[dict[str, str]]:
    """Name, label and role of each suite: the organism's, or those that the recipe names."""
    if is_organism(sweep.shared):
        return [
            {"name": name, "label": label, "role": role}
            for name, (role, label) in organism_suites(organism_name(sweep.shared)).items()
        ]
    return [
        {"name": name, "label": str(suite.get("label", name)), "role": str(suite.get("role", "far"))}
        for name, suite in sweep.evaluation.suites.items()
    ]


def manifest(sweep: Sweep, command: str, wall_time_s: float | None) -> dict[str, Any]:
    """The file that says what the folder is."""
    weights = organism_path(sweep.shared["model"]) if is_organism(sweep.shared) else None
    block = provenance(command=command, model_path=weights, wall_time_s=wall_time_s)
    block |= {"recipe_hash": sweep.recipe_hash, "seed": list(sweep.seeds)}
    return {
        "schema_version": 1,
        "kind": "sweep",
        "title": sweep.title,
        "curve": sweep.curve,
        "fields": list(sweep.fields),
        "arms": [asdict(arm) for arm in sweep.arms],
        "suites": suites_of(sweep),
        "seeds": list(sweep.seeds),
        "retention_targets": list(sweep.targets),
        "plan": asdict(sweep),
        "provenance": block,
    }


def run_sweep(
    sweep: Sweep,
    directory: Path,
    *,
    if_exists: str = "raise",
    launcher: str = "local",
    workers: int | None = None,
    slurm: dict[str, Any] | None = None,
    command: str = "csd sweep",
    progress: Progress | None = None,
) -> list[Path]:
    """Do every run that is not finished, then write ``results.csv`` and ``results.json`` from all that are.

    A sweep file may grow between two calls: finished runs of the same settings are kept, new ones are added.

    Returns:
        The folders of the runs that failed.

    Raises:
        ConfigError, CompatError: as :func:`~.launcher.open_launcher`.
        OutputError: the folder is not empty, or not ours.
        DataError: a run in the folder was made with other settings, or not one run finished.
    """
    from calibrated_sd.experiments.sweep_results import write_sweep_results

    _check_files(sweep)
    parameters = {**sweep.slurm, **(slurm or {})}
    with tempfile.TemporaryDirectory() as nowhere:  # an executor makes its folder: ask first, before anything changes
        open_launcher(launcher, Path(nowhere), parameters)
    jobs = sweep_jobs(sweep, directory)
    inputs = _inputs(sweep)
    check_output(directory, if_exists, kind="sweep", inputs=inputs)
    if if_exists == "resume":
        for job in jobs:
            is_done(job)  # refuses results of other settings before anything is changed
    prepare_output(directory, if_exists, kind="sweep", inputs=inputs)
    executor = open_launcher(launcher, directory, parameters)
    for job in jobs:
        _take_back(directory, job)
    spent = 0.0
    if (directory / "manifest.json").is_file():
        spent = read_object(directory / "manifest.json", "provenance")["provenance"].get("wall_time_s") or 0.0
    write_json(directory / "manifest.json", manifest(sweep, command, spent or None))
    since = time.monotonic()
    try:
        statuses = launch(
            jobs,
            executor,
            workers=workers or (sweep.workers if executor is None else None),
            progress=progress,
        )
    except BaseException:
        with contextlib.suppress(CalibratedSDError):  # what stopped it is said, not that the archive is behind
            _keep(directory, jobs)
        raise
    failed = _keep(directory, jobs)
    for job in jobs:
        if statuses[job.folder] == OK:  # an earlier failure with other settings
            shutil.rmtree(apart(directory, job), ignore_errors=True)
            _drop_empty(apart(directory, job).parent)
    if not any(status == OK for status in statuses.values()):
        raise DataError(
            f"Not one of {len(jobs)} runs finished, so there are no results. See error.txt in the folders below "
            f"{directory / APART}, and run the same command with --if-exists resume."
        )
    write_json(directory / "manifest.json", manifest(sweep, command, round(spent + time.monotonic() - since, 1)))
    write_sweep_results(directory, sweep)
    return failed


def _check_files(sweep: Sweep) -> None:
    """Every run would fail alike if a problem file were not there."""
    files = [] if is_organism(sweep.shared) else [sweep.shared["problems"]]
    for file in (*files, *(suite["problems"] for suite in sweep.evaluation.suites.values())):
        if not Path(file).is_file():
            raise DataError(
                f"There is no problem file {file}, which this sweep names. Check the path; it is relative to here."
            )


def _inputs(sweep: Sweep) -> list[str | Path | None]:
    """What the runs of a sweep read from paths."""
    shared = [sweep.shared.get(name) for name in ("model", "problems")]
    suites = [suite["problems"] for suite in sweep.evaluation.suites.values()]
    functions = [function_file(sweep.shared.get(name)) for name in ("reward", "grader")]
    return [*(name for name in shared if name not in SPECIES), *suites, *functions]


def _take_back(directory: Path, job: Job) -> None:
    """A run that failed goes on from its last checkpoint, if it is to do the same again; otherwise it starts anew."""
    old = apart(directory, job)
    if not (old / "run.json").is_file() or job.folder.exists():
        return
    if read_object(old / "run.json", "recipe")["recipe"] == job.recipe:
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        (old / "error.txt").unlink(missing_ok=True)
        old.rename(job.folder)
        _drop_empty(old.parent)


def _keep(directory: Path, jobs: list[Job]) -> list[Path]:
    """Put failed runs apart and archive what has finished. Returns the folders of the failed ones."""
    failed = [_put_apart(directory, job) for job in jobs if status_of(job.folder) == FAILED]
    write_archive(directory)
    return failed


def _put_apart(directory: Path, job: Job) -> Path:
    """Move a failed run out of ``runs``, with its error in a file of its own; returns where it is now."""
    target = apart(directory, job)
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    job.folder.rename(target)
    record = read_object(target / "run.json")
    log = target / "worker.log"
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-40:] if log.is_file() else []
    text = "\n".join([str(record.get("error") or "no error was recorded"), "", "Last lines of worker.log:", *tail])
    write_bytes(target / "error.txt", f"{text}\n".encode("utf-8", errors="replace"))
    _drop_empty(job.folder.parent)
    return target


def _drop_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
