"""The reproduce recipe: profiles, arms and suites read from YAML, validated, hashed. No torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calibrated_sd.errors import ConfigError, shortened, unknown_name
from calibrated_sd.records.folder_names import check_folder_name
from calibrated_sd.records.recipe_files import read_recipe
from calibrated_sd.records.setting_types import check_counts, check_settings

PROFILES = ("quick", "default", "full")
KINDS = ("arm", "sft")
"""``arm``: on-policy, with the trainer of this package; ``sft``: off-policy, on answers sampled beforehand."""
SFT_DATA = ("D_ug", "D_sg", "D_ug_token_matched", "D_sg_token_matched")
"""Data sets of `context_analysis.off_policy` that an arm of kind ``sft`` can learn."""


ALWAYS_SAID = ("learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps")
"""Trainer settings that the results name, so that a recipe must."""
LEAST = {
    **dict.fromkeys(("steps", "n_train_problems", "eval_problems", "eval_samples", "max_new_tokens", "workers"), 1),
    **dict.fromkeys(("mid_problems", "mid_samples", "ladder_problems", "ladder_screen", "ladder_samples"), 1),
    "trace_rollouts": 0,
}
"""Smallest sizes of a plan that make sense."""


@dataclass(frozen=True)
class Arm:
    """One training run of the comparison; what is not named here is equal in all arms.

    Attributes:
        name: folder name.
        label: name in tables and figures.
        context: the paper's notation of what the teacher sees, for tables.
        trainer: fields of `CalibratedSDPOConfig` that differ from the shared ones.
        reference: name of the arm whose only difference is the calibrator, if there is one.
        profiles: the profiles that include the arm.
        kind: one of `KINDS`. The shared trainer settings do not apply to ``sft``.
        data: what an arm of kind ``sft`` learns, one of `SFT_DATA`.
        data_samples: answers of each kind that it samples of each training problem to build that.
        coverage_of: name of the arm that does the same with the plan's number of training problems.
        steps, eval_steps, eval_samples, mid_problems, n_train_problems: instead of the plan's. An arm of kind ``sft``
            counts passes over its data as steps, because its data sets differ in size.
        subset_seed: which problems are trained on; ``"seed"``: the training seed draws them too; None: 0.
    """

    name: str
    label: str
    context: str = "s"
    trainer: dict[str, Any] = field(default_factory=dict)
    reference: str | None = None
    profiles: tuple[str, ...] = PROFILES
    kind: str = "arm"
    data: str | None = None
    data_samples: int = 8
    coverage_of: str | None = None
    steps: int | None = None
    eval_steps: tuple[int, ...] | None = None
    eval_samples: int | None = None
    mid_problems: int | None = None
    n_train_problems: int | None = None
    subset_seed: int | str | None = None


@dataclass(frozen=True)
class Plan:
    """Everything one `csd reproduce` does, after the profile has been applied.

    Attributes:
        profile: quick, default or full.
        steps: optimizer steps of each arm; the same number of rollouts everywhere.
        eval_steps: steps after which the arm is evaluated (the last one is `steps`).
        seeds: training seeds.
        n_train_problems: problems trained on.
        eval_problems, eval_samples: final evaluation of each suite.
        mid_problems, mid_samples: the same for evaluations during training.
        ladder_problems, ladder_screen, ladder_samples: problems per family, samples for screening by pass rate, and
            samples per context level in the ladder.
        trace_rollouts: base rollouts coloured by per-token suppression.
        trainer: fields of `CalibratedSDPOConfig` shared by all arms.
        arms: the arms.
        best: name of the arm that C-repair compares with plain SDPO; fixed before the run.
        workers: arms trained at the same time, one thread each.
    """

    profile: str
    steps: int
    eval_steps: tuple[int, ...]
    seeds: tuple[int, ...]
    n_train_problems: int
    eval_problems: int
    eval_samples: int
    mid_problems: int
    mid_samples: int
    ladder_problems: int
    ladder_screen: int
    ladder_samples: int
    trace_rollouts: int
    trainer: dict[str, Any]
    arms: tuple[Arm, ...]
    best: str
    workers: int = 2
    model: str = "organism"
    max_new_tokens: int = 224
    recipe_hash: str = ""

    def arm(self, name: str) -> Arm:
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise unknown_name("arm", name, [a.name for a in self.arms])

    def steps_of(self, arm: Arm) -> int:
        """The step after which an arm is finished."""
        return arm.steps or self.steps

    def eval_steps_of(self, arm: Arm) -> tuple[int, ...]:
        """The steps after which an arm is evaluated; with its own `steps` and nothing else said, the last one."""
        return arm.eval_steps or (self.eval_steps if arm.steps is None else (arm.steps,))


def load_plan(path: str | Path, profile: str = "default", seeds: int | Sequence[int] | None = None) -> Plan:
    """Read a reproduce recipe and apply a profile.

    Args:
        path: the YAML recipe.
        profile: one of `PROFILES`.
        seeds: training seeds instead of the profile's, or how many of 0, 1, 2, …

    Raises:
        ConfigError: unknown keys, arms or profiles, seeds below 1, or evaluation steps beyond the last step.
    """
    if profile not in PROFILES:
        raise unknown_name("profile", profile, PROFILES)
    return make_plan(read_recipe(path)[1], path, profile, seeds)


def make_plan(
    recipe: Mapping[str, Any], path: str | Path, profile: str, seeds: int | Sequence[int] | None = None
) -> Plan:
    """The same of a recipe that has been read. Raises ConfigError."""
    raw = dict(recipe)
    if "profiles" not in raw or "arms" not in raw:
        raise ConfigError(
            f"{path} is not a reproduce recipe: it needs the keys 'profiles' and 'arms'. "
            "See `csd cat organism/reproduce.yaml` for a complete one."
        )
    profiles, arms_raw = _mapping("profiles", raw.pop("profiles"), path), _mapping("arms", raw.pop("arms"), path)
    for name in profiles:
        if name not in PROFILES:
            raise unknown_name(f"profile in {path}", name, PROFILES)
    if profile not in profiles:
        raise ConfigError(f"{path} has no profile {profile!r}. Give `profiles` one: {', '.join(PROFILES)}.")
    chosen = _mapping(f"profiles.{profile}", profiles[profile] or {}, path)
    merged = {**raw, **chosen}
    merged["trainer"] = {
        k: v for part in (raw, chosen) for k, v in _mapping("trainer", part.get("trainer", {}), path).items()
    }
    if seeds is not None:
        if isinstance(seeds, int) and seeds < 1:
            raise ConfigError(f"--seeds must be at least 1, got {seeds}. Give the number of training seeds, e.g. 3.")
        merged["seeds"] = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    known = {f.name for f in dataclasses.fields(Plan)} - {"arms", "profile", "recipe_hash"}
    for key in merged:
        if key not in known:
            raise unknown_name(f"key in {path}", key, known)
    _check_values(merged, f"profile {profile!r} of {path}")
    for key in ("eval_steps", "seeds"):
        merged[key] = tuple(merged[key])
    named = {name: _arm(name, _mapping(f"arms.{name}", fields, path)) for name, fields in arms_raw.items()}
    arms = tuple(arm for arm in named.values() if profile in arm.profiles)
    kept = {arm.name: arms_raw[arm.name] for arm in arms}  # what other profiles have besides changes no run of this one
    digest = hashlib.sha256(json.dumps([merged, kept], sort_keys=True).encode()).hexdigest()[:16]
    plan = Plan(profile=profile, arms=arms, recipe_hash=digest, **merged)
    _check_steps(f"profile {profile!r}", plan.eval_steps, plan.steps)
    for arm in arms:
        _check_steps(f"arm {arm.name!r}", plan.eval_steps_of(arm), plan.steps_of(arm))
        if arm.coverage_of is not None:
            plan.arm(arm.coverage_of)
        if arm.reference is not None:
            plan.arm(arm.reference)
    plan.arm(plan.best)
    return plan


def _mapping(name: str, given: Any, path: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ConfigError(
            f"{name} in {path} must be a mapping, got {shortened(given)}. See `csd cat organism/reproduce`."
        )
    return given


def _check_values(merged: Mapping[str, Any], where: str) -> None:
    """Refuse a profile that lacks a setting or has a value that means nothing. Raises ConfigError."""
    needed = [
        f.name
        for f in dataclasses.fields(Plan)
        if f.default is dataclasses.MISSING and f.name not in ("profile", "arms", *merged)
    ]
    needed += [f"trainer.{key}" for key in ALWAYS_SAID if key not in merged["trainer"]]
    if needed:
        raise ConfigError(f"The {where} lacks {', '.join(needed)}. Set them there, or above `profiles` for all.")
    check_settings(merged, Plan, f"the {where}")
    check_counts(merged, LEAST, f"the {where}")
    seeds = list(merged["seeds"])
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds of the {where} must be different whole numbers from 0, got {shortened(seeds)}.")


def _arm(name: str, fields: Mapping[str, Any]) -> Arm:
    check_folder_name(name, "An arm")
    known = {f.name for f in dataclasses.fields(Arm)} - {"name"}
    for key in fields:
        if key not in known:
            raise unknown_name(f"key of arm {name!r}", key, known)
    if "label" not in fields:
        raise ConfigError(f"The arm {name!r} has no label. Give it the name that tables and figures show.")
    check_settings(fields, Arm, f"arm {name!r}")
    tuples = {key: tuple(fields[key]) for key in ("profiles", "eval_steps") if fields.get(key) is not None}
    arm = Arm(name, **{**fields, **tuples})
    for given in arm.profiles:
        if given not in PROFILES:
            raise unknown_name(f"profile of arm {name!r}", given, PROFILES)
    if arm.kind not in KINDS:
        raise unknown_name(f"kind of arm {name!r}", arm.kind, KINDS)
    if arm.kind == "sft" and arm.data not in SFT_DATA:
        raise unknown_name(f"data of arm {name!r}", str(arm.data), SFT_DATA)
    if arm.kind == "sft" and "learning_rate" not in arm.trainer:
        raise ConfigError(f"The arm {name!r} of kind sft has no trainer.learning_rate. The results name it: give one.")
    if isinstance(arm.subset_seed, str) and arm.subset_seed != "seed":
        raise ConfigError(
            f"subset_seed of arm {name!r} is {arm.subset_seed!r}. Give a number, or `seed` to draw other problems with each "
            "training seed."
        )
    for key in ("steps", "eval_samples", "mid_problems", "n_train_problems", "data_samples"):
        value = getattr(arm, key)
        if value is not None and value < 1:
            raise ConfigError(f"{key} of arm {name!r} must be at least 1, got {value}.")
    return arm


def _check_steps(what: str, eval_steps: Sequence[int], steps: int) -> None:
    if not eval_steps or min(eval_steps) < 1:
        raise ConfigError(f"eval_steps of {what} must be a list of steps from 1, got {list(eval_steps)}.")
    if max(eval_steps) != steps:
        raise ConfigError(
            f"eval_steps of {what} end at {max(eval_steps)}, but training has {steps} steps. Make the last evaluation "
            "step equal to `steps`."
        )
