"""What every check is made of: verdicts, and intervals of the pooled out-of-distribution suites of one arm."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from calibrated_sd.evaluation import statistics
from calibrated_sd.evaluation.metrics import values_by_question
from calibrated_sd.evaluation.question_tables import N_PAIRED
from calibrated_sd.evaluation.statistics import standard_error
from calibrated_sd.experiments.collect import RunData

Figures = dict[str, dict[str, Any]]
Check = Callable[[RunData, str], tuple[Figures, str]]

SHOWN, NOT_SHOWN, CONTRADICTED, NOT_RUN = "shown", "not shown", "contradicted", "not run"

Result = TypeVar("Result")


def _resampled(function: Callable[..., Result]) -> Callable[..., Result]:
    @wraps(function)
    def call(*values: Any, **options: Any) -> Result:
        return function(*values, **{"n_resamples": N_PAIRED, **options})

    return call


mean_interval = _resampled(statistics.mean_interval)
paired_difference = _resampled(statistics.paired_difference)
paired_ratio_difference = _resampled(statistics.paired_ratio_difference)
rate_per_1k_interval = _resampled(statistics.rate_per_1k_interval)
ratio_interval = _resampled(statistics.ratio_interval)


def verdict(shown: bool, contradicted: bool) -> str:
    """One word of two findings; what is shown is not contradicted."""
    return SHOWN if shown else CONTRADICTED if contradicted else NOT_SHOWN


def rises_by_standard_errors(figure: dict[str, Any], k: float) -> bool:
    """Whether a difference is at least k standard errors above 0 and its interval excludes 0."""
    return figure["value"] >= k * standard_error(figure) and figure["lo"] > 0


def falls_by_standard_errors(figure: dict[str, Any], k: float) -> bool:
    """Whether a difference is at least k standard errors below 0 and its interval excludes 0."""
    return figure["value"] <= -k * standard_error(figure) and figure["hi"] < 0


def need(data: RunData, *arms: str) -> bool:
    """Whether all of these arms have been finished by some seed."""
    return all(arm in data.arms for arm in arms)


def ood(data: RunData, arm: str, column: str = "correct") -> Any:
    """Values by question of an arm's last evaluation, out of distribution."""
    return values_by_question(data.final(arm), column)


def density(data: RunData, arm: str) -> dict[str, Any]:
    """Markers per 1k tokens of an arm's last evaluation, out of distribution."""
    return rate_per_1k_interval(ood(data, arm, "lexical"), ood(data, arm, "n_tokens"))
