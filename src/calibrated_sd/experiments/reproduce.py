"""The main job: train every arm on the organism, measure, decide the claims. No torch in this process.

Order: the base evaluation, the ladder and all arms as separate jobs (see `runner`), then the files that reports read.
Everything is derived from what the jobs wrote, so a run that was interrupted is finished by running it again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from calibrated_sd.errors import CalibratedSDError, ConfigError, DataError
from calibrated_sd.experiments.archive import write_archive
from calibrated_sd.experiments.arm_settings import check_arms
from calibrated_sd.experiments.claims import evaluate_claims
from calibrated_sd.experiments.collect import BASE, RunData, load_run, summarise_run
from calibrated_sd.experiments.provenance import provenance
from calibrated_sd.experiments.recipe import Arm, Plan, load_plan
from calibrated_sd.experiments.runner import OK, Job, run_jobs, runs_made_at
from calibrated_sd.organism.checkpoint import organism_path
from calibrated_sd.organism.suites import SUITES, suite_problems
from calibrated_sd.records import prepare_output, read_jsonl, read_object, write_json, write_jsonl
from calibrated_sd.records.files import write_bytes

Progress = Callable[[str, float], None]


def plan_jobs(plan: Plan, directory: Path) -> list[Job]:
    """All jobs of a plan; the cost is in units of one rollout generated and trained on."""
    shared = {
        "model": plan.model,
        "n_train_problems": plan.n_train_problems,
        "max_new_tokens": plan.max_new_tokens,
        "eval_problems": plan.eval_problems,
        "eval_samples": plan.eval_samples,
    }
    runs = directory / "runs"
    jobs = [
        Job(
            runs / BASE / "seed_0",
            {"kind": "base", "arm": BASE, "seed": 0, "trace_rollouts": plan.trace_rollouts, **shared},
        ),
        Job(
            runs / "ladder",
            {
                "kind": "ladder",
                "arm": BASE,
                "model": plan.model,
                "ladder_problems": plan.ladder_problems,
                "ladder_samples": plan.ladder_samples,
                "ladder_screen": plan.ladder_screen,
            },
        ),
    ]
    for seed in plan.seeds:
        for arm in plan.arms:
            jobs.append(
                Job(runs / arm.name / f"seed_{seed}", arm_recipe(plan, arm, seed, shared), cost=_cost(plan, arm))
            )
    return jobs


def arm_recipe(plan: Plan, arm: Arm, seed: int, shared: Mapping[str, Any]) -> dict[str, Any]:
    """The `recipe` in `run.json` of one arm and seed; what an arm leaves to the plan is not mentioned twice."""
    steps = list(plan.eval_steps_of(arm))
    own: dict[str, Any] = {key: getattr(arm, key) for key in ("eval_samples", "n_train_problems")}
    own["subset_seed"] = seed if arm.subset_seed == "seed" else arm.subset_seed
    recipe = {
        "kind": arm.kind,
        "arm": arm.name,
        "seed": seed,
        "steps": plan.steps_of(arm),
        "eval_steps": steps,
        "save_steps": min(steps[0], plan.eval_steps[0]),
        "mid_problems": arm.mid_problems or plan.mid_problems,
        "mid_samples": plan.mid_samples,
        "trainer": {**plan.trainer, **arm.trainer},
        **shared,
        **{key: value for key, value in own.items() if value is not None},
    }
    if arm.kind == "sft":
        for key in ("eval_steps", "save_steps", "mid_problems", "mid_samples"):
            del recipe[key]
        recipe |= {"data": arm.data, "data_samples": arm.data_samples, "trainer": dict(arm.trainer)}
    return recipe


def _cost(plan: Plan, arm: Arm) -> float:
    if arm.kind == "sft":
        return 3.0
    return 2.0 + 0.3 * plan.steps_of(arm)


def _manifest(plan: Plan, command: str, wall_time_s: float | None) -> dict[str, Any]:
    """The file that says what a folder is; rewritten with the wall time at the end."""
    block = provenance(command=command, model_path=organism_path(plan.model), wall_time_s=wall_time_s)
    block |= {"recipe_hash": plan.recipe_hash, "seed": list(plan.seeds)}
    arms: list[dict[str, Any]] = [{"name": BASE, "label": "base (step 0)", "context": "–", "color_key": BASE}]
    for arm in plan.arms:
        settings = dict(arm.trainer) if arm.kind == "sft" else {**plan.trainer, **arm.trainer}
        arms.append(
            {
                "name": arm.name,
                "label": arm.label,
                "context": arm.context,
                "kind": arm.kind,
                "steps": plan.steps_of(arm),
                "n_train_problems": arm.n_train_problems or plan.n_train_problems,
                "coverage_of": arm.coverage_of,
                "calibration_method": settings.get("calibration_method")
                if settings.get("calibration_strength")
                else None,
                "calibration_strength": settings.get("calibration_strength", 0.0),
                "distillation_weight": None if arm.kind == "sft" else settings.get("distillation_weight", 1.0),
                "learning_rate": settings["learning_rate"],
                "color_key": arm.name,
            }
        )
    return {
        "schema_version": 1,
        "kind": "reproduce",
        "profile": plan.profile,
        "best": plan.best,
        "arms": arms,
        "suites": [{"name": name, "label": label, "role": role} for name, (role, label) in SUITES.items()],
        "seeds": list(plan.seeds),
        "eval_steps": [0, *plan.eval_steps],
        "plan": asdict(plan),
        "notes": _notes(plan),
        "provenance": block,
    }


def _notes(plan: Plan) -> list[str]:
    rollouts = plan.steps * plan.trainer["per_device_train_batch_size"] * plan.trainer["gradient_accumulation_steps"]
    notes = [
        f"Every arm: the same {plan.n_train_problems} problems, {plan.steps} steps, {rollouts} rollouts, learning rate "
        f"{plan.trainer['learning_rate']:g}, temperature 1; what differs is named in the arm's label.",
        "Model organism of about 0.9M parameters: it argues mechanism, not scale.",
    ]
    if plan.profile == "quick":
        notes.append("Smoke run: too small to conclude anything; it shows that every part works.")
    if len(plan.seeds) == 1:
        notes.append("One training seed: intervals cover the choice of questions and samples, not of the training run.")
    return notes


def write_examples(data: RunData, path: Path, n_per_suite: int = 2) -> None:
    """A few completions of every arm on the same problems, chosen by their order in the suites and not by their text.

    Of each arm's first seed; without the arms of other coverage, which were not trained on the same problems. The texts
    of archived runs are gone, so theirs are kept from the file that is there.
    """
    kept = read_jsonl(path) if data.words and path.is_file() else []
    texts = {(row["arm"], row["suite"], row["problem_id"]): row["completion"] for row in kept}
    arms = [arm for arm in data.arms if arm not in data.coverage_arms]
    last = {arm: data.final_step(arm) for arm in arms}
    seeds = {arm: min(r["seed"] for r in data.records if r["arm"] == arm and r["step"] == last[arm]) for arm in arms}
    finals = {
        (r["arm"], r["suite"], r["problem_id"]): r
        for r in data.records
        if r["arm"] in last and r["sample"] == 0 and r["seed"] == seeds[r["arm"]] and r["step"] == last[r["arm"]]
    }
    rows = []
    for suite in SUITES:
        problems = suite_problems(suite, 10_000)
        shared = [p for p in problems if all((arm, suite, p.problem_id) in finals for arm in arms)]
        for problem in shared[:n_per_suite]:
            for arm in arms:
                record = finals[arm, suite, problem.problem_id]
                keys = ("arm", "suite", "problem_id", "completion", "correct", "n_tokens")
                row = {**{key: record[key] for key in keys}, "problem": problem.question}
                if (arm, record["seed"], record["step"]) in data.words:
                    row["completion"] = texts.get((arm, suite, problem.problem_id))
                rows += [row] if row["completion"] is not None else []
    write_jsonl(path, rows)


def write_claims(
    directory: Path, data: RunData, *, best: str, profile: str, command: str, block: dict[str, Any]
) -> list[dict[str, Any]]:
    """Write `summary.csv` and, with this provenance block, `claims.json`; returns the claims."""
    write_bytes(directory / "summary.csv", summarise_run(data).to_csv(index=False).encode())
    claims = evaluate_claims(data, best, command)
    content = {"schema_version": 1, "profile": profile, "claims": claims, "provenance": block}
    write_json(directory / "claims.json", content)
    return claims


def write_results(directory: Path, plan: Plan, command: str, wall_time_s: float | None) -> list[dict[str, Any]]:
    """Everything derived from the jobs' files: summary, claims, examples, traces, manifest. Returns the claims."""
    data = load_run(directory)
    manifest = _manifest(plan, command, wall_time_s)
    manifest["provenance"]["runs_made_at"] = runs_made_at(directory)
    block = manifest["provenance"]
    claims = write_claims(directory, data, best=plan.best, profile=plan.profile, command=command, block=block)
    write_examples(data, directory / "examples.jsonl")
    traces = directory / "runs" / BASE / "seed_0" / "traces.jsonl"
    if traces.is_file():
        write_jsonl(directory / "traces.jsonl", read_jsonl(traces))
    write_json(directory / "manifest.json", manifest)
    return claims


