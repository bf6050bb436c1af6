"""C11: how many problems are trained on, crossed with the method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from calibrated_sd.evaluation.question_tables import CONFIDENCE, Table, align, interval, interval_scope, table
from calibrated_sd.evaluation.resampling import percentile, resample_seeds_and_questions
from calibrated_sd.experiments.claim_checks import measures
from calibrated_sd.experiments.claim_checks.measures import NOT_RUN, Figures, need, verdict
from calibrated_sd.experiments.collect import RunData
from calibrated_sd.records import figure

METHOD, AGAINST = "sdpo", "policy_gradient"
SMALLEST = 8
"""Sizes from here on decide; a single problem is reported."""
UNIT = "share per doubling of the problems"

Cells = Mapping[int, Mapping[str, float]]


def narrow_coverage_pays(data: RunData, best: str) -> tuple[Figures, str]:
    """C11. The calibrated arm is reported beside the verdict."""
    figures: Figures = {}
    for method in (METHOD, best):
        for where in ("in_domain", "ood"):
            pairs = pairs_by_size(data, method, where)
            decides = {n: pair for n, pair in pairs.items() if n >= SMALLEST}
            if len(decides) < 2:
                continue
            name = f"{where}_{method}_minus_{AGAINST}"
            found = {f"{name}_n{n}": paired_by_seed(*pair) for n, pair in pairs.items()}
            figures |= {f"slope_{name}": slope_on_log2(decides), **found}
    sizes = [n for n in pairs_by_size(data, METHOD, "in_domain") if n >= SMALLEST]
    if len(sizes) < 2:
        return {}, NOT_RUN
    name = f"in_domain_{METHOD}_minus_{AGAINST}"
    first = f"{name}_n{min(sizes)}"
    shown = figures[first]["lo"] > 0 and figures[f"slope_{name}"]["hi"] < 0
    behind = all(figures[f"{name}_n{n}"]["hi"] < 0 for n in sizes)
    return {first: figures[first], **figures}, verdict(shown, behind)


def pairs_by_size(data: RunData, method: str, where: str) -> dict[int, tuple[Cells, Cells]]:
    """Number of problems → accuracy of the method and of policy gradient, by seed and question, of the seeds both have."""
    found: dict[int, tuple[Cells, Cells]] = {}
    for n, arm in data.coverage.get(method, {}).items():
        other = data.coverage.get(AGAINST, {}).get(n)
        if other is None or not need(data, arm, other):
            continue
        a, b = (_correct(data, name, where) for name in (arm, other))
        seeds = sorted(set(a) & set(b))
        if seeds:
            found[n] = ({seed: a[seed] for seed in seeds}, {seed: b[seed] for seed in seeds})
    return found


def _correct(data: RunData, arm: str, where: str) -> dict[int, dict[str, float]]:
    frame = data.frame
    rows = frame[(frame.arm == arm) & (frame.step == data.final_step(arm))]
    rows = rows[rows.suite.isin(data.ood_suites) == (where == "ood")]
    means: pd.Series = rows.groupby(["seed", "problem_id"]).correct.mean()
    return {int(seed): one.droplevel("seed").to_dict() for seed, one in means.groupby(level="seed")}


def paired_by_seed(a: Cells, b: Cells) -> dict[str, Any]:
    """Mean of a − b, paired by question and by seed: here a seed stands for the problems that it draws as well."""
    tables = align(table(a), table(b))
    return interval(tables, lambda x, y: x - y, "share", measures.N_PAIRED, CONFIDENCE, 0, tables_per_arm=2)


def slope_on_log2(pairs: Mapping[int, tuple[Cells, Cells]]) -> dict[str, Any]:
    """Least-squares slope of (a − b) on the binary logarithm of the size: the interaction of method and coverage.

    Percentile bootstrap: questions are drawn once for all sizes, seeds for each size anew (other runs), for a and b
    together.
    """
    x = np.array([math.log2(n) for n in pairs])
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    tables = [table(side) for pair in pairs.values() for side in pair]
    questions = tuple(sorted({q for one in tables for q in one.questions}))
    cells = [_on(one, questions) for one in tables]

    def slope(means: Sequence[np.ndarray]) -> np.ndarray:
        return sum((w * (means[2 * i] - means[2 * i + 1]) for i, w in enumerate(weights)), np.zeros(()))

    value = float(slope([np.nanmean(one) for one in cells]))
    drawn = slope(resample_seeds_and_questions(cells, measures.N_PAIRED, 0, tables_per_arm=2))
    lo, hi = percentile(drawn, CONFIDENCE)
    scope = interval_scope(len(questions), max(len(one) for one in cells))
    method = f"{CONFIDENCE:.0%} two-level percentile bootstrap, {measures.N_PAIRED} resamples; covers {scope}"
    return figure(value, lo, hi, len(questions), UNIT, f"least squares on log2 of {list(pairs)} problems; {method}")


def _on(one: Table, questions: Sequence[str]) -> np.ndarray:
    """The cells of a table on more questions, (seeds, questions); NaN where it has none."""
    return pd.DataFrame(one.cells, columns=list(one.questions)).reindex(columns=list(questions)).to_numpy()
