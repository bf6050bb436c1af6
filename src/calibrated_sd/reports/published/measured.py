"""A folder of which only the small files are left, as the tables see it: no run folders, no completions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from calibrated_sd.errors import DataError
from calibrated_sd.records import read_json
from calibrated_sd.reports.folder import BASE, Arm, ReproduceFolder, Run, Suite, listed
from calibrated_sd.reports.loading import read_summary
from calibrated_sd.reports.scores import OOD, Scores

SUMMARIES = {"reproduce": "summary.csv", "sweep": "results.csv"}
"""Kind of folder → its table of all figures."""


def load_measured(directory: str | Path) -> ReproduceFolder:
    """A reproduce or sweep folder from ``manifest.json`` and ``summary.csv``, ``results.csv`` or ``results.json``.

    A run counts as finished if the table has its seed at the arm's last step. What was planned and is not there becomes
    a gap.

    Raises:
        DataError: no such folder, or without one of these files.
    """
    path = Path(directory)
    manifest = read_json(path / "manifest.json")
    kind = manifest.get("kind") if isinstance(manifest, dict) else None
    if kind not in SUMMARIES:
        raise DataError(
            f"{path / 'manifest.json'} is of kind {kind!r}; this table needs a folder of `csd reproduce` or "
            "`csd sweep`. Name another folder."
        )
    file = path / SUMMARIES[kind]
    if not file.is_file() and kind == "sweep":
        file = path / "results.json"
    if not file.is_file():
        raise DataError(f"{path} has no {file.name}, so there is nothing to make this table from. Add the file.")
    folder = ReproduceFolder(path, manifest)
    folder.summary = read_summary(file) if file.suffix == ".csv" else _from_results(read_json(file))
    folder.seeds = [seed for seed in listed(manifest, "seeds") if isinstance(seed, int)]
    folder.suites = [
        Suite(s["name"], s.get("label") or s["name"], s.get("role") or "far") for s in listed(manifest, "suites")
    ]
    folder.arms = _arms(manifest, folder.summary)
    for arm in folder.arms:
        if arm.name != BASE:
            finished = finished_seeds(folder, arm.name)
            folder.runs += [Run(arm.name, seed, "ok" if seed in finished else "not run") for seed in folder.seeds]
    folder.gaps = [f"Arm {run.arm}, seed {run.seed}: {run.status}." for run in folder.runs if run.status != "ok"]
    for name in ("manifest.json", file.name):
        folder.inputs[name] = hashlib.sha256((path / name).read_bytes()).hexdigest()
    return folder


def finished_seeds(folder: ReproduceFolder, arm: str) -> set[int]:
    """Training seeds with a last evaluation; where the table only says how many there were, the first of the plan."""
    assert folder.summary is not None
    last = Scores(folder).last_step(arm)
    rows = folder.summary
    rows = rows[(rows["arm"] == arm) & (rows["suite"] == OOD) & (rows["step"] == last) & (rows["metric"] == "accuracy")]
    alone = {int(float(seed)) for seed in rows["seed"] if re.fullmatch(r"\d+(\.0)?", seed)}
    if alone or rows.empty:
        return alone
    found = re.search(r"(\d+) seeds?\b", str(rows.iloc[-1]["method"]))
    return set(folder.seeds[: int(found[1])]) if found else set(folder.seeds)


def provenance_of(path: Path) -> dict[str, Any]:
    """The provenance block of a folder or a file; that of the results comes before that of the manifest."""
    places = [path] if path.is_file() else [path / name for name in ("claims.json", "results.json", "manifest.json")]
    for place in places:
        if place.is_file() and place.suffix == ".json":
            content = read_json(place)
            block = content.get("provenance") if isinstance(content, Mapping) else None
            if isinstance(block, Mapping):
                return dict(block)
    return {}


def _arms(manifest: Mapping[str, Any], summary: pd.DataFrame) -> list[Arm]:
    """Base first, then the arms of the plan, then those that only the table knows."""
    arms: dict[str, Arm] = {BASE: Arm(BASE, "base model")}
    known = set(Arm.__dataclass_fields__)
    for entry in listed(manifest, "arms"):
        settings = entry.get("trainer") or {}  # a sweep's arms carry the trainer's settings, not a selection of them
        fields = {key: value for key, value in {**settings, **entry}.items() if key in known}
        arm = Arm(
            **{**fields, "label": str(entry.get("label") or entry["name"]), "context": str(entry.get("context") or "")}
        )
        arms[arm.name] = replace(arm, calibration_method=arm.calibration_method if arm.calibration_strength else None)
    for name in summary["arm"]:
        arms.setdefault(name, Arm(name, name))
    return list(arms.values())


def _from_results(results: Mapping[str, Any]) -> pd.DataFrame:
    """Rows as in ``results.csv`` from ``results.json``, which has the pooled suites alone. The step is not written there: 0."""
    rows: list[dict[str, Any]] = []
    for arm in results["arms"]:
        place = {"arm": arm["name"], "suite": OOD, "step": 0}
        figures = {**arm["figures"], "retention": arm["retention"]}
        rows += [{**place, "seed": "all", "metric": metric, **shown} for metric, shown in figures.items()]
        for seed, values in arm["by_seed"].items():
            rows += [{**place, "seed": seed, "metric": metric, "value": value} for metric, value in values.items()]
    columns = ["arm", "seed", "suite", "step", "metric", "value", "lo", "hi", "n", "unit", "method"]
    return pd.DataFrame(rows, columns=columns).astype({"seed": str})
