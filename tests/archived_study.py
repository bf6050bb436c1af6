"""A sweep of which only the small files are left: its archive is made up, its results follow from it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibrated_sd.experiments.recompute import recompute
from calibrated_sd.experiments.sweep import manifest, sweep_jobs
from calibrated_sd.experiments.sweep_plan import Evaluation, Sweep, SweepArm
from calibrated_sd.organism.suites import SUITES, suite_problems
from calibrated_sd.records import write_json
from calibrated_sd.records.archive import ARCHIVE, ArchivedRun, write_archive_file
from calibrated_sd.records.archive import Evaluation as Evaluated

LEVELS = {"base": 0.8, "sdpo": 0.2, "policy_gradient": 0.9, "winner": 0.9}
QUESTIONS, SAMPLES, SEEDS = 6, 2, (3, 4)


def sweep() -> Sweep:
    arms = tuple(
        SweepArm(
            name,
            name,
            None,
            None,
            {},
            {"learning_rate": 5e-4, "calibration_strength": 0.0},
            {"n_problems": 8, "subset_seed": 0},
            2,
        )
        for name in LEVELS
        if name != "base"
    )
    return Sweep(
        title="Small", arms=arms, seeds=SEEDS, evaluation=Evaluation(), curve=None, fields=(), defaults={},
        shared={"model": "organism", "problems": "organism", "grader": "boxed", "lora_r": 0}, targets=(0.5,),
    )  # fmt: skip


def samples(recipe: Mapping[str, Any], step: int) -> list[dict[str, Any]]:
    """Two samples of six questions of each suite, made up from the recipe."""
    seed = recipe.get("seed", 0)
    chance = random.Random(f"{recipe['arm']} {seed}")
    return [
        {
            "schema_version": 1, "suite": suite, "problem_id": problem.problem_id, "sample": i, "prompt_sha256": "", "completion": "",
            "finish_reason": "stop", "n_tokens": chance.randint(20, 90), "correct": chance.random() < LEVELS[recipe["arm"]],
            "markers": {name: chance.randint(1, 9) for name in ("legacy", "lexical", "held_out")}, "context": "none",
            "arm": recipe["arm"], "seed": seed, "step": step,
        }
        for suite in SUITES
        for problem in suite_problems(suite, QUESTIONS)
        for i in range(SAMPLES)
    ]  # fmt: skip


def make_archived_study(directory: Path) -> Path:
    """Write ``manifest.json``, the archive, and the results that follow from it."""
    plan = sweep()
    directory.mkdir(parents=True)
    write_json(directory / "manifest.json", manifest(plan, "csd sweep --config small", None))
    runs = []
    for job in sweep_jobs(plan, directory):
        step = 0 if job.recipe["arm"] == "base" else 2
        name = job.folder.relative_to(directory / "runs").as_posix()
        log = [{"step": 1, "epistemic/per_response": 4.0}, {"step": 2, "epistemic/per_response": 3.0}] if step else []
        evaluations = {f"eval/step_{step}/completions.jsonl": Evaluated(samples(job.recipe, step))}
        runs.append(ArchivedRun(name, "ok", job.recipe, ["0" * 40, False], 1.0, evaluations, log))
    write_archive_file(directory / ARCHIVE, runs)
    recompute(directory)
    return directory
