"""Verdicts on the paper's claims, computed from intervals and never set by hand. No torch.

Each check takes the run's data and returns the figures it looked at and one verdict:

* ``shown``: the criterion in ``claims.yaml`` holds;
* ``contradicted``: the interval excludes the claimed direction;
* ``not shown``: neither;
* ``not run``: the arms or files it needs are absent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.resources import files
from typing import Any

import pandas as pd
import yaml

from calibrated_sd.evaluation.metrics import pass_at_k, tidy, values_by_question
from calibrated_sd.evaluation.statistics import (
    holm,
    mean_interval,
    paired_difference,
    rate_per_1k_interval,
    ratio_interval,
)
from calibrated_sd.experiments.collect import BASE, RunData
from calibrated_sd.markers import MarkerSet

Figures = dict[str, dict[str, Any]]
Check = Callable[[RunData, str], tuple[Figures, str]]

SHOWN, NOT_SHOWN, CONTRADICTED, NOT_RUN = "shown", "not shown", "contradicted", "not run"
PASS_RATE_BAND = (0.125, 0.5)
"""Base pass rate of the problems the paper's Table 1 was made on."""


def _verdict(shown: bool, contradicted: bool) -> str:
    return SHOWN if shown else CONTRADICTED if contradicted else NOT_SHOWN


def standard_error(figure: dict[str, Any]) -> float:
    """Half the width of a 95 % interval over 1.96."""
    return (figure["hi"] - figure["lo"]) / (2 * 1.96)


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
    return figures, _verdict(shown, drops["markers"]["hi"] < 0 or drops["length"]["hi"] < 0)


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
    return figures, _verdict(shown, any(f["hi"] < 0 for f in steps.values()))


def _need(data: RunData, *arms: str) -> bool:
    return all(arm in data.arms for arm in arms)


def _ood(data: RunData, arm: str, column: str = "correct") -> Any:
    return values_by_question(data.final(arm), column)


def _density(data: RunData, arm: str) -> dict[str, Any]:
    return rate_per_1k_interval(_ood(data, arm, "lexical"), _ood(data, arm, "n_tokens"))


def sdpo_degrades(data: RunData, best: str) -> tuple[Figures, str]:
    """C5."""
    if not _need(data, BASE, "sdpo"):
        return {}, NOT_RUN
    change = paired_difference(_ood(data, "sdpo"), _ood(data, BASE)).figure
    before, after = _density(data, BASE), _density(data, "sdpo")
    figures = {
        "ood_accuracy_base": mean_interval(_ood(data, BASE)),
        "ood_accuracy_sdpo": mean_interval(_ood(data, "sdpo")),
        "ood_sdpo_minus_base": change,
        "markers_per_1k_base": before,
        "markers_per_1k_sdpo": after,
        "markers_per_response_ratio": ratio_interval(_ood(data, "sdpo", "lexical"), _ood(data, BASE, "lexical")),
    }
    falls = change["value"] <= -3 * standard_error(change) and change["hi"] < 0
    shown = falls and after["hi"] <= 0.7 * before["lo"]
    return figures, _verdict(shown, change["lo"] > 0)


def policy_gradient_holds(data: RunData, best: str) -> tuple[Figures, str]:
    """C6."""
    if not _need(data, BASE, "sdpo", "policy_gradient"):
        return {}, NOT_RUN
    gap = paired_difference(_ood(data, "policy_gradient"), _ood(data, "sdpo")).figure
    change = paired_difference(_ood(data, "policy_gradient"), _ood(data, BASE)).figure
    markers = ratio_interval(_ood(data, "policy_gradient", "lexical"), _ood(data, BASE, "lexical"))
    figures = {
        "ood_policy_gradient_minus_sdpo": gap,
        "ood_policy_gradient_minus_base": change,
        "markers_per_response_ratio": markers,
    }
    shown = (
        gap["value"] >= 3 * standard_error(gap) and gap["lo"] > 0 and change["lo"] >= -0.025 and markers["lo"] >= 0.9
    )
    return figures, _verdict(shown, gap["hi"] < 0 or change["hi"] < -0.025)


