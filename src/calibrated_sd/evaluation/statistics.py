"""Intervals and tests whose unit is the problem. NumPy, SciPy and pandas only: reports import this file.

Sixteen samples of one question are not sixteen independent observations. So every function first reduces a question
to one number (the mean, or the total, of its samples) and then resamples *questions*, always the same ones for both
sides of a comparison. Several training seeds are a second level of resampling. ``docs/explanation/statistics.md``
says what the intervals cover and how well.

Values are given per question, ``{question: [sample, …]}`` (or one number each, or a plain list in a fixed order), and
with several seeds ``{seed: {question: [sample, …]}}``. None and NaN samples are left out. Each interval is a figure
``{value, lo, hi, n, unit, method}`` with ``n`` = number of questions. Results depend on the data and on ``rng`` only,
not on the order in which the questions are listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from calibrated_sd.errors import DataError
from calibrated_sd.evaluation.question_tables import (
    CONFIDENCE,
    N_RESAMPLES,
    Figure,
    Values,
    align,
    interval,
    interval_scope,
    table,
    without_events,
)
from calibrated_sd.evaluation.resampling import Rng, ratio, sign_flip, swap_arms

__all__ = [
    "CONFIDENCE",
    "N_RESAMPLES",
    "Figure",
    "PairedDifference",
    "Values",
    "holm",
    "interval_scope",
    "mean_interval",
    "paired_difference",
    "paired_ratio_difference",
    "paired_statistic",
    "rate_per_1k_interval",
    "ratio_interval",
    "ratio_of_sums_interval",
    "standard_error",
    "statistic_interval",
]


class PairedDifference(NamedTuple):
    """A difference between two arms on the same questions.

    Attributes:
        figure: mean of a − b with its interval.
        p_value: two-sided sign-flip permutation p-value over questions; None where there is no question.
    """

    figure: Figure
    p_value: float | None


def mean_interval(
    values: Values,
    *,
    unit: str = "share",
    n_resamples: int = N_RESAMPLES,
    confidence: float = CONFIDENCE,
    rng: Rng = 0,
) -> Figure:
    """Mean over questions of the mean over samples, with a bootstrap interval over questions (and seeds).

    Where ``unit`` is ``"share"`` and every question has the same extreme value 0 or 1, a bootstrap would claim
    certainty; the Wilson interval for that many questions is given instead, and ``method`` says so. Likewise where
    ``unit`` is ``"per response"`` and nothing was counted: the Poisson interval with every question as one response.
    """
    means = table(values)
    shown = interval([means], lambda mean: mean, unit, n_resamples, confidence, rng)
    if unit != "per response":
        return shown
    return without_events(shown, means, float(np.count_nonzero(~np.isnan(means.cells))), 1.0, confidence)


def paired_difference(
    a: Values,
    b: Values,
    *,
    unit: str = "share",
    n_resamples: int = N_RESAMPLES,
    confidence: float = CONFIDENCE,
    rng: Rng = 0,
) -> PairedDifference:
    """Mean of a − b over the same questions: paired bootstrap interval and sign-flip permutation test.

    With several seeds, the seeds of the two arms are resampled separately (seed 1 of one arm has nothing in common
    with seed 1 of another) and the questions jointly. The p-value always concerns questions, with seeds averaged.

    Raises:
        DataError: the two sides do not hold the same questions.
    """
    tables = align(table(a), table(b))
    shown = interval(tables, lambda x, y: x - y, unit, n_resamples, confidence, rng, tables_per_arm=1)
    return PairedDifference(shown, sign_flip(tables[0].by_question - tables[1].by_question, n_resamples, rng))


def ratio_interval(
    numerator: Values,
    denominator: Values,
    *,
    unit: str = "ratio",
    n_resamples: int = N_RESAMPLES,
    confidence: float = CONFIDENCE,
    rng: Rng = 0,
) -> Figure:
    """Ratio of two means over the same questions, e.g. markers under a context over markers without one.

    The mean of the numerator over the mean of the denominator, never the mean of ratios: a question with a tiny
    denominator would dominate that. Value None where the denominator is 0.

    Raises:
        DataError: the two sides do not hold the same questions.
    """
    tables = align(table(numerator), table(denominator))
    return interval(tables, ratio, unit, n_resamples, confidence, rng, tables_per_arm=1)


def statistic_interval(
    sums: Sequence[Values],
    statistic: Callable[..., np.ndarray],
    *,
    unit: str,
    n_resamples: int = N_RESAMPLES,
    confidence: float = CONFIDENCE,
    rng: Rng = 0,
) -> Figure:
    """Any function of the means over questions of several per-question totals of one arm.

    Args:
        sums: totals over the samples of each question; every one holds the same questions.
        statistic: takes one array per entry of ``sums`` (all of one shape) and returns an array of that shape.
        unit, n_resamples, confidence, rng: as elsewhere.
    """
    tables = [table(values, "sum") for values in sums]
    for other in tables[1:]:
        align(tables[0], other)
    return interval(tables, statistic, unit, n_resamples, confidence, rng)


def paired_statistic(
    a: Sequence[Values],
    b: Sequence[Values],
    statistic: Callable[..., np.ndarray],
    *,
    unit: str,
    n_resamples: int = N_RESAMPLES,
    confidence: float = CONFIDENCE,
    rng: Rng = 0,
) -> PairedDifference:
    """As :func:`statistic_interval` for a statistic that compares two arms on the same questions.

    The p-value exchanges the arms at random within each question (all their totals at once). ``statistic`` takes the
    arrays of ``a``, then those of ``b``, and changes its sign if the arms are exchanged everywhere.

    Raises:
        DataError: the sides do not hold the same questions.
    """
    tables = [table(values, "sum") for values in (*a, *b)]
    for other in tables[1:]:
        align(tables[0], other)
    shown = interval(tables, statistic, unit, n_resamples, confidence, rng, tables_per_arm=len(a))
    left, right = (np.stack([t.by_question for t in side]) for side in (tables[: len(a)], tables[len(a) :]))
    return PairedDifference(shown, swap_arms(left, right, statistic, n_resamples, rng))


def paired_ratio_difference(
    counts_a: Values, totals_a: Values, counts_b: Values, totals_b: Values, *, scale: float = 1.0, **options: Any
) -> PairedDifference:
    """Difference of two rates, each ``scale`` · (sum of counts) / (sum of totals), on the same questions."""

    def difference(ca: np.ndarray, ta: np.ndarray, cb: np.ndarray, tb: np.ndarray) -> np.ndarray:
        return scale * (ratio(ca, ta) - ratio(cb, tb))

    return paired_statistic([counts_a, totals_a], [counts_b, totals_b], difference, **options)


def ratio_of_sums_interval(
    counts: Values,
    totals: Values,
    *,
    unit: str = "share",
    scale: float = 1.0,
    n_resamples: int = N_RESAMPLES,
    confidence: float = CONFIDENCE,
    rng: Rng = 0,
) -> Figure:
    """``scale`` · (sum of counts) / (sum of totals) of the same samples, resampled by question.

    For rates whose base varies between questions: markers per token, right answers per finished answer. Where nothing
    was counted, or in a share (or AUROC) everything, the interval is that of :func:`mean_interval` in this case.
    """
    tables = align(table(counts, "sum"), table(totals, "sum"))
    shown = interval(tables, lambda c, t: scale * ratio(c, t), unit, n_resamples, confidence, rng)
    if unit not in ("share", "AUROC"):  # those end at 1 and are no rates
        return without_events(shown, tables[0], float(np.nansum(tables[1].cells)), scale, confidence)
    shares = [c / t for c, t in zip(tables[0].by_question, tables[1].by_question, strict=True) if t > 0]
    alone = len(shares) == 1 < len(tables[0].questions)  # resampled, it would always be itself
    if alone or (len(shares) > 1 and set(shares) in ({0.0}, {1.0})):
        return {**mean_interval(dict(enumerate(shares)), confidence=confidence), "unit": unit}
    return shown


def rate_per_1k_interval(counts: Values, tokens: Values, *, unit: str = "per 1k tokens", **options: Any) -> Figure:
    """Events per thousand tokens: 1000 · (sum of counts) / (sum of tokens), resampled by question."""
    return ratio_of_sums_interval(counts, tokens, unit=unit, scale=1000.0, **options)


def standard_error(figure: Mapping[str, Any]) -> float:
    """Standard error behind a figure's 95 % interval, from ``lo`` to ``hi``: half of its width over 1.96."""
    return (figure["hi"] - figure["lo"]) / (2 * 1.96)


def holm(p_values: Mapping[Any, float] | Iterable[float]) -> Any:
    """Holm's step-down adjustment for several comparisons (Holm 1979, Scand. J. Statist. 6:65).

    The smallest of m p-values is multiplied by m, the next by m − 1, …; each adjusted value is at least the one
    before it and at most 1. Rejecting where the adjusted value is ≤ α keeps the chance of any false claim ≤ α.

    Args:
        p_values: a mapping (a dict with the same keys comes back) or a sequence (a list in the same order does).

    Raises:
        DataError: a value outside [0, 1].
    """
    if isinstance(p_values, Mapping):
        return dict(zip(p_values, holm(p_values.values()), strict=True))
    p = np.asarray(list(p_values), dtype=float)
    if not ((p >= 0) & (p <= 1)).all():  # also catches NaN
        raise DataError(f"p-values lie between 0 and 1, got {p.tolist()}. Leave out comparisons that were not made.")
    order = np.argsort(p, kind="stable")
    stepped = p[order] * (len(p) - np.arange(len(p)))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted.tolist()
