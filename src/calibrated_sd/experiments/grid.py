"""From lists of values to named points: which fields a sweep may vary, how values combine, how a point is called.

Everything here is about names and values; nothing is trained or read from disk.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from calibrated_sd.errors import ConfigError, shortened, unknown_name

DATA_FIELDS = ("n_problems", "subset_seed")
"""What a sweep may vary besides the trainer's settings: how many problems are trained on, and which ones."""
SHARED_FIELDS = (
    *("model", "problems", "grader", "reward"),
    *("lora_r", "lora_alpha", "lora_target_modules"),
)
"""Fields of a training recipe that are the same for all runs of one sweep, so that one base evaluation fits them all."""
RUNNER_FIELDS = {
    "seed": "List training seeds under `seeds`.",
    "output_dir": "Every run has its folder below the sweep's --output.",
    "save_strategy": "Runs save themselves for resuming.",
    "save_steps": "Runs save themselves for resuming.",
    "save_total_limit": "Runs save themselves for resuming.",
    "resume_from_checkpoint": "Use --if-exists resume.",
    "report_to": "Runs write train.jsonl.",
    "logging_steps": "Runs log every step.",
    "disable_tqdm": "Runs are not watched.",
    "trainer": "A sweep runs SDPO; the policy gradient in it is `distillation_weight: 0`.",
    "gpus": "Each run is one process.",
    "gpu_memory_gib": "Look at a run's plan with `csd train --dry-run`.",
    "repeat_problems": "A sweep repeats the problems wherever there are fewer than a generation batch takes.",
}
"""Fields that the runner sets itself, and what to do instead of setting them."""
MOST_POINTS = 10_000
"""Runs of one grid; a few long lists combine to more than memory holds."""
SUGGESTED = "suggested"
"""As a `calibration_strength`: the strength that the method's own page says to try first."""


Fields = Mapping[str, "dataclasses.Field[Any]"]


def trainer_fields() -> Fields:
    """Every field of the trainer's config by its name."""
    from calibrated_sd.trainers.sdpo import CalibratedSDPOConfig

    return {f.name: f for f in dataclasses.fields(CalibratedSDPOConfig) if f.init}


def canonical_field(name: str, known: Iterable[str]) -> str:
    """The name without its optional room, e.g. ``trainer.learning_rate`` → ``learning_rate``.

    A dot after a known field reaches into a mapping: ``calibration_kwargs.kappa``.

    Raises:
        ConfigError: no such field (the nearest one is suggested), or one that a sweep cannot vary.
    """
    known = [*known, *DATA_FIELDS]
    room, _, rest = name.partition(".")
    field = rest if room in ("trainer", "data") and rest else name
    root = field.partition(".")[0]
    if root in SHARED_FIELDS:
        raise ConfigError(
            f"{root!r} cannot be swept: all runs are compared with one base model on the same suites. Write one sweep "
            f"for each value, with `settings: {{{root}: …}}`."
        )
    if root == "env":
        raise ConfigError(
            "A sweep sets no environment variables, so `env` would be lost. Leave it out of the base recipe, and set the "
            "variables where the sweep is started (`OMP_NUM_THREADS=1 csd sweep …`): its runs inherit them."
        )
    if root in RUNNER_FIELDS:
        raise ConfigError(f"{root!r} is set by the sweep itself and cannot be swept. {RUNNER_FIELDS[root]}")
    if root not in known:
        raise unknown_name("config field", name, known)
    return field


def set_field(settings: dict[str, Any], field: str, value: Any, fields: Fields) -> None:
    """Set a field, in place; a dotted one within a copy of its mapping.

    Raises:
        ConfigError: a dot into something that is no mapping, or text where a number belongs.
    """
    root, _, key = field.partition(".")
    if not key:
        settings[field] = _as_number(field, value, fields)
        return
    inner = settings.get(root)
    if isinstance(inner, str):
        with contextlib.suppress(ValueError, RecursionError):
            inner = json.loads(inner)
    if inner is not None and not isinstance(inner, Mapping):
        raise ConfigError(
            f"{field!r} reaches into {root!r}, which is {shortened(inner)} and no mapping. Write {root!r} as a mapping in "
            "`settings`, or sweep it as a whole."
        )
    settings[root] = {**copy.deepcopy(dict(inner or {})), key: value}


def _as_number(field: str, value: Any, fields: Fields) -> Any:
    """YAML reads ``5e-4`` as text: a number needs a dot (``5.0e-4``). Fields that hold numbers take both."""
    kind = str(fields[field].type) if field in fields else ""
    if isinstance(value, str) and re.search(r"\bfloat\b", kind) and value != SUGGESTED:
        try:
            return float(value)
        except ValueError:
            if "str" not in kind:
                raise ConfigError(f"{field}={shortened(value)} is no number. Write one, e.g. 5.0e-4.") from None
    return value


def expand(axes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All combinations, the last field varying fastest; anything that is no list is a single value.

    >>> expand({"a": [1, 2], "b": 3})
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]

    Raises:
        ConfigError: an empty list, or more combinations than anybody runs.
    """
    lists: dict[str, list[Any]] = {}
    for field, values in axes.items():
        lists[field] = values if isinstance(values, list) else [values]
        if not lists[field]:
            raise ConfigError(f"{field!r} has an empty list of values, so there is nothing to run. Give at least one.")
    count = math.prod(map(len, lists.values()))
    if count > MOST_POINTS:
        raise ConfigError(
            f"The lists of {', '.join(lists)} combine to {count} runs; a sweep has {MOST_POINTS} at most. Give fewer values."
        )
    return [dict(zip(lists, combination, strict=True)) for combination in itertools.product(*lists.values())]


def value_text(value: Any) -> str:
    """A value as it stands in names and labels: short numbers, no quotes."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def point_text(value: Any) -> str:
    """The same beside a point in a figure; of a list of weights, ``rollout:0.7,none:0.3``, the weights alone."""
    text = value_text(value)
    weights = re.findall(r":\s*([\d.]+)", text)
    if weights and re.fullmatch(r"[\w\s:.,{}\"-]+", text):
        return "/".join(weights)
    return text if len(text) <= 14 else text[:13] + "…"


def field_label(field: str) -> str:
    """``calibration_strength`` → ``strength``; other fields by their name."""
    return field.removeprefix("calibration_")


def point_name(swept: Mapping[str, Any]) -> str:
    """A folder name that says what was varied: ``projection_strength=0.25``, ``n_problems=8_learning_rate=0.0005``."""
    parts = []
    for field, value in swept.items():
        text = re.sub(r"[^\w.+-]+", "-", value_text(value)).strip("-")
        if len(text) > 48:
            text = f"{text[:40]}-{digest(value)}"
        parts.append(text if field == "calibration_method" else f"{field_label(field)}={text}")
    return "_".join(parts)


def digest(data: Any, length: int = 8) -> str:
    """Hash of plain data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()[:length]
