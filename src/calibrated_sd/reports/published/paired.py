"""Comparisons that no table of the folder holds, made from the samples in its archive."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd

from calibrated_sd.evaluation.question_tables import CONFIDENCE, N_RESAMPLES, align, interval, table
from calibrated_sd.evaluation.resampling import ratio
from calibrated_sd.evaluation.statistics import paired_difference
from calibrated_sd.records import MARKER_COUNTS
from calibrated_sd.records.archive import ARCHIVE, read_archive
from calibrated_sd.reports.folder import BASE, COMPLETION_COLUMNS, ReproduceFolder
from calibrated_sd.reports.scores import Contrast, Score, Scores, nested

LADDER = "ladder"
"""Name of the run that holds the context ladder."""


def add_samples(folder: ReproduceFolder) -> bool:
    """Fill a folder's completions, ladder and training logs from ``archive.json.gz``; False where there is none.

    Raises:
        DataError: the archive is damaged.
    """
    file = folder.path / ARCHIVE
    if not file.is_file():
        return False
    folder.inputs[ARCHIVE] = hashlib.sha256(file.read_bytes()).hexdigest()
    samples: list[dict[str, Any]] = []
    ladder: list[dict[str, Any]] = []
    logs: list[pd.DataFrame] = []
    for name, run in read_archive(folder.path).items():
        if run.status != "ok":
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
    folder.completions = pd.DataFrame(samples, columns=COMPLETION_COLUMNS)
    folder.ladder = pd.DataFrame(ladder, columns=COMPLETION_COLUMNS)
    if logs:
        folder.training = pd.concat(logs, ignore_index=True)
    return True


def contrast(scores: Scores, arm: str, against: str, where: str = "ood") -> Contrast | None:
    """The paired difference of accuracy between two arms: as the folder's table has it, else from the samples.

    Args:
        scores: of a folder, with samples if :func:`add_samples` found some.
        arm, against: names of arms.
        where: ``"ood"`` or ``"in_domain"``.

    Returns:
        None where neither has it. One made from samples has no p-value, because nothing says how many were made.
    """
    if arm == against:
        return None
    found = scores.contrast(arm, against, where)
    if found is not None:
        return found
    sides = [_last(scores, name, where) for name in (arm, against)]
    if any(side.empty for side in sides):
        return None
    a, b = (nested(side, side["correct"].astype(float)) for side in sides)
    return Contrast(Score(**paired_difference(a, b).figure), None)


def density_ratio(scores: Scores, arm: str, marker_set: str) -> Score | None:
    """Markers of a set per 1k tokens over the base model's, OOD suites, paired by question; None without samples.

    Args:
        scores: of a folder with samples.
        arm: name of the arm.
        marker_set: ``"lexical"`` or ``"held_out"``.
    """
    sides = [_last(scores, name, "ood") for name in (arm, BASE)]
    if any(side.empty for side in sides):
        return None
    tables = [
        table(nested(side, side[column].astype(float)), "sum") for side in sides for column in (marker_set, "n_tokens")
    ]
    for other in tables[1:]:
        align(tables[0], other)

    def over_base(count: np.ndarray, tokens: np.ndarray, base_count: np.ndarray, base_tokens: np.ndarray) -> np.ndarray:
        return ratio(ratio(count, tokens), ratio(base_count, base_tokens))

    return Score(**interval(tables, over_base, "ratio", N_RESAMPLES, CONFIDENCE, 0, tables_per_arm=2))


def _last(scores: Scores, arm: str, where: str) -> pd.DataFrame:
    """Graded samples of an arm's last evaluation on the trained suite, or on all others together."""
    frame = scores.folder.completions
    frame = frame[(frame["arm"] == arm) & frame["context"].isin(["none", ""]) & frame["correct"].notna()]
    frame = frame[frame["step"] == frame["step"].max()]
    roles = {suite.name: suite.role for suite in scores.folder.suites}
    trained = frame["suite"].map(lambda name: roles.get(name, "far") == "train").astype(bool)
    return frame[trained if where == "in_domain" else ~trained]
