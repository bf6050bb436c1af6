"""What a sweep recipe's keys must hold, and whether its runs can be made. Nothing is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from calibrated_sd.errors import ConfigError, shortened, unknown_name
from calibrated_sd.experiments.arm_settings import check_trainer_settings
from calibrated_sd.experiments.sweep_plan import Evaluation, Sweep
from calibrated_sd.experiments.training import is_organism
from calibrated_sd.organism.species import SPECIES
from calibrated_sd.records.setting_types import check_counts, check_settings

MOST_SEEDS = 1000
"""A number of seeds beyond this is a seed, or a slip."""


@dataclasses.dataclass
class SweepKeys:
    """The top-level keys of a sweep recipe."""

    base: str | dict[str, Any]
    settings: dict[str, Any] | None = None
    grid: dict[str, Any] | None = None
    arms: list[dict[str, Any]] | None = None
    landmarks: list[str] | dict[str, Any] | None = None
    seeds: int | list[int] = 1
    evaluation: dict[str, Any] | None = None
    curve: str | None = None
    retention_targets: list[float] = dataclasses.field(default_factory=list)
    workers: int = 2
    slurm: dict[str, Any] | None = None
    keep_models: bool = True


def check_keys(raw: Mapping[str, Any], path: Any) -> None:
    """Refuse keys that a sweep does not have, and values of another kind.

    Raises:
        ConfigError: one of these.
    """
    known = [f.name for f in dataclasses.fields(SweepKeys)]
    for key in raw:
        if key not in known:
            raise unknown_name(f"key in {path}", key, known)
    check_settings(raw, SweepKeys, str(path))
    check_counts(raw, {"workers": 1}, str(path))


def read_seeds(given: int | Sequence[int]) -> tuple[int, ...]:
    """``3`` → (0, 1, 2); a list as it is.

    Raises:
        ConfigError: none, too many, one of them twice, or one below 0.
    """
    if isinstance(given, int) and given > MOST_SEEDS:
        raise ConfigError(
            f"`seeds` is a number of seeds up to {MOST_SEEDS}, got {given}. To train one seed, write [{given}]."
        )
    seeds = tuple(range(given)) if isinstance(given, int) else tuple(given)
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"`seeds` must be a number of seeds or a list of different whole numbers from 0, got {shortened(given)}."
        )
    return seeds


def read_evaluation(raw: dict[str, Any], path: Any) -> Evaluation:
    """What stands under `evaluation`.

    Raises:
        ConfigError: an unknown key, or a value of another kind.
    """
    known = {f.name for f in dataclasses.fields(Evaluation)}
    where = f"`evaluation` in {path}"
    for key in raw:
        if key not in known:
            raise unknown_name(f"key under {where}", key, known)
    suites = raw.get("suites")
    for name, suite in suites.items() if isinstance(suites, dict) else ():
        if not isinstance(suite, dict) or not isinstance(suite.get("problems"), str):
            raise ConfigError(
                f"evaluation.suites.{name} must name a problem file: `{name}: {{problems: FILE, role: far}}`."
            )
    check_settings(raw, Evaluation, where)
    sizes = ("eval_problems", "eval_samples", "mid_problems", "mid_samples", "max_new_tokens")
    check_counts(raw, {**dict.fromkeys(sizes, 1), "question_seed": 0}, where)
    return Evaluation(**{**raw, "eval_steps": tuple(raw.get("eval_steps", ()))})


def check_sweep(sweep: Sweep) -> None:
    """Build every run's config once, so that a wrong value stops the sweep before it starts.

    Raises:
        ConfigError: something that no run could be made of.
    """
    if any(not t > 0 for t in sweep.targets):
        raise ConfigError(f"Retention targets are shares of the base model's density above 0, got {sweep.targets}.")
    longest = max((arm.steps for arm in sweep.arms), default=0)
    if any(not 0 < step <= longest for step in sweep.evaluation.eval_steps):
        raise ConfigError(
            f"evaluation.eval_steps {list(sweep.evaluation.eval_steps)} must lie between 1 and max_steps, {longest}."
        )
    _check_suites(sweep)
    for arm in sweep.arms:
        n, order = arm.data["n_problems"], arm.data["subset_seed"]
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise ConfigError(f"n_problems of {arm.name} must be a whole number from 1, got {shortened(n)}.")
        if order != "seed" and (not isinstance(order, int) or isinstance(order, bool)):
            raise ConfigError(
                f"subset_seed of {arm.name} must be a whole number, or `seed` to draw other problems with each training seed, "
                f"got {shortened(order)}."
            )
        check_trainer_settings(
            arm.trainer, f"the run {arm.name!r} of this sweep", steps=arm.steps, organism=is_organism(sweep.shared)
        )


def _check_suites(sweep: Sweep) -> None:
    suites, own = sweep.evaluation.suites, is_organism(sweep.shared)
    if own and suites:
        raise ConfigError(
            "The organism brings its own suites. Leave out evaluation.suites, or set `problems` to a file."
        )
    if own and sweep.shared["model"] in SPECIES and sweep.shared["model"] != sweep.shared["problems"]:
        raise ConfigError(
            f"model: {sweep.shared['model']} does not know the words of problems: {sweep.shared['problems']}. Set both to "
            "the same organism."
        )
    if not own and all(suite.get("role", "far") == "train" for suite in suites.values()):
        raise ConfigError(
            f"A sweep on problems={sweep.shared['problems']!r} needs a suite that is not trained on: "
            "`evaluation: {suites: {far: {problems: FILE, role: far}}}`."
        )
