"""From samples to one number per seed and question, and from those to an interval: the inside of ``statistics``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from calibrated_sd.errors import DataError
from calibrated_sd.evaluation.resampling import Rng, bootstrap_questions, percentile, resample_seeds_and_questions
from calibrated_sd.records import figure

N_RESAMPLES = 2000
"""Bootstrap resamples, and permutations of a test, unless told otherwise."""
N_PAIRED = 10_000
"""The same behind verdicts and in tables that compare many arms: a p-value can be small enough to survive Holm's correction."""
CONFIDENCE = 0.95
"""Nominal coverage of every interval, unless told otherwise."""

Figure = dict[str, Any]
Values = Mapping[Any, Any] | Sequence[float] | np.ndarray | pd.Series
Reduction = Literal["mean", "sum"]


@dataclass(frozen=True)
class Table:
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


def table(values: Values, reduction: Reduction = "mean") -> Table:
    given: Any = values if isinstance(values, (Mapping, pd.Series)) else dict(enumerate(values))
    seeds = [one for _, one in given.items()] if _by_seed(given) else [given]
    reduced = [_reduced(one, reduction) for one in seeds]
    questions = tuple(sorted({q for one in reduced for q in one}, key=lambda q: (str(type(q)), q)))
    cells = np.array([[one.get(q, np.nan) for q in questions] for one in reduced], dtype=float)
    return Table(cells.reshape(len(reduced), len(questions)), questions)


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


def align(a: Table, b: Table) -> list[Table]:
    if a.questions != b.questions:
        only_a, only_b = set(a.questions) - set(b.questions), set(b.questions) - set(a.questions)
        examples = ", ".join(map(repr, sorted(only_a | only_b, key=str)[:3]))
        raise DataError(
            f"A paired comparison needs the same questions on both sides, but {len(only_a)} occur only on the left and "
            f"{len(only_b)} only on the right (e.g. {examples}). Evaluate both on one suite, or keep the shared questions."
        )
    return [a, b]


def interval(
    tables: Sequence[Table],
    combine: Callable[..., np.ndarray],
    unit: str,
    n_resamples: int,
    confidence: float,
    rng: Rng,
    tables_per_arm: int | None = None,
) -> Figure:
    """``combine`` of the tables' means over questions, with an interval.

    Args:
        tables: aligned; each enters ``combine`` as its mean over questions and seeds.
        combine: from those means, or arrays of resampled ones, to the quantity of interest.
        unit, n_resamples, confidence, rng: as in :mod:`calibrated_sd.evaluation.statistics`.
        tables_per_arm: how many successive tables belong to one training arm. The seeds of different arms are drawn
            separately. None: all tables are of one arm.
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
        drawn = resample_seeds_and_questions([t.cells for t in tables], n_resamples, rng, tables_per_arm)
        kind, (lo, hi) = "two-level percentile", percentile(combine(*drawn), confidence)
    paired = "paired " if tables_per_arm else ""
    method = f"{confidence:.0%} {paired}{kind} bootstrap, {n_resamples} resamples; covers {scope}"
    return figure(value, lo, hi, n_questions, unit, method)


def without_events(shown: Figure, counts: Table, exposure: float, scale: float, confidence: float) -> Figure:
    """The figure itself, or if nothing was counted at all an interval that does not claim certainty.

    A bootstrap of zeros is [0, 0]. The exact interval of a Poisson rate after no event ends at −ln(α/2) / exposure
    (Garwood 1936, Biometrika 28:437), 3.7 events at 95 %. It takes events as independent; where they come in clusters,
    more can be hidden.

    Args:
        shown: as resampling gives it.
        counts: events of each question.
        exposure: what the events are counted in, e.g. tokens, all questions and seeds together.
        scale: of the figure, e.g. 1000 for events per thousand tokens.
        confidence: of the interval.
    """
    if shown["lo"] is None or shown["value"] != 0 or np.nansum(np.abs(counts.cells)) > 0:
        return shown
    end = -scale * float(np.log((1 - confidence) / 2)) / exposure
    scope = interval_scope(len(counts.questions), len(counts.cells))
    return figure(0.0, 0.0, end, shown["n"], shown["unit"], f"{confidence:.0%} Poisson, no event; covers {scope}")
