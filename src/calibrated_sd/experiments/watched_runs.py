"""The runs of a study as an early warning sees them: what each logged, and whether and when it collapsed. No torch.

Runs are read from the output folders of `csd reproduce` and `csd sweep`, or from their archive where ``runs/`` is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibrated_sd.errors import DataError
from calibrated_sd.evaluation.question_tables import N_PAIRED
from calibrated_sd.evaluation.statistics import Figure, paired_difference, standard_error
from calibrated_sd.experiments.archive import OK, stored_runs
from calibrated_sd.experiments.collect import BASE
from calibrated_sd.records import read_json

COLLAPSE_SE = 3.0
"""A run collapses if its last accuracy is below the base model's by this many standard errors."""
ONSET_DROP = 0.10
"""The onset is the first evaluated step whose accuracy is below the base model's by at least this much."""

Question = tuple[str, str]
Graded = dict[Question, list[float]]
"""Verdicts (1.0, 0.0) on the samples of each out-of-distribution question, (suite, problem)."""


@dataclass(frozen=True)
class WatchedRun:
    """One finished training run.

    Attributes:
        folder: the output folder it belongs to, as it was given.
        arm, seed, kind: of its recipe.
        logs: the logged lines of its training steps, in order, each with its `step`.
        graded: verdicts of each evaluated step.
    """

    folder: str
    arm: str
    seed: int
    kind: str
    logs: Sequence[Mapping[str, Any]]
    graded: Mapping[int, Graded]


@dataclass(frozen=True)
class Outcome:
    """What became of a run, by its out-of-distribution accuracy against the base model's, paired by question.

    Attributes:
        final_step: its last evaluated step.
        difference: accuracy after it minus the base model's.
        collapsed: whether that lies below 0 by `COLLAPSE_SE` standard errors.
        onset: first evaluated step at which the drop is at least `ONSET_DROP`; None if there is no such step, or if the run
            was evaluated at its end only.
        last_good: the evaluated step before the onset (0: the base model). The fall began between the two.
    """

    final_step: int
    difference: Figure
    collapsed: bool
    onset: int | None
    last_good: int | None


def outcome(run: WatchedRun, base: Graded, *, n_resamples: int = N_PAIRED) -> Outcome:
    """Whether and when a run collapsed.

    Raises:
        DataError: an evaluation shares no graded question with the base model's.
    """
    steps = sorted(run.graded)
    if not steps:
        raise DataError(f"{_name(run)} has no evaluation, so it cannot be told whether it collapsed. Finish the run.")
    after, before = _shared(run, steps[-1], base)
    difference = paired_difference(after, before, n_resamples=n_resamples).figure
    wide = standard_error(difference) if difference["lo"] is not None else float("inf")
    collapsed = difference["value"] < 0 and difference["value"] <= -COLLAPSE_SE * wide
    fallen = [step for step in steps if _drop(run, step, base) >= ONSET_DROP - 1e-9] if len(steps) > 1 else []
    onset = fallen[0] if fallen else None
    last_good = None if onset is None else max([0, *(step for step in steps if step < onset)])
    return Outcome(steps[-1], difference, collapsed, onset, last_good)


def _drop(run: WatchedRun, step: int, base: Graded) -> float:
    after, before = _shared(run, step, base)
    return float(np.mean([np.mean(before[q]) - np.mean(after[q]) for q in after]))


def _shared(run: WatchedRun, step: int, base: Graded) -> tuple[Graded, Graded]:
    """Both sides on the questions that both answered: evaluations on the way ask fewer."""
    here = run.graded[step]
    shared = sorted(set(here) & set(base))
    if not shared:
        raise DataError(
            f"{_name(run)}, step {step}: not one graded out-of-distribution question is among the base model's, so "
            "they cannot be compared. Run both with the same suites."
        )
    return {q: here[q] for q in shared}, {q: base[q] for q in shared}


def _name(run: WatchedRun) -> str:
    return f"{run.folder}: {run.arm}/seed_{run.seed}"


@dataclass(frozen=True)
class Study:
    """The finished runs of one output folder.

    Attributes:
        base: verdicts on the base model.
        runs: trained runs that were logged and evaluated.
        left_out: the others, ``"arm/seed_k: why"``.
    """

    base: Graded
    runs: list[WatchedRun]
    left_out: list[str]


def read_study(directory: str | Path) -> Study:
    """Read every finished run of a `csd reproduce` or `csd sweep` folder.

    Raises:
        DataError: no manifest, no evaluation of the base model, or no finished run.
    """
    directory = Path(directory)
    if not (directory / "manifest.json").is_file():
        raise DataError(f"{directory} has no manifest.json. Give an output folder of csd reproduce or csd sweep.")
    manifest = read_json(directory / "manifest.json")
    ood = {suite["name"] for suite in manifest.get("suites", []) if suite["role"] != "train"}
    found, left_out = _read_runs(directory, ood)
    base = next((run for run in found if run.arm == BASE), None)
    runs = [run for run in found if run.arm != BASE]
    if base is None or not base.graded or not runs:
        what = "finished run" if not runs else "evaluation of the base model"
        raise DataError(
            f"{directory} holds no {what}, so there is nothing to compare. Finish it: run the command that makes it "
            "again with --if-exists resume."
        )
    return Study(base.graded[min(base.graded)], runs, left_out)


def _read_runs(directory: Path, ood: set[str]) -> tuple[list[WatchedRun], list[str]]:
    found, left_out = [], []
    for name, run in stored_runs(directory).items():
        arm = run.recipe["arm"]
        if run.recipe["kind"] == "ladder":
            continue
        if run.status != OK:
            left_out.append(f"{name}: {run.status}")
            continue
        evaluations = {}
        for file in run.files:
            if file.startswith("eval/") and (verdicts := graded(records := run.records(file), ood)):
                evaluations[records[0]["step"]] = verdicts
        logs = [_rounded(line) for line in run.log()]
        if arm != BASE and not (logs and evaluations):
            left_out.append(f"{name}: no {'evaluation' if logs else 'log'}")
            continue
        found.append(WatchedRun(str(directory), arm, run.recipe.get("seed", 0), run.recipe["kind"], logs, evaluations))
    return found, left_out


def _rounded(line: Mapping[str, Any]) -> dict[str, Any]:
    """To the six digits that an archive keeps, so that a run gives the same alarms wherever it is stored."""
    return {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in line.items()}


def graded(records: Iterable[Mapping[str, Any]], ood: set[str]) -> Graded:
    """Verdicts by question of the suites in `ood`; samples without a verdict are left out."""
    verdicts: Graded = {}
    for record in records:
        if record["suite"] in ood and record["correct"] is not None:
            verdicts.setdefault((record["suite"], record["problem_id"]), []).append(float(record["correct"]))
    return verdicts
