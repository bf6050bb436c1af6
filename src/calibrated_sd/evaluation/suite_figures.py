"""Everything that ``metrics.json`` says about one suite. ``docs/reference/metrics.md`` has the formulas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from calibrated_sd.evaluation.hedging import hedging_figures
from calibrated_sd.evaluation.matched_length import budget_figures
from calibrated_sd.evaluation.metrics import Record, one_condition, summarise
from calibrated_sd.evaluation.statistics import Figure


def suite_figures(records: Iterable[Record] | pd.DataFrame, *, rng: int = 0, **options: Any) -> dict[str, Figure]:
    """:func:`~calibrated_sd.evaluation.metrics.summarise`, accuracy within token budgets, and whether doubt is well placed.

    Args:
        records: of one arm, suite, step and context; several seeds are a second level of resampling.
        rng: seed of the bootstrap.
        options: ``n_resamples``, ``confidence``.

    Raises:
        DataError: no records, or records that mix arms, suites, steps or contexts.
    """
    frame = one_condition(records)
    return {
        **summarise(frame, rng=rng, **options),
        **budget_figures(frame, rng=rng, **options),
        **hedging_figures(frame, rng=rng, **options),
    }
