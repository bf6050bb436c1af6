"""How questions and seeds are drawn again: the machinery behind :mod:`calibrated_sd.evaluation.statistics`.

Arrays hold one number per question, ``(questions,)``, or per seed and question, ``(seeds, questions)``; ``combine``
turns the means of such arrays into the quantity of interest (a mean, a difference, a ratio).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

Rng = int | np.random.Generator
_MAX_CELLS = 4_000_000  # resampled numbers held at once; bounds memory for suites with thousands of questions


def ratio(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x / y without warnings: ∞ or NaN where y is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(x, y)


def bootstrap_questions(
    samples: Sequence[np.ndarray],
    combine: Callable[..., np.ndarray],
    n_resamples: int,
    confidence: float,
    rng: Rng,
) -> tuple[str, tuple[float, float]]:
    """BCa interval from SciPy; the percentile interval of the same resamples where BCa is not defined."""

    def statistic(*resampled: np.ndarray, axis: int = -1) -> np.ndarray:
        return combine(*(x.mean(axis=axis) for x in resampled))

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # degenerate data: answered below by the percentile interval
        result = stats.bootstrap(
            tuple(samples),
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=n_resamples,
            batch=max(1, _MAX_CELLS // len(samples[0])),
            confidence_level=confidence,
            method="BCa",
            rng=np.random.default_rng(rng),
        )
    lo, hi = result.confidence_interval
    if np.isfinite(lo) and np.isfinite(hi):
        return "BCa", (float(lo), float(hi))
    return "percentile", percentile(result.bootstrap_distribution, confidence)


def percentile(distribution: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile interval; a resample of 0/0 says nothing and is left out, one of x/0 is unbounded."""
    distribution = distribution[~np.isnan(distribution)]
    if distribution.size == 0:
        return np.nan, np.nan
    tail = (1 - confidence) / 2
    lo, hi = np.quantile(distribution, [tail, 1 - tail], method="inverted_cdf")  # no ∞ − ∞ from interpolation
    return float(lo), float(hi)


def resample_seeds_and_questions(
    cells: Sequence[np.ndarray], n_resamples: int, rng: Rng, tables_per_arm: int | None
) -> list[np.ndarray]:
    """Resampled means of each (seeds, questions) table, (resamples,) each.

    Seeds are drawn anew for every ``tables_per_arm`` tables (another arm's seeds); None: once for all.

    Seeds and questions are crossed, not nested: all seeds answer the same questions. So one draw of questions is
    used for every seed (Owen 2007, "The pigeonhole bootstrap"); a fresh draw per seed would average the difficulty of
    the questions away and make the interval too narrow.
    """
    rng = np.random.default_rng(rng)
    n_questions = cells[0].shape[1]
    questions = rng.integers(n_questions, size=(n_resamples, n_questions))
    seed_draws, means = None, []
    for i, table in enumerate(cells):
        if seed_draws is None or (tables_per_arm and i % tables_per_arm == 0):
            n_seeds = len(table)
            seed_draws = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_resamples)
        present = ~np.isnan(table)
        totals = np.take_along_axis(seed_draws @ np.where(present, table, 0.0), questions, axis=1).sum(axis=1)
        if present.all():
            counts: Any = len(table) * n_questions
        else:
            counts = np.take_along_axis(seed_draws @ present, questions, axis=1).sum(axis=1)
        means.append(ratio(totals, counts))
    return means


def sign_flip(differences: np.ndarray, n_resamples: int, rng: Rng) -> float | None:
    """Two-sided p-value of "a − b is symmetric around 0 at each question"; exact when 2**n ≤ n_resamples."""
    if differences.size == 0:
        return None
    if differences.size == 1 or not differences.any():
        return 1.0
    result = stats.permutation_test(
        (differences,),
        lambda d, axis: d.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=n_resamples,
        batch=max(1, _MAX_CELLS // differences.size),
        rng=np.random.default_rng(rng),
    )
    return float(result.pvalue)


def swap_arms(
    a: np.ndarray, b: np.ndarray, statistic: Callable[..., np.ndarray], n_resamples: int, rng: Rng
) -> float | None:
    """Two-sided p-value of "which arm is which does not matter at any question"; exact when 2**n ≤ n_resamples.

    Args:
        a, b: per-question numbers of the arms, (tables, questions) each. Exchanged are whole columns.
        statistic: of the means of all rows of a, then of b.
        n_resamples: random exchanges where not all are enumerated.
        rng: seed.

    A resample without a value (0/0) counts as extreme.
    """
    n = a.shape[1]
    if n == 0:
        return None
    if n == 1 or np.array_equal(a, b):
        return 1.0
    exact = 2**n <= n_resamples
    count = 2**n if exact else n_resamples
    generator, step = np.random.default_rng(rng), max(1, _MAX_CELLS // n)
    moved = np.concatenate(  # (resamples, tables)
        [
            _swaps(first, min(step, count - first), n, None if exact else generator) @ (b - a).T / n
            for first in range(0, count, step)
        ]
    )
    with np.errstate(all="ignore"):
        drawn = np.abs(statistic(*(a.mean(axis=1) + moved).T, *(b.mean(axis=1) - moved).T))
        observed = float(np.abs(statistic(*a.mean(axis=1), *b.mean(axis=1))))
    if np.isnan(observed):
        return None
    extreme = int((~(drawn < observed * (1 - 1e-9))).sum())  # rounding must not break a tie
    return extreme / count if exact else (extreme + 1) / (count + 1)


def _swaps(first: int, size: int, n: int, generator: np.random.Generator | None) -> np.ndarray:
    """Which of n questions are exchanged, (size, n) of 0 and 1: drawn, or from the ``first`` on of all that there are."""
    if generator is not None:
        return generator.integers(2, size=(size, n))
    return (np.arange(first, first + size)[:, None] >> np.arange(n)) & 1
