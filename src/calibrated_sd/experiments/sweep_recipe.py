"""The sweep recipe: a base recipe, what varies, the landmarks, how runs are evaluated. Read, checked, expanded."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from calibrated_sd.errors import ConfigError, unknown_name
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
from calibrated_sd.experiments.sweep_plan import (
    BASE,
    CALIBRATION,
    METHOD,
    RETENTION_TARGETS,
    STRENGTH,
    Evaluation,
    Sweep,
    SweepArm,
)
from calibrated_sd.experiments.training import ON_CPU, is_organism, trainer_settings
from calibrated_sd.organism.species import SPECIES
from calibrated_sd.records.folder_names import check_folder_name

LANDMARKS: dict[str, tuple[str, dict[str, Any]]] = {
    "sdpo": ("plain SDPO", {"distillation_weight": 1.0}),
    "policy_gradient": ("policy gradient", {"distillation_weight": 0.0}),
}
"""Runs that every plot should show: name → (label, settings over the shared ones, with calibration and contexts off)."""

_KEYS = ("base", "settings", "grid", "arms", "landmarks", "seeds", "evaluation", "curve", "retention_targets",
         "workers", "slurm", "keep_models")  # fmt: skip


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
    text = Path(path).read_text(encoding="utf-8")
    raw = yaml.safe_load(text)
    if not isinstance(raw, dict) or "base" not in raw or not ("grid" in raw or "arms" in raw):
        raise ConfigError(
            f"{path} is not a sweep: it needs `base` and either `grid` or `arms`. See `csd cat sweeps/strength` for a "
            "complete one."
        )
    for key in raw:
        if key not in _KEYS:
            raise unknown_name(f"key in {path}", key, _KEYS)
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
    given = raw.get("seeds", [0]) if seeds is None else seeds
    sweep = Sweep(
        title=text.splitlines()[0].lstrip("# ").split("  ")[0].strip(),
        arms=tuple(arms),
        seeds=tuple(range(given)) if isinstance(given, int) else tuple(given),
        evaluation=_evaluation(raw.get("evaluation") or {}, path),
        curve=curve,
        fields=fields,
        defaults={name: _default(known[name]) for name in fields if name in known and name != METHOD},
        shared=shared,
        targets=tuple(float(t) for t in raw.get("retention_targets", RETENTION_TARGETS)),
        workers=int(raw.get("workers", 2)),
        slurm=dict(raw.get("slurm") or {}),
        keep_models=bool(raw.get("keep_models", True)),
        recipe_hash=digest(raw, 16),
    )
    _check(sweep)
    return sweep


def _work(arm: SweepArm) -> tuple[Any, ...]:
    return arm.trainer, arm.data, arm.steps


def _shared_settings(raw: dict[str, Any], known: Fields, find: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(model, problems, grader and adapter; all other settings) of the base recipe with `settings` over it."""
    base = raw["base"]
    if isinstance(base, str):
        base = yaml.safe_load(Path(find(base)).read_text(encoding="utf-8"))
    if not isinstance(base, dict):
        raise ConfigError(f"`base` must name a training recipe or hold its settings, got {raw['base']!r}.")
    trainer = (base | (raw.get("settings") or {})).get("trainer", "sdpo")
    if trainer != "sdpo":
        raise ConfigError(f"A sweep runs SDPO, but the base recipe has trainer: {trainer}. Run that one by csd train.")
    shared: dict[str, Any] = {"model": "organism", "problems": "organism", "grader": "boxed", "lora_r": 0}
    common: dict[str, Any] = {"n_problems": 64, "subset_seed": 0}
    for key, value in {**base, **(raw.get("settings") or {})}.items():
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
            raise ConfigError(f"An entry of `arms` must be a mapping of fields to values, got {entry!r}.")
        label = entry.get("label")
        entries.append((None if label is None else str(label), {k: v for k, v in entry.items() if k != "label"}))
    points: list[tuple[str | None, list[str], dict[str, Any]]] = []
    for label, axes in entries:
        if not isinstance(axes, dict):
            raise ConfigError(f"`grid` must be a mapping of fields to lists of values, got {axes!r}.")
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
    if not isinstance(steps, int) or steps < 1:
        raise ConfigError(
            f"A sweep compares runs of known length, but max_steps is {steps!r}. Set `settings: {{max_steps: 16}}`."
        )
    data = {key: settings[key] for key in DATA_FIELDS}
    return SweepArm(check_folder_name(name, "A run"), label, trainer=trainer, data=data, steps=steps, **place)


def _suggested(method: str) -> float:
    from calibrated_sd.calibrators import CALIBRATORS

    if method not in CALIBRATORS:
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


def _evaluation(raw: dict[str, Any], path: Any) -> Evaluation:
    known = {f.name for f in dataclasses.fields(Evaluation)}
    for key in raw:
        if key not in known:
            raise unknown_name(f"key under `evaluation` in {path}", key, known)
    return Evaluation(**{**raw, "eval_steps": tuple(raw.get("eval_steps", ()))})


def _check(sweep: Sweep) -> None:
    """Build every run's config once, so that a wrong value stops the sweep before it starts."""
    if not sweep.seeds or any(not isinstance(s, int) or s < 0 for s in sweep.seeds):
        raise ConfigError(f"`seeds` must be a number of seeds or a list of whole numbers, got {list(sweep.seeds)}.")
    if any(not t > 0 for t in sweep.targets):
        raise ConfigError(f"Retention targets are shares of the base model's density above 0, got {sweep.targets}.")
    longest = max(arm.steps for arm in sweep.arms)
    if any(not 0 < step <= longest for step in sweep.evaluation.eval_steps):
        raise ConfigError(
            f"evaluation.eval_steps {list(sweep.evaluation.eval_steps)} must lie between 1 and max_steps, {longest}."
        )
    _check_suites(sweep)
    for arm in sweep.arms:
        if not isinstance(arm.data["n_problems"], int) or arm.data["n_problems"] < 1:
            raise ConfigError(
                f"n_problems of {arm.name} must be a whole number from 1, got {arm.data['n_problems']!r}."
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # said again when the run starts
                trainer_settings(
                    "unused", arm.trainer, steps=arm.steps, seed=0, save_steps=1, organism=is_organism(sweep.shared)
                )
        except (ValueError, TypeError) as error:
            raise ConfigError(f"The run {arm.name!r} of this sweep cannot be made: {error}") from error


def _check_suites(sweep: Sweep) -> None:
    suites, own = sweep.evaluation.suites, is_organism(sweep.shared)
    bad = [name for name, suite in suites.items() if not isinstance(suite, dict) or "problems" not in suite]
    if bad:
        raise ConfigError(
            f"evaluation.suites.{bad[0]} must name a problem file: `{bad[0]}: {{problems: FILE, role: far}}`."
        )
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
