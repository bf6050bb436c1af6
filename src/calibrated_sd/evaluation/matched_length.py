"""Comparisons at equal length: a longer answer has more room for doubt, and more budget to be right. No torch.

*Token budget.* A completion counts as right within B tokens if it is right and at most B tokens long; a longer one would
have been cut. So ``accuracy_within@B`` is what the model would have scored with ``max_new_tokens = B``, up to answers that
were boxed early (a lower bound).

*Matched length.* Completions of both sides are sorted into four strata at the quartiles of their pooled lengths. With
c_0b, c_1b completions of the sides in stratum b and r_0b, r_1b their rates there (right answers per completion, or markers
per 1000 tokens)::

    Δ = Σ_b w_b (r_1b − r_0b),    w_b = min(c_0b, c_1b) / Σ_b min(c_0b, c_1b)

Strata that only one side reaches have weight 0: nothing in them can be compared. Length is a result of the model and no
cause that was set, so this describes; it does not say what would happen if lengths were made equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from calibrated_sd.evaluation.metrics import Record, one_condition, per_question
from calibrated_sd.evaluation.statistics import (
    Figure,
    PairedDifference,
    mean_interval,
    paired_statistic,
    statistic_interval,
)
from calibrated_sd.records import figure

N_STRATA = 4
N_BUDGETS = 4


def token_budgets(*frames: pd.DataFrame) -> list[int]:
    """The largest powers of two that are instructive budgets for all of these runs, at most four, ascending.

    Below the longest completion (beyond it nothing changes), and not beyond the token limit of any run, as far as its cut
    completions show it.
    """
    longest = max((int(frame["n_tokens"].max()) for frame in frames if len(frame)), default=0)
    cut = [frame.loc[frame["finished"] == 0, "n_tokens"] for frame in frames]
    limit = min([int(lengths.max()) for lengths in cut if len(lengths)], default=longest)
    powers = [2**k for k in range(longest.bit_length()) if 2**k < longest and 2**k <= limit]
    return powers[-N_BUDGETS:]


def right_within(frame: pd.DataFrame, budget: int) -> dict[Any, Any]:
    """For each question (by seed first where there are several), which samples are right within the budget."""
    return per_question(
        frame, "correct", "n_tokens", reduce=lambda c, n: np.where(np.isnan(c), np.nan, c * (n <= budget))
    )


def budget_figures(records: Iterable[Record] | pd.DataFrame, **options: Any) -> dict[str, Figure]:
    """``accuracy_within@B`` for the budgets of :func:`token_budgets`.

    Args:
        records: completion records or their :func:`~calibrated_sd.evaluation.metrics.tidy` frame.
        options: ``n_resamples``, ``confidence``, ``rng``.
    """
    frame = one_condition(records)
    return {f"accuracy_within@{b}": mean_interval(right_within(frame, b), **options) for b in token_budgets(frame)}


def wrong_minus_right_at_equal_length(frame: pd.DataFrame, marker_set: str, **options: Any) -> Figure:
    """Markers per 1000 tokens in wrong answers minus right ones, at matched length.

    Args:
        frame: graded completions of one arm, suite, step and context, with tokens each.
        marker_set: ``legacy``, ``lexical`` or ``held_out``.
        options: ``n_resamples``, ``confidence``, ``rng``.
    """
    right, wrong = (frame[frame["correct"] == kind] for kind in (1.0, 0.0))
    edges = _edges(frame)
    questions = frame[["seed", "problem_id"]].drop_duplicates()
    sums = [s for side in (right, wrong) for s in _stratum_sums(side, questions, edges, marker_set, "n_tokens")]
    if right.empty or wrong.empty:
        return figure(None, None, None, len(questions), "per 1k tokens", "needs right and wrong answers")
    return statistic_interval(sums, standardised_difference(len(edges) + 1, 1000.0), unit="per 1k tokens", **options)


def accuracy_at_equal_length(a: pd.DataFrame, b: pd.DataFrame, **options: Any) -> PairedDifference:
    """Accuracy of ``b`` minus that of ``a`` at matched length, two arms on the same questions.

    Args:
        a, b: graded completions of one arm, suite, step and context each.
        options: ``n_resamples``, ``confidence``, ``rng``.

    Raises:
        DataError: the two sides do not hold the same questions.
    """
    edges = _edges(pd.concat([a, b]))
    left, right = (
        _stratum_sums(f.assign(one=1), f[["seed", "problem_id"]].drop_duplicates(), edges, "correct", "one")
        for f in (a, b)
    )
    return paired_statistic(left, right, standardised_difference(len(edges) + 1, 1.0), unit="share", **options)


def standardised_difference(n_strata: int, scale: float) -> Callable[..., np.ndarray]:
    """Δ of this module's docstring, as a function of the sums that :func:`_stratum_sums` gives for side 0, then side 1.

    Sums come in the order completions, numerator, denominator, each for all strata.
    """

    def statistic(*sums: np.ndarray) -> np.ndarray:
        n = n_strata
        count0, above0, below0, count1, above1, below1 = (np.stack(sums[i * n : (i + 1) * n]) for i in range(6))
        weight = np.minimum(count0, count1)
        with np.errstate(divide="ignore", invalid="ignore"):
            gaps = np.where(weight > 0, above1 / below1 - above0 / below0, 0.0)
            return scale * (weight * gaps).sum(axis=0) / weight.sum(axis=0)

    return statistic


def _edges(frame: pd.DataFrame) -> np.ndarray:
    """Upper ends of all strata but the last; fewer than three where lengths coincide."""
    if frame.empty:
        return np.array([])
    inner = np.linspace(0, 1, N_STRATA + 1)[1:-1]
    ends = np.unique(np.quantile(frame["n_tokens"], inner, method="inverted_cdf"))
    return ends[ends < frame["n_tokens"].max()]


def _stratum_sums(
    frame: pd.DataFrame, questions: pd.DataFrame, edges: np.ndarray, above: str, below: str
) -> Sequence[dict[Any, Any]]:
    """Per question (by seed first): completions, sum of ``above``, sum of ``below`` in each stratum; 0 where none is."""
    place = np.searchsorted(edges, frame["n_tokens"], side="left")
    several = questions["seed"].nunique() > 1
    grouped = frame.assign(place=place, count=1).groupby(["seed", "problem_id", "place"])[["count", above, below]].sum()
    tables = grouped.unstack("place", fill_value=0.0)
    index = pd.MultiIndex.from_frame(questions)
    columns = pd.MultiIndex.from_product([["count", above, below], range(len(edges) + 1)])
    tables = tables.reindex(index=index, columns=columns, fill_value=0.0).fillna(0.0)
    sums = []
    for column in columns:
        values = tables[column]
        if several:
            sums.append({s: part.droplevel("seed").to_dict() for s, part in values.groupby(level="seed")})
        else:
            sums.append(values.droplevel("seed").to_dict())
    return sums
