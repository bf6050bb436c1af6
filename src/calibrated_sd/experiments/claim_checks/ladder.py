"""C1 and C2: what a context does without training."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from calibrated_sd.evaluation.metrics import tidy, values_by_question
from calibrated_sd.experiments.claim_checks.measures import (
    NOT_RUN,
    Figures,
    mean_interval,
    paired_difference,
    rate_per_1k_interval,
    ratio_interval,
    verdict,
)
from calibrated_sd.experiments.collect import RunData

PASS_RATE_BAND = (0.125, 0.5)
"""Base pass rate of the problems the paper's Table 1 was made on."""


def _level(data: RunData, context: str, problems: Iterable[str] | None = None) -> pd.DataFrame:
    frame = tidy(r for r in data.ladder if r["context"] == context and r["suite"] != "screen")
    return frame if problems is None else frame[frame.problem_id.isin(set(problems))]


def _condition(frame: pd.DataFrame) -> pd.DataFrame:
    """Ladder rows of several families as one condition."""
    return frame.assign(suite="ladder")


def hard_problems(data: RunData) -> list[str]:
    """Ladder problems whose base pass rate lies in the paper's band, judged on screening samples used for nothing else."""
    screen = tidy(r for r in data.ladder if r["suite"] == "screen")
    if screen.empty:
        return []
    rate = screen.groupby("problem_id").correct.mean()
    low, high = PASS_RATE_BAND
    return sorted(rate.index[(rate >= low) & (rate <= high)])


def ladder_style(data: RunData, best: str) -> tuple[Figures, str]:
    """C1."""
    if not data.ladder:
        return {}, NOT_RUN
    figures: Figures = {}
    columns = {"markers": "lexical", "length": "n_tokens"}
    by_level = {}
    for level in ("none", "stripped", "regenerated", "solution"):
        frame = _condition(_level(data, level))
        if frame.empty:
            continue
        by_level[level] = {name: values_by_question(frame, column) for name, column in columns.items()}
        figures[f"markers_{level}"] = mean_interval(by_level[level]["markers"], unit="per response")
        figures[f"length_{level}"] = mean_interval(by_level[level]["length"], unit="tokens")
    none, solution = by_level["none"], by_level["solution"]
    drops = {}
    for name, unit in (("markers", "per response"), ("length", "tokens")):
        drops[name] = paired_difference(none[name], solution[name], unit=unit).figure
        figures[f"{name}_none_minus_solution"] = drops[name]
    figures["markers_solution_over_none"] = ratio_interval(solution["markers"], none["markers"])
    if "stripped" in by_level:
        figures["markers_stripped_over_none"] = ratio_interval(by_level["stripped"]["markers"], none["markers"])
    densities = {
        level: rate_per_1k_interval(by_level[level]["markers"], by_level[level]["length"])
        for level in ("none", "solution")
    }
    figures |= {f"markers_per_1k_{level}": f for level, f in densities.items()}
    ratio_upper = densities["solution"]["hi"] / densities["none"]["lo"]
    shown = drops["markers"]["lo"] > 0 and drops["length"]["lo"] > 0 and ratio_upper <= 0.6
    return figures, verdict(shown, drops["markers"]["hi"] < 0 or drops["length"]["hi"] < 0)


def ladder_accuracy(data: RunData, best: str) -> tuple[Figures, str]:
    """C2."""
    if not data.ladder:
        return {}, NOT_RUN
    figures: Figures = {}
    correct = {}
    for level in ("none", "stripped", "regenerated", "solution"):
        frame = _condition(_level(data, level))
        if not frame.empty:
            correct[level] = values_by_question(frame, "correct")
            figures[f"accuracy_{level}"] = mean_interval(correct[level])
    steps = {
        "stripped_minus_none": paired_difference(correct["stripped"], correct["none"]).figure,
        "solution_minus_stripped": paired_difference(correct["solution"], correct["stripped"]).figure,
    }
    figures |= steps
    hard = hard_problems(data)
    if len(hard) >= 5:  # reported beside the verdict: how large the gap is where the base model struggles
        figures["solution_minus_none_on_hard_problems"] = paired_difference(
            values_by_question(_condition(_level(data, "solution", hard)), "correct"),
            values_by_question(_condition(_level(data, "none", hard)), "correct"),
        ).figure
    shown = all(f["lo"] > 0 for f in steps.values())
    return figures, verdict(shown, any(f["hi"] < 0 for f in steps.values()))
