"""``manifest.json`` of a training run: what was asked for and what made it, also over interruptions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import yaml

from calibrated_sd.errors import OutputError
from calibrated_sd.evaluation.named_functions import function_file
from calibrated_sd.organism.species import SPECIES
from calibrated_sd.records import MANIFEST, SCHEMA_VERSION, read_object, write_json

MAY_CHANGE = (
    *("output_dir", "logging_steps", "report_to", "disable_tqdm", "gpu_memory_gib"),
    *("save_steps", "save_strategy", "save_total_limit", "save_only_model", "dataloader_num_workers"),
    *("max_steps", "num_train_epochs"),
)
"""Settings that leave the weights alone, and how long to go on."""


def stated_settings(recipe: Path, overrides: Sequence[str], run: Any, settings: Any) -> dict[str, Any]:
    """Every setting that the recipe or the command line names, with the value it took.

    Args:
        recipe: the YAML file.
        overrides: words of the command line.
        run, settings: as :func:`~calibrated_sd.experiments.train_recipe.parse_recipe` gave them.
    """
    named = list(yaml.safe_load(recipe.read_text(encoding="utf-8")) or {})
    named += [word[2:].split("=")[0].replace("-", "_").removeprefix("no_") for word in overrides if word[:2] == "--"]
    return {name: _value(name, run, settings) for name in sorted(set(named)) if _holds(name, run, settings)}


def check_same_run(folder: Path, stated: Mapping[str, Any], run: Any, settings: Any) -> None:
    """Refuse to go on with a run under other settings.

    Raises:
        OutputError: the folder's run was started with another value of something that decides the weights.
    """
    file = folder / MANIFEST
    old = read_object(file).get("settings") if file.is_file() else None
    if old is None:  # nothing there yet, or of an older release
        return
    changed = []
    for name in sorted({*old, *stated} - set(MAY_CHANGE)):
        if not _holds(name, run, settings):
            changed.append(f"{name}: {old[name]!r} → not a setting of this trainer")
            continue
        before = old[name] if name in old else _plain(_default(name, run, settings))
        now = _value(name, run, settings)
        if before != now:
            changed.append(f"{name}: {before!r} → {now!r}")
    if changed:
        raise OutputError(
            f"The run in {folder} was started with other settings ({'; '.join(changed)}), so going on would mix two runs. "
            "Nothing was changed. Repeat the old settings, give another --output, or add --if-exists overwrite."
        )


def files_read(recipe: Path, run: Any, settings: Any) -> list[str | Path | None]:
    """What a run reads, as far as it is named by a path: its recipe, weights, data, functions, templates, launch files."""
    named = [value for value in (run.model, run.problems) if value not in SPECIES]
    named += [getattr(settings, name, None) for name in ("chat_template_path", "deepspeed", "fsdp_config")]
    paths = [value for value in named if isinstance(value, str)]
    return [recipe, *paths, function_file(run.reward), function_file(run.grader)]


def write_manifest(folder: Path, stated: Mapping[str, Any], made_by: Mapping[str, Any], resumed: bool) -> None:
    """Write the manifest of a new run; of one that goes on, keep what began it and add what continues it."""
    file = folder / MANIFEST
    if resumed and file.is_file():
        old = read_object(file)
        write_json(file, {**old, "resumed_by": [*old.get("resumed_by", []), dict(made_by)]})
        return
    content = {"schema_version": SCHEMA_VERSION, "kind": "train", "settings": dict(stated), "provenance": dict(made_by)}
    write_json(file, content)


def _holds(name: str, run: Any, settings: Any) -> bool:
    return hasattr(run, name) or hasattr(settings, name)


def _value(name: str, run: Any, settings: Any) -> Any:
    return _plain(getattr(run, name) if hasattr(run, name) else getattr(settings, name))


def _default(name: str, run: Any, settings: Any) -> Any:
    for owner in (run, settings):
        for one in fields(owner):
            if one.name == name:
                return one.default_factory() if one.default_factory is not MISSING else one.default
    return None


def _plain(value: Any) -> Any:
    """As it reads back from JSON."""
    return json.loads(json.dumps(value, default=lambda other: str(getattr(other, "value", other))))
