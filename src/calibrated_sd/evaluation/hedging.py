"""Is doubt well placed? How much denser the markers are in wrong answers than in right ones. No torch.

A model whose doubt means something hedges more where it is about to be wrong. For a completion i of ``n_tokens`` tokens
with ``m`` markers, the density is d_i = 1000 m / n_tokens. For each marker set:

``<set>_wrong_minus_right``    mean over questions of (mean d of its wrong answers − mean d of its right ones); only
                               questions that were answered both ways count. Difficulty cancels: one question, two fates.
``<set>_auroc_within``         chance that a wrong answer is denser than a right one *of the same question*, ties half
``<set>_auroc``                the same over all pairs of a wrong and a right answer: how well density predicts wrongness
                               across the suite. Hard questions draw doubt and errors alike, which this counts as skill.
``<set>_wrong_minus_right_matched``  difference of densities among answers of about the same length, see
                               :mod:`calibrated_sd.evaluation.matched_length`

0 (differences) or 1/2 (AUROC) is doubt without information. Intervals resample questions, and seeds where there are
several. AUROC is the Mann-Whitney statistic U / (wrong · right).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from calibrated_sd.evaluation.matched_length import wrong_minus_right_at_equal_length
from calibrated_sd.evaluation.metrics import Record, one_condition, per_question
from calibrated_sd.evaluation.question_tables import CONFIDENCE, N_RESAMPLES, interval_scope
from calibrated_sd.evaluation.resampling import Rng, percentile, ratio
from calibrated_sd.evaluation.statistics import Figure, mean_interval, ratio_of_sums_interval
from calibrated_sd.records import MARKER_COUNTS, figure

UNIT = "per 1k tokens"
_MAX_CELLS = 4_000_000  # weights held at once


def hedging_figures(records: Iterable[Record] | pd.DataFrame, *, rng: int = 0, **options: Any) -> dict[str, Figure]:
    """All figures of this module for one arm, suite, step and context; value None where nothing was graded.

    Args:
        records: completion records or their :func:`~calibrated_sd.evaluation.metrics.tidy` frame.
        rng: seed of the bootstrap.
        options: ``n_resamples``, ``confidence``.

    Raises:
        DataError: records that mix arms, suites, steps or contexts.
    """
    frame = one_condition(records)
    frame = frame[frame["correct"].notna() & (frame["n_tokens"] > 0)]
    options = {**options, "rng": rng}
    figures: dict[str, Figure] = {}
    for name in MARKER_COUNTS:
        dense = frame.assign(density=1000.0 * frame[name] / frame["n_tokens"])
        figures[f"{name}_wrong_minus_right"] = mean_interval(density_gaps(dense), unit=UNIT, **options)
        figures[f"{name}_auroc_within"] = _auroc_within(dense, **options)
        figures[f"{name}_auroc"] = _auroc_pooled(dense, **options)
        matched = wrong_minus_right_at_equal_length(frame, name, **options)
        figures[f"{name}_wrong_minus_right_matched"] = matched
    return figures


def density_gaps(frame: pd.DataFrame) -> dict[Any, Any]:
    """Mean density of the wrong answers minus that of the right ones, by question (NaN without both); by seed first.

    Args:
        frame: graded completions with columns ``correct`` and ``density``.
    """

    def gap(density: np.ndarray, correct: np.ndarray) -> float:
        wrong, right = density[correct == 0], density[correct == 1]
        return float(wrong.mean() - right.mean()) if wrong.size and right.size else np.nan

    return per_question(frame, "density", "correct", reduce=gap)


def auroc(density: np.ndarray, wrong: np.ndarray) -> float:
    """Chance that a wrong completion has the higher density, ties counted half; NaN without both kinds.

    >>> auroc(np.array([3.0, 1.0, 1.0]), np.array([True, False, True]))  # pairs: 3 > 1, 1 = 1
    0.75
    """
    above, pairs = _mann_whitney(density, wrong)
    return float(ratio(np.array(above), np.array(pairs)))


def _mann_whitney(density: np.ndarray, wrong: np.ndarray) -> tuple[float, int]:
    """Pairs in which the wrong one is denser (ties half), and all pairs of a wrong and a right one."""
    wrong = np.asarray(wrong, dtype=bool)
    right = np.sort(density[~wrong])
    below = np.searchsorted(right, density[wrong], side="left")
    up_to = np.searchsorted(right, density[wrong], side="right")
    return float((below + up_to).sum() / 2), int(wrong.sum()) * len(right)


def _auroc_within(frame: pd.DataFrame, **options: Any) -> Figure:
    above = per_question(frame, "density", "correct", reduce=lambda d, c: _mann_whitney(d, c == 0)[0])
    pairs = per_question(frame, "density", "correct", reduce=lambda d, c: float(_mann_whitney(d, c == 0)[1]))
    return ratio_of_sums_interval(above, pairs, unit="AUROC", **options)


def _auroc_pooled(
    frame: pd.DataFrame, *, n_resamples: int = N_RESAMPLES, confidence: float = CONFIDENCE, rng: Rng = 0
) -> Figure:
    frame = frame.sort_values(["density", "seed", "problem_id", "sample"])
    density, wrong = frame["density"].to_numpy(), frame["correct"].to_numpy() == 0
    (question, questions), (seed, seeds) = (pd.factorize(frame[name], sort=True) for name in ("problem_id", "seed"))
    value = auroc(density, wrong)
    n_questions, n_seeds = len(questions), len(seeds)
    if np.isnan(value):
        return figure(None, None, None, n_questions, "AUROC", "needs right and wrong answers")
    if n_questions == 1 and n_seeds == 1:
        return figure(value, None, None, 1, "AUROC", "1 question: no interval")
    starts = np.flatnonzero(np.r_[True, np.diff(density) > 0])  # of each run of equal densities
    generator, drawn = np.random.default_rng(rng), []
    step = max(1, _MAX_CELLS // len(frame))
    for first in range(0, n_resamples, step):
        size = min(step, n_resamples - first)
        weights = generator.multinomial(n_questions, np.full(n_questions, 1 / n_questions), size)[:, question]
        if n_seeds > 1:  # all seeds answer the drawn questions: crossed, as everywhere
            weights = weights * generator.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size)[:, seed]
        w = np.add.reduceat(weights * wrong, starts, axis=1)
        r = np.add.reduceat(weights * ~wrong, starts, axis=1)
        above = (w * (np.cumsum(r, axis=1) - r / 2)).sum(axis=1)
        drawn.append(ratio(above, w.sum(axis=1) * r.sum(axis=1)))
    lo, hi = percentile(np.concatenate(drawn), confidence)
    method = f"{confidence:.0%} percentile bootstrap, {n_resamples} resamples; covers "
    return figure(value, lo, hi, n_questions, "AUROC", method + interval_scope(n_questions, n_seeds))
