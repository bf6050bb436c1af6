"""C8 and C9: which teacher, how fast, and how many of its words."""

from __future__ import annotations

from typing import Any

import pandas as pd

from calibrated_sd.evaluation.metrics import values_by_question
from calibrated_sd.experiments.claim_checks.measures import (
    NOT_RUN,
    Figures,
    need,
    ood,
    paired_difference,
    paired_ratio_difference,
    standard_error,
    verdict,
)
from calibrated_sd.experiments.claim_checks.on_policy import collapse_of
from calibrated_sd.experiments.collect import BASE, OOD, RunData

FAST, SLOW, EMA, LIVE = "sdpo", "sdpo_slow", "sdpo_slow_ema", "sdpo_slow_live"
DELAY_STEP = 10
"""After this step the slow learner is compared with the fast one."""


def frozen_teacher_is_better(data: RunData, best: str) -> tuple[Figures, str]:
    """C8. The live teacher is reported beside the verdict."""
    if not need(data, SLOW, EMA):
        return {}, NOT_RUN
    figures: Figures = {}
    for arm in (EMA, LIVE):
        if need(data, arm):
            for name, column, unit in (("ood", "correct", "share"), ("length", "n_tokens", "tokens")):
                sides = on_shared_questions(over_evaluations(data, SLOW, column), over_evaluations(data, arm, column))
                moving = arm.removeprefix("sdpo_slow_")
                figures[f"{name}_frozen_minus_{moving}"] = paired_difference(*sides, unit=unit).figure
    accuracy, length = figures["ood_frozen_minus_ema"], figures["length_frozen_minus_ema"]
    shown = accuracy["value"] > 0 and accuracy["value"] >= standard_error(accuracy) and length["lo"] > 0
    return figures, verdict(shown, accuracy["hi"] < 0 or length["hi"] < 0)


def lower_rate_only_delays(data: RunData, best: str) -> tuple[Figures, str]:
    """C9. Top-k against full logits is reported beside the verdict."""
    if not need(data, BASE, FAST, SLOW):
        return {}, NOT_RUN
    slow, fast = (at_step(data, arm, DELAY_STEP) for arm in (SLOW, FAST))
    if slow.empty or fast.empty:
        return {}, NOT_RUN
    shared = set(slow.problem_id) & set(fast.problem_id)
    slow, fast = (frame[frame.problem_id.isin(shared)] for frame in (slow, fast))
    (right_slow, right_fast), (marks_slow, marks_fast), (long_slow, long_fast) = (
        [values_by_question(frame, column) for frame in (slow, fast)] for column in ("correct", "lexical", "n_tokens")
    )
    ahead = paired_difference(right_slow, right_fast).figure
    denser = paired_ratio_difference(
        marks_slow, long_slow, marks_fast, long_fast, scale=1000.0, unit="per 1k tokens"
    ).figure
    found, collapsed = collapse_of(data, SLOW)
    figures = {
        f"ood_slow_minus_fast_step_{DELAY_STEP}": ahead,
        f"markers_per_1k_slow_minus_fast_step_{DELAY_STEP}": denser,
        "ood_slow_minus_base": found["change"],
        "markers_per_1k_base": found["markers_per_1k_base"],
        "markers_per_1k_slow": found["markers_per_1k"],
    }
    for k in (20, 5):
        if need(data, f"sdpo_top{k}"):
            figures[f"ood_top{k}_minus_full"] = paired_difference(ood(data, f"sdpo_top{k}"), ood(data, FAST)).figure
    shown = ahead["lo"] > 0 and denser["lo"] > 0 and collapsed
    return figures, verdict(shown, ahead["hi"] < 0 or denser["hi"] < 0 or found["change"]["lo"] > 0)


def at_step(data: RunData, arm: str, step: int) -> pd.DataFrame:
    """An arm's evaluation after one step, the out-of-distribution suites as one."""
    frame = data.frame
    rows = frame[(frame.arm == arm) & (frame.step == step) & frame.suite.isin(data.ood_suites)]
    return rows.assign(suite=OOD)


def over_evaluations(data: RunData, arm: str, column: str) -> dict[int, dict[str, float]]:
    """Seed → question → mean over all evaluations of an arm, every evaluation counting once.

    Only of seeds that have been finished and questions that were asked in every evaluation.
    """
    steps = sorted(data.frame.step[data.frame.arm == arm].unique())
    means = [
        at_step(data, arm, step).groupby(["seed", "problem_id"])[column].mean().rename(str(step)) for step in steps
    ]
    table = pd.concat(means, axis=1, join="inner").mean(axis=1)
    return {int(seed): rows.droplevel("seed").to_dict() for seed, rows in table.groupby(level="seed")}


def on_shared_questions(*sides: dict[int, dict[str, float]]) -> list[Any]:
    """The same values, of the questions that every side has."""
    shared = set.intersection(*({q for one in side.values() for q in one} for side in sides))
    return [{seed: {q: v for q, v in one.items() if q in shared} for seed, one in side.items()} for side in sides]
