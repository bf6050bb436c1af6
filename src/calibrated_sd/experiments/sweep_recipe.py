"""The sweep recipe: a base recipe, what varies, the landmarks, how runs are evaluated. Read, checked, expanded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibrated_sd.errors import ConfigError, shortened, unknown_name
from calibrated_sd.experiments.grid import (
    DATA_FIELDS,
    RUNNER_FIELDS,
    SHARED_FIELDS,
    SUGGESTED,
    Fields,
    canonical_field,
    digest,
    expand,
    field_label,
    point_name,
    point_text,
    set_field,
    trainer_fields,
    value_text,
)
from calibrated_sd.experiments.sweep_checks import check_keys, check_sweep, read_evaluation, read_seeds
from calibrated_sd.experiments.sweep_plan import (
    BASE,
    CALIBRATION,
    METHOD,
    RETENTION_TARGETS,
    STRENGTH,
    Sweep,
    SweepArm,
)
from calibrated_sd.experiments.train_recipe import RunArguments
from calibrated_sd.experiments.training import ON_CPU
from calibrated_sd.records.folder_names import check_folder_name
from calibrated_sd.records.recipe_files import read_recipe
from calibrated_sd.records.setting_types import check_settings

LANDMARKS: dict[str, tuple[str, dict[str, Any]]] = {
    "sdpo": ("plain SDPO", {"distillation_weight": 1.0}),
    "policy_gradient": ("policy gradient", {"distillation_weight": 0.0}),
}
"""Runs that every plot should show: name → (label, settings over the shared ones, with calibration and contexts off)."""


def is_sweep(raw: Mapping[str, Any]) -> bool:
    """Whether a recipe's top-level keys are those of a sweep."""
    return ("base" in raw or "grid" in raw) and "profiles" not in raw


def load_sweep(path: str | Path, seeds: list[int] | None = None, find: Any = Path) -> Sweep:
    """Read a sweep recipe and check every run of it against the trainer's own config.

    Args:
        path: the file.
        seeds: training seeds instead of the file's.
        find: turns the name under ``base`` into a path.

    Raises:
        ConfigError: an unknown key or field (the nearest one is suggested), a value that the trainer refuses, nothing
            to run, or two different runs of one name.
    """
    text, raw = read_recipe(path)
    if "base" not in raw or not ("grid" in raw or "arms" in raw):
        raise ConfigError(
            f"{path} is not a sweep: it needs `base` and either `grid` or `arms`. See `csd cat sweeps/strength` for a "
            "complete one."
        )
    check_keys(raw, path)
    known = trainer_fields()
    shared, common = _shared_settings(raw, known, find)
    points = _points(raw, known)
    fields = tuple(dict.fromkeys(name for _, _, swept in points for name in swept))
    curve = raw.get("curve") or (STRENGTH if STRENGTH in fields else fields[-1])
    if curve not in fields:
        raise unknown_name("swept field under `curve`", curve, fields)
    arms = _landmarks(raw.get("landmarks"), common, known)
    for label, several, swept in points:
        arm = _point_arm(label, several, swept, common, known, curve)
        same = next((other for other in arms if _work(other) == _work(arm)), None)
        if same is not None and arm.series in (same.series, None):
            continue  # the same run twice, e.g. strength 0 of every method
        if any(other.name == arm.name for other in arms):
            arm = dataclasses.replace(arm, name=f"{arm.name}-{digest(_work(arm))}")
        arms.append(arm)
    sweep = Sweep(
        title=(text.splitlines() or [""])[0].lstrip("# ").split("  ")[0].strip(),
        arms=tuple(arms),
        seeds=read_seeds(raw.get("seeds", [0]) if seeds is None else seeds),
        evaluation=read_evaluation(raw.get("evaluation") or {}, path),
        curve=curve,
        fields=fields,
        defaults={name: _default(known[name]) for name in fields if name in known and name != METHOD},
        shared=shared,
        targets=tuple(float(t) for t in raw.get("retention_targets", RETENTION_TARGETS)),
        workers=raw.get("workers", 2),
        slurm=dict(raw.get("slurm") or {}),
        keep_models=raw.get("keep_models", True),
        recipe_hash=digest(raw, 16),
    )
    check_sweep(sweep)
    return sweep


def _work(arm: SweepArm) -> tuple[Any, ...]:
    return arm.trainer, arm.data, arm.steps


