"""From a checkpoint to numbers one can believe: problems, samples, grades, figures with intervals.

``statistics``, ``metrics`` and ``grading`` need no torch (reports import them); ``generate`` and ``completions`` hold
everything that touches a model. Names are imported on first use, so that a grading process stays small.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calibrated_sd.evaluation.compare import compare_runs
    from calibrated_sd.evaluation.completions import record_completions
    from calibrated_sd.evaluation.datasets import Problem, load_problems
    from calibrated_sd.evaluation.generate import Completion, generate_completions, iter_completions
    from calibrated_sd.evaluation.grading import GRADERS, extract_boxed, get_grader, grade_boxed
    from calibrated_sd.evaluation.grading_pool import GradingPool
    from calibrated_sd.evaluation.lm_eval import read_lm_eval
    from calibrated_sd.evaluation.metrics import pass_at_k, summarise, summary_rows, tidy, values_by_question
    from calibrated_sd.evaluation.rewards import SoftOverlong, boxed_math_reward, load_reward, make_reward
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

_WHERE = {
    "compare": ("compare_runs",),
    "completions": ("record_completions",),
    "datasets": ("Problem", "load_problems"),
    "generate": ("Completion", "generate_completions", "iter_completions"),
    "grading": ("GRADERS", "extract_boxed", "get_grader", "grade_boxed"),
    "grading_pool": ("GradingPool",),
    "lm_eval": ("read_lm_eval",),
    "metrics": ("pass_at_k", "summarise", "summary_rows", "tidy", "values_by_question"),
    "rewards": ("SoftOverlong", "boxed_math_reward", "load_reward", "make_reward"),
    "statistics": (
        *("PairedDifference", "holm", "interval_scope", "mean_interval", "paired_difference"),
        *("rate_per_1k_interval", "ratio_interval", "ratio_of_sums_interval"),
    ),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "GRADERS",
    "Completion",
    "GradingPool",
    "PairedDifference",
    "Problem",
    "SoftOverlong",
    "boxed_math_reward",
    "compare_runs",
    "extract_boxed",
    "generate_completions",
    "get_grader",
    "grade_boxed",
    "holm",
    "interval_scope",
    "iter_completions",
    "load_problems",
    "load_reward",
    "make_reward",
    "mean_interval",
    "paired_difference",
    "pass_at_k",
    "rate_per_1k_interval",
    "ratio_interval",
    "ratio_of_sums_interval",
    "read_lm_eval",
    "record_completions",
    "summarise",
    "summary_rows",
    "tidy",
    "values_by_question",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'calibrated_sd.evaluation' has no attribute {name!r}")
    return getattr(importlib.import_module(f"calibrated_sd.evaluation.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
