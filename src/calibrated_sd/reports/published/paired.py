"""Comparisons that no table of the folder holds, made from the samples in its archive."""

from __future__ import annotations

import numpy as np
import pandas as pd

from calibrated_sd.evaluation.question_tables import CONFIDENCE, N_PAIRED, N_RESAMPLES, align, interval, table
from calibrated_sd.evaluation.resampling import ratio
from calibrated_sd.evaluation.statistics import paired_difference
from calibrated_sd.reports.folder import BASE
from calibrated_sd.reports.scores import Contrast, Score, Scores, nested


def contrast(scores: Scores, arm: str, against: str, where: str = "ood") -> Contrast | None:
    """The paired difference of accuracy between two arms: as the folder's table has it, else from the samples.

    Args:
        scores: of a folder, with samples if :func:`~calibrated_sd.reports.archived_samples.add_samples` found some.
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
    return Contrast(Score(**paired_difference(a, b, n_resamples=N_PAIRED).figure), None)


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
