"""The reproduce recipe: profiles, arms and suites read from YAML, validated, hashed. No torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from calibrated_sd.errors import ConfigError, unknown_name

PROFILES = ("quick", "default", "full")


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
    """

    name: str
    label: str
    context: str = "s"
    trainer: dict[str, Any] = field(default_factory=dict)
    reference: str | None = None
    profiles: tuple[str, ...] = PROFILES


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


def load_plan(path: str | Path, profile: str = "default", seeds: int | None = None) -> Plan:
    """Read a reproduce recipe and apply a profile.

    Raises:
        ConfigError: unknown keys, arms or profiles, seeds below 1, or evaluation steps beyond the last step.
    """
    if profile not in PROFILES:
        raise unknown_name("profile", profile, PROFILES)
    text = Path(path).read_text(encoding="utf-8")
    raw = yaml.safe_load(text)
    if not isinstance(raw, dict) or "profiles" not in raw or "arms" not in raw:
        raise ConfigError(
            f"{path} is not a reproduce recipe: it needs the keys 'profiles' and 'arms'. "
            "See `csd cat organism/reproduce.yaml` for a complete one."
        )
    chosen = raw.pop("profiles")[profile] or {}
    arms_raw = raw.pop("arms")
    merged = {**raw, **chosen}
    merged["trainer"] = {**raw.get("trainer", {}), **chosen.get("trainer", {})}
    if seeds is not None:
        if seeds < 1:
            raise ConfigError(f"--seeds must be at least 1, got {seeds}. Give the number of training seeds, e.g. 3.")
        merged["seeds"] = list(range(seeds))
    known = {f.name for f in dataclasses.fields(Plan)} - {"arms", "profile", "recipe_hash"}
    for key in merged:
        if key not in known:
            raise unknown_name(f"key in {path}", key, known)
    arm_fields = {f.name for f in dataclasses.fields(Arm)} - {"name"}
    arms = []
    for name, fields in arms_raw.items():
        for key in fields:
            if key not in arm_fields:
                raise unknown_name(f"key of arm {name!r}", key, arm_fields)
        arm = Arm(name, **{**fields, "profiles": tuple(fields.get("profiles", PROFILES))})
        if profile in arm.profiles:
            arms.append(arm)
    for key in ("eval_steps", "seeds"):
        merged[key] = tuple(merged[key])
    if max(merged["eval_steps"]) != merged["steps"]:
        raise ConfigError(
            f"eval_steps of profile {profile!r} end at {max(merged['eval_steps'])}, but training has {merged['steps']} "
            "steps. Make the last evaluation step equal to `steps`."
        )
    digest = hashlib.sha256(json.dumps([merged, arms_raw], sort_keys=True).encode()).hexdigest()[:16]
    return Plan(profile=profile, arms=tuple(arms), recipe_hash=digest, **merged)