def reproduce(
    recipe: Path,
    directory: Path,
    *,
    profile: str = "default",
    seeds: int | Sequence[int] | None = None,
    workers: int | None = None,
    if_exists: str = "raise",
    command: str = "csd reproduce",
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Run a reproduction and write its results (all but figures and page, which `reports` makes from them).

    Args:
        recipe: the YAML recipe.
        directory: output folder.
        profile: ``"quick"``, ``"default"`` or ``"full"``.
        seeds: training seeds instead of the profile's, or how many of 0, 1, 2, …
        workers: jobs at the same time, instead of the recipe's number.
        if_exists: ``"raise"``, ``"resume"`` or ``"overwrite"``.
        command: the command line, recorded with every figure.
        progress: called with a line and the share done.

    Returns:
        The entries of ``claims.json``.

    Raises:
        ConfigError: a bad recipe, or resuming a folder made with another recipe.
        OutputError: the folder is not empty.
        DataError: jobs failed; the message names them, and what finished is kept.
    """
    plan = load_plan(recipe, profile, seeds)
    check_arms(plan)  # before anything is changed
    prepare_output(directory, if_exists, kind="reproduce", inputs=(recipe,))
    spent = 0.0
    if (directory / "manifest.json").is_file():
        old = read_object(directory / "manifest.json", "provenance")
        if old["provenance"].get("recipe_hash") != plan.recipe_hash:
            raise ConfigError(
                f"{directory} was made with another recipe, profile or number of seeds ({old.get('profile')}, "
                f"{len(old.get('seeds', []))} seeds), so it cannot be resumed with this one. Use the same options, "
                "another output folder, or --if-exists overwrite."
            )
        spent = old["provenance"].get("wall_time_s") or 0.0
    write_json(directory / "manifest.json", _manifest(plan, command, None))
    since = time.monotonic()
    try:
        statuses = run_jobs(plan_jobs(plan, directory), workers=workers or plan.workers, progress=progress)
    except BaseException:
        with contextlib.suppress(CalibratedSDError):  # what stopped it is said, not that the archive is behind
            write_archive(directory)
        raise
    write_archive(directory)
    claims = write_results(directory, plan, command, round(spent + time.monotonic() - since, 1))
    failed = [folder for folder, status in statuses.items() if status != OK]
    if failed:
        names = ", ".join(str(f.relative_to(directory)) for f in failed)
        raise DataError(
            f"{len(failed)} of {len(statuses)} jobs did not finish: {names}. Each folder's worker.log says why. What "
            "finished is kept and reported; run the same command with --if-exists resume to try the rest again."
        )
    return claims
