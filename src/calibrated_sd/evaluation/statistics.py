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
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from calibrated_sd.errors import DataError
from calibrated_sd.evaluation.resampling import (
    Rng,
    bootstrap_questions,
    percentile,
    ratio,
    resample_seeds_and_questions,
    sign_flip,
)
from calibrated_sd.records import figure

N_RESAMPLES = 2000
"""Bootstrap resamples, and sign flips of the permutation test, unless told otherwise."""
CONFIDENCE = 0.95
"""Nominal coverage of every interval, unless told otherwise."""

Figure = dict[str, Any]
Values = Mapping[Any, Any] | Sequence[float] | np.ndarray | pd.Series
Reduction = Literal["mean", "sum"]


class PairedDifference(NamedTuple):
    """A difference between two arms on the same questions.

    Attributes:
        figure: mean of a − b with its interval.
        p_value: two-sided sign-flip permutation p-value over questions; None where there is no question.
    """

    figure: Figure
    p_value: float | None


@dataclass(frozen=True)
class _Table:
    """One number per (seed, question); NaN where a question has no value under a seed."""

    cells: np.ndarray  # (seeds, questions)
    questions: tuple[Any, ...]

    @property
    def by_question(self) -> np.ndarray:
        """Mean over the seeds that have a value, (questions,)."""
        present = ~np.isnan(self.cells)
        return np.where(present, self.cells, 0.0).sum(axis=0) / present.sum(axis=0)


def interval_scope(n_questions: int, n_seeds: int = 1) -> str:
    """What an interval covers, in words: the sources of variation that were resampled.

    >>> interval_scope(200, 1)
    'questions only, 1 seed'
    >>> interval_scope(200, 3)
    'questions and 3 seeds'
    """
    if n_seeds <= 1:
        return "questions only, 1 seed"
    return f"questions and {n_seeds} seeds" if n_questions > 1 else f"{n_seeds} seeds only, 1 question"


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
    certainty; the Wilson interval for that many questions is given instead, and ``method`` says so.
    """
    return _interval([_table(values)], lambda mean: mean, unit, n_resamples, confidence, rng)


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
    tables = _aligned(_table(a), _table(b))
    shown = _interval(tables, lambda x, y: x - y, unit, n_resamples, confidence, rng, separate_seeds=True)
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
    tables = _aligned(_table(numerator), _table(denominator))
    return _interval(tables, ratio, unit, n_resamples, confidence, rng, separate_seeds=True)


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

    For rates whose base varies between questions: markers per token, right answers per finished answer.
    """
    tables = _aligned(_table(counts, "sum"), _table(totals, "sum"))
    return _interval(tables, lambda c, t: scale * ratio(c, t), unit, n_resamples, confidence, rng)


def rate_per_1k_interval(counts: Values, tokens: Values, *, unit: str = "per 1k tokens", **options: Any) -> Figure:
    """Events per thousand tokens: 1000 · (sum of counts) / (sum of tokens), resampled by question."""
    return ratio_of_sums_interval(counts, tokens, unit=unit, scale=1000.0, **options)


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


# --- from samples to one number per (seed, question) ------------------------------------------------------------


def _table(values: Values, reduction: Reduction = "mean") -> _Table:
    given: Any = values if isinstance(values, (Mapping, pd.Series)) else dict(enumerate(values))
    seeds = [one for _, one in given.items()] if _by_seed(given) else [given]
    reduced = [_reduced(one, reduction) for one in seeds]
    questions = tuple(sorted({q for one in reduced for q in one}, key=lambda q: (str(type(q)), q)))
    cells = np.array([[one.get(q, np.nan) for q in questions] for one in reduced], dtype=float)
    return _Table(cells.reshape(len(reduced), len(questions)), questions)


def _by_seed(values: Mapping[Any, Any] | pd.Series) -> bool:
    return len(values) > 0 and all(isinstance(v, (Mapping, pd.Series)) for _, v in values.items())


def _reduced(by_question: Mapping[Any, Any] | pd.Series, reduction: Reduction) -> dict[Any, float]:
    """Mean or sum of the samples of each question; questions without a sample are dropped."""
    reduced = {}
    for question, samples in by_question.items():
        numbers = np.atleast_1d(np.asarray(samples, dtype=float))
        numbers = numbers[~np.isnan(numbers)]
        if numbers.size:
            reduced[question] = float(numbers.mean() if reduction == "mean" else numbers.sum())
    return reduced


def _aligned(a: _Table, b: _Table) -> list[_Table]:
    if a.questions != b.questions:
        only_a, only_b = set(a.questions) - set(b.questions), set(b.questions) - set(a.questions)
        examples = ", ".join(map(repr, sorted(only_a | only_b, key=str)[:3]))
        raise DataError(
            f"A paired comparison needs the same questions on both sides, but {len(only_a)} occur only on the left and "
            f"{len(only_b)} only on the right (e.g. {examples}). Evaluate both on one suite, or keep the shared questions."
        )
    return [a, b]


def _interval(
    tables: Sequence[_Table],
    combine: Callable[..., np.ndarray],
    unit: str,
    n_resamples: int,
    confidence: float,
    rng: Rng,
    separate_seeds: bool = False,
) -> Figure:
    """``combine`` of the tables' means over questions, with an interval.

    ``separate_seeds``: the tables come from different training runs, so their seeds are drawn separately.
    """
    n_questions = len(tables[0].questions)
    n_seeds = max(len(table.cells) for table in tables)
    if n_questions == 0:
        return figure(None, None, None, 0, unit, "no questions")
    samples = [table.by_question for table in tables]
    value = float(combine(*(np.nanmean(table.cells) for table in tables)))
    if n_questions == 1 and n_seeds == 1:
        return figure(value, None, None, 1, unit, "1 question: no interval")
    if not np.isfinite(value):
        return figure(None, None, None, n_questions, unit, "the denominator is 0")
    scope = interval_scope(n_questions, n_seeds)
    if unit == "share" and len(tables) == 1 and value in (0.0, 1.0) and np.ptp(samples[0]) == 0:
        ends = stats.binomtest(round(value * n_questions), n_questions).proportion_ci(confidence, method="wilson")
        method = f"{confidence:.0%} Wilson, every question is {value:.0f}; covers {scope}"
        return figure(value, ends.low, ends.high, n_questions, unit, method)

    if n_seeds == 1:
        kind, (lo, hi) = bootstrap_questions(samples, combine, n_resamples, confidence, rng)
    else:
        drawn = resample_seeds_and_questions([t.cells for t in tables], n_resamples, rng, separate_seeds)
        kind, (lo, hi) = "two-level percentile", percentile(combine(*drawn), confidence)
    paired = "paired " if separate_seeds else ""
    method = f"{confidence:.0%} {paired}{kind} bootstrap, {n_resamples} resamples; covers {scope}"
    return figure(value, lo, hi, n_questions, unit, method)