def stripped_is_milder(data: RunData, best: str) -> tuple[Figures, str]:
    """C7."""
    if not _need(data, BASE, "sdpo", "sdpo_stripped"):
        return {}, NOT_RUN
    milder = paired_difference(_ood(data, "sdpo_stripped"), _ood(data, "sdpo")).figure
    below = paired_difference(_ood(data, BASE), _ood(data, "sdpo_stripped")).figure
    figures = {"ood_stripped_minus_sdpo": milder, "ood_base_minus_stripped": below}
    return figures, _verdict(milder["lo"] > 0 and below["hi"] >= 0, milder["hi"] < 0 or below["hi"] < 0)


def shift_is_specific(data: RunData, best: str) -> tuple[Figures, str]:
    """C12. Words that are neither markers nor held-out markers; numbers and symbols are left out."""
    if not _need(data, BASE, "sdpo"):
        return {}, NOT_RUN
    before, after = data.word_rates(BASE), data.word_rates("sdpo")
    marker_words = {w for phrase in MarkerSet.load("legacy").phrases for w in phrase.split()}
    hedge_words = {w for phrase in MarkerSet.load("held_out").phrases for w in phrase.split()}
    change = {w: abs(after[w] - before[w]) for w in sorted(set(before) | set(after))}
    markers = [change[w] for w in change if w in marker_words]
    others = [change[w] for w in change if w not in marker_words | hedge_words]
    if len(markers) < 2 or len(others) < 2:
        return {}, NOT_RUN
    moved = mean_interval(dict(enumerate(markers)), unit="per response")
    rest = mean_interval(dict(enumerate(others)), unit="per response")
    figures = {"mean_change_markers": moved, "mean_change_other_words": rest}
    return figures, _verdict(moved["value"] >= 3 * rest["value"] and moved["lo"] > rest["hi"], moved["hi"] < rest["lo"])


def pass_at_k_gap(data: RunData, best: str) -> tuple[Figures, str]:
    """C13, k = all samples of a question."""
    if not _need(data, "sdpo", "policy_gradient"):
        return {}, NOT_RUN

    def any_right(arm: str) -> Any:
        frame = data.final(arm)
        by_seed = {
            seed: {q: pass_at_k(len(g), int(g.correct.sum()), len(g)) for q, g in rows.groupby("problem_id")}
            for seed, rows in frame.groupby("seed")
        }
        return by_seed if len(by_seed) > 1 else next(iter(by_seed.values()))

    k = int(data.final("sdpo").groupby(["seed", "problem_id"]).size().min())
    if k < 2:
        return {}, NOT_RUN
    gap = paired_difference(any_right("policy_gradient"), any_right("sdpo")).figure
    return {f"ood_pass@{k}_policy_gradient_minus_sdpo": gap}, _verdict(gap["lo"] > 0, gap["hi"] < 0)


def calibrator_repairs(data: RunData, best: str) -> tuple[Figures, str]:
    """R1. `best` was named in the recipe before the run; the others are corrected for as well."""
    rivals = [arm for arm in data.arms if arm in data.calibrated]
    if not _need(data, "sdpo") or best not in rivals:
        return {}, NOT_RUN
    found = {arm: paired_difference(_ood(data, arm), _ood(data, "sdpo")) for arm in rivals}
    figures = {f"ood_{arm}_minus_sdpo": f.figure for arm, f in found.items()}
    p = holm({arm: f.p_value for arm, f in found.items() if f.p_value is not None})
    change = figures[f"ood_{best}_minus_sdpo"]
    return figures, _verdict(change["lo"] > 0 and p.get(best, 1.0) <= 0.05, change["hi"] < 0)


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        ladder_style,
        ladder_accuracy,
        sdpo_degrades,
        policy_gradient_holds,
        stripped_is_milder,
        shift_is_specific,
        pass_at_k_gap,
        calibrator_repairs,
    )
}


def load_claims() -> dict[str, dict[str, Any]]:
    """The claims as written in ``claims.yaml``."""
    return yaml.safe_load((files("calibrated_sd.experiments") / "claims.yaml").read_text(encoding="utf-8"))


def evaluate_claims(data: RunData, best: str, command: str) -> list[dict[str, Any]]:
    """One entry per claim for ``claims.json``."""
    entries = []
    for claim_id, claim in load_claims().items():
        check = CHECKS.get(claim.get("check", ""))
        ours, verdict = check(data, best) if check else ({}, NOT_RUN)
        entries.append(
            {
                "id": claim_id,
                "statement": claim["statement"],
                "paper": claim["paper"],
                "ours": ours,
                "verdict": verdict,
                "criterion": claim["criterion"],
                "command": command,
            }
        )
    return entries
