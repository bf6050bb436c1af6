"""From a checkpoint to numbers one can believe: problems, samples, grades, figures with intervals.

``statistics``, ``metrics`` and ``grading`` need no torch (reports import them); ``generate`` and ``completions`` hold
everything that touches a model and are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from calibrated_sd.evaluation.grading import GRADERS, extract_boxed, get_grader, grade_boxed
from calibrated_sd.evaluation.metrics import pass_at_k, summarise, summary_rows, tidy, values_by_question
from calibrated_sd.evaluation.statistics import (
    PairedDifference,
    holm,
    interval_scope,
    mean_interval,
    paired_difference,
    rate_per_1k_interval,
    ratio_interval,
    ratio_of_sums_interval,
)

if TYPE_CHECKING:
    from calibrated_sd.evaluation.completions import record_completions
    from calibrated_sd.evaluation.datasets import Problem, load_problems
    from calibrated_sd.evaluation.generate import Completion, generate_completions, iter_completions

_ON_FIRST_USE = {
    "Completion": "generate",
    "Problem": "datasets",
    "generate_completions": "generate",
    "iter_completions": "generate",
    "load_problems": "datasets",
    "record_completions": "completions",
}

__all__ = [
    "GRADERS",
    "Completion",
    "PairedDifference",
    "Problem",
    "extract_boxed",
    "generate_completions",
    "get_grader",
    "grade_boxed",
    "holm",
    "interval_scope",
    "iter_completions",
    "load_problems",
    "mean_interval",
    "paired_difference",
    "pass_at_k",
    "rate_per_1k_interval",
    "ratio_interval",
    "ratio_of_sums_interval",
    "record_completions",
    "summarise",
    "summary_rows",
    "tidy",
    "values_by_question",
]


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module 'calibrated_sd.evaluation' has no attribute {name!r}")
    return getattr(importlib.import_module(f"calibrated_sd.evaluation.{_ON_FIRST_USE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
