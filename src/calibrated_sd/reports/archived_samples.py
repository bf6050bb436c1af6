"""Samples of the runs whose folders are gone and which `archive.json.gz` still has."""

from __future__ import annotations

import hashlib
from typing import Any

import pandas as pd

from calibrated_sd.records import MARKER_COUNTS
from calibrated_sd.records.archive import ARCHIVE, read_archive
from calibrated_sd.reports.folder import COMPLETION_COLUMNS, ReproduceFolder

LADDER = "ladder"
"""Name of the run that holds the context ladder."""


def add_samples(folder: ReproduceFolder) -> bool:
    """Add archived runs to a folder's completions, ladder and training logs; False where there is no archive.

    A run that is on disk, too, is left as it was read from there. A second call changes nothing.

    Raises:
        DataError: the archive is damaged.
    """
    file = folder.path / ARCHIVE
    if not file.is_file():
        return False
    if ARCHIVE in folder.inputs:
        return True
    runs = read_archive(folder.path)
    folder.inputs[ARCHIVE] = hashlib.sha256(file.read_bytes()).hexdigest()
    samples: list[dict[str, Any]] = []
    ladder: list[dict[str, Any]] = []
    logs: list[pd.DataFrame] = []
    for name, run in runs.items():
        if run.status != "ok" or (folder.path / "runs" / name).is_dir():
            continue
        for evaluation in run.evaluations.values():
            rows = [
                {
                    **{key: record.get(key) for key in COMPLETION_COLUMNS},
                    **{m: record["markers"][m] for m in MARKER_COUNTS},
                }
                for record in evaluation.records
            ]
            (ladder if name.split("/")[0] == LADDER else samples).extend(rows)
        if run.log and "arm" in run.recipe:
            logs.append(pd.DataFrame(run.log).assign(arm=run.recipe["arm"], seed=run.recipe.get("seed", 0)))
    folder.completions = _joined(folder.completions, samples)
    folder.ladder = _joined(folder.ladder, ladder)
    if logs:
        known = [folder.training] if len(folder.training) else []
        folder.training = pd.concat([*known, *logs], ignore_index=True)
    return True


def _joined(known: pd.DataFrame, rows: list[dict[str, Any]]) -> pd.DataFrame:
    added = pd.DataFrame(rows, columns=COMPLETION_COLUMNS)
    return pd.concat([known, added], ignore_index=True) if len(known) and len(added) else known if len(known) else added