def _shared_settings(raw: dict[str, Any], known: Fields, find: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(model, problems, grader and adapter; all other settings) of the base recipe with `settings` over it."""
    base = raw["base"]
    if isinstance(base, str):
        base = read_recipe(find(base))[1]
    trainer = (base | (raw.get("settings") or {})).get("trainer", "sdpo")
    if trainer != "sdpo":
        raise ConfigError(
            f"A sweep runs SDPO, but the base recipe has trainer: {shortened(trainer, plain=True)}. Run that one by csd train."
        )
    shared: dict[str, Any] = {"model": "organism", "problems": "organism", "grader": "boxed", "lora_r": 0}
    common: dict[str, Any] = {"n_problems": 64, "subset_seed": 0}
    together = {**base, **(raw.get("settings") or {})}
    check_settings({k: v for k, v in together.items() if k not in DATA_FIELDS}, RunArguments, "`base` and `settings`")
    for key, value in together.items():
        if key in SHARED_FIELDS:
            shared[key] = value
        elif key not in RUNNER_FIELDS:
            set_field(common, canonical_field(key, known), value, known)
    return shared, common


def _points(raw: dict[str, Any], known: Fields) -> list[tuple[str | None, list[str], dict[str, Any]]]:
    """(label, fields with several values in its entry, {field: value}) of every point, grid first."""
    entries: list[tuple[str | None, Any]] = [(None, raw["grid"])] if raw.get("grid") else []
    for entry in raw.get("arms") or []:
        if not isinstance(entry, dict):
            raise ConfigError(f"An entry of `arms` must be a mapping of fields to values, got {shortened(entry)}.")
        label = entry.get("label")
        entries.append((None if label is None else str(label), {k: v for k, v in entry.items() if k != "label"}))
    points: list[tuple[str | None, list[str], dict[str, Any]]] = []
    for label, axes in entries:
        named = {canonical_field(name, known): values for name, values in axes.items()}
        several = [name for name, values in named.items() if isinstance(values, list) and len(values) > 1]
        points += [(label, several, swept) for swept in expand(named) if swept]
    if not points:
        raise ConfigError("The sweep has no point to run. Give `grid` a field with values, or `arms` an entry.")
    return points


def _point_arm(
    label: str | None, several: list[str], swept: dict[str, Any], common: dict[str, Any], known: Fields, curve: str
) -> SweepArm:
    settings = dict(common)
    for name, value in swept.items():
        set_field(settings, name, value, known)
    if settings.get(STRENGTH) == SUGGESTED:
        settings[STRENGTH] = _suggested(settings.get(METHOD, "projection"))
    swept = {name: settings.get(name, value) for name, value in swept.items()}  # numbers as numbers
    others = ", ".join(
        value_text(value) if _speaks_for_itself(value) else f"{field_label(name)} = {value_text(value)}"
        for name, value in swept.items()
        if name != curve
    )
    series: str | None = label or others
    if not series:
        series = str(settings.get(METHOD, "projection")) if curve == STRENGTH else field_label(curve)
    if curve == STRENGTH and not settings.get(STRENGTH) and label is None:  # no calibrator, so of no method
        settings = {key: value for key, value in settings.items() if key not in CALIBRATION}
        swept.pop(METHOD, None)
        series = None
    varied = list(dict.fromkeys([*several, curve]))
    name = point_name(swept if label is None else {METHOD: label, **{field: swept.get(field) for field in varied}})
    places = varied if label is not None else [curve]
    words = ", ".join(
        [*([series] if series else []), *(f"{field_label(field)} {point_text(swept.get(field))}" for field in places)]
    )
    return _arm(name, words, settings, known, series=series, point=swept.get(curve), swept=swept)


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if isinstance(field.default, (int, float, str)) else None


def _speaks_for_itself(value: Any) -> bool:
    return isinstance(value, str) and value.isidentifier()


def _arm(name: str, label: str, settings: dict[str, Any], known: Fields, **place: Any) -> SweepArm:
    kept = {*ON_CPU, *([METHOD] if settings.get(STRENGTH) else [])}  # said even where it is the default
    trainer = {
        key: value
        for key, value in settings.items()
        if key in known and key != "max_steps" and (key in kept or value != known[key].default)
    }
    steps = settings.get("max_steps")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ConfigError(
            f"A sweep compares runs of known length, but max_steps is {shortened(steps)}. Set `settings: {{max_steps: 16}}`."
        )
    data = {key: settings[key] for key in DATA_FIELDS}
    return SweepArm(check_folder_name(name, "A run"), label, trainer=trainer, data=data, steps=steps, **place)


def _suggested(method: str) -> float:
    from calibrated_sd.calibrators import CALIBRATORS

    if not isinstance(method, str) or method not in CALIBRATORS:
        raise unknown_name(METHOD, method, CALIBRATORS)
    return CALIBRATORS[method].suggested


def _landmarks(given: Any, common: dict[str, Any], known: Fields) -> list[SweepArm]:
    """The landmark arms; `base` needs no training and is always there."""
    named = dict.fromkeys(given) if isinstance(given, list) else given
    if named is None:
        named = dict.fromkeys(LANDMARKS)
    plain = {k: v for k, v in common.items() if not k.startswith("context_") and k not in CALIBRATION}
    arms = []
    for name, entry in named.items():
        if entry is not None and not isinstance(entry, dict):
            raise ConfigError(f"The landmark {name!r} must be a mapping of fields to values, got {shortened(entry)}.")
        if name == BASE:
            continue
        if entry is None and name not in LANDMARKS:
            raise unknown_name("landmark", name, [BASE, *LANDMARKS])
        label, changes = LANDMARKS.get(name, (name.replace("_", " "), {}))
        changes = {**changes, **(entry or {})}
        label = str(changes.pop("label", label))
        settings = dict(plain)
        for key, value in changes.items():
            set_field(settings, canonical_field(key, known), value, known)
        arms.append(_arm(name, label, settings, known, series=None, point=None, swept={}))
    return arms
