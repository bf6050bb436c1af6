"""C5, C6, C7, C12, C13 and R1: SDPO against the base model, policy gradient and calibrated arms."""

from __future__ import annotations

from typing import Any

from calibrated_sd.evaluation.metrics import pass_at_k
from calibrated_sd.evaluation.statistics import holm
from calibrated_sd.experiments.claim_checks.measures import (
    NOT_RUN,
    Figures,
    density,
    falls_by_standard_errors,
    mean_interval,
    need,
    ood,
    paired_difference,
    ratio_interval,
    rises_by_standard_errors,
    verdict,
)
from calibrated_sd.experiments.collect import BASE, RunData
from calibrated_sd.markers import MarkerSet


def collapse_of(data: RunData, arm: str) -> tuple[Figures, bool]:
    """Figures of C5 for an arm, and whether it fulfils the criterion of C5. The change of accuracy is `change`."""
    change = paired_difference(ood(data, arm), ood(data, BASE)).figure
    before, after = density(data, BASE), density(data, arm)
    figures = {
        "change": change,
        "markers_per_response_ratio": ratio_interval(ood(data, arm, "lexical"), ood(data, BASE, "lexical")),
        "markers_per_1k_base": before,
        "markers_per_1k": after,
    }
    return figures, falls_by_standard_errors(change, 3) and after["hi"] <= 0.7 * before["lo"]


def sdpo_degrades(data: RunData, best: str) -> tuple[Figures, str]:
    """C5."""
    if not need(data, BASE, "sdpo"):
        return {}, NOT_RUN
    found, shown = collapse_of(data, "sdpo")
    figures = {
        "ood_accuracy_base": mean_interval(ood(data, BASE)),
        "ood_accuracy_sdpo": mean_interval(ood(data, "sdpo")),
        "ood_sdpo_minus_base": found["change"],
        "markers_per_1k_base": found["markers_per_1k_base"],
        "markers_per_1k_sdpo": found["markers_per_1k"],
        "markers_per_response_ratio": found["markers_per_response_ratio"],
    }
    return figures, verdict(shown, found["change"]["lo"] > 0)


def policy_gradient_holds(data: RunData, best: str) -> tuple[Figures, str]:
    """C6. The arm at a tenth of the learning rate is reported beside the verdict."""
    if not need(data, BASE, "sdpo", "policy_gradient"):
        return {}, NOT_RUN
    figures: Figures = {}
    for arm in ("policy_gradient", "policy_gradient_low"):
        if need(data, arm):
            ratio = ratio_interval(ood(data, arm, "lexical"), ood(data, BASE, "lexical"))
            figures |= {
                f"ood_{arm}_minus_sdpo": paired_difference(ood(data, arm), ood(data, "sdpo")).figure,
                f"ood_{arm}_minus_base": paired_difference(ood(data, arm), ood(data, BASE)).figure,
                f"markers_per_response_ratio{arm.removeprefix('policy_gradient')}": ratio,
            }
    gap, change = figures["ood_policy_gradient_minus_sdpo"], figures["ood_policy_gradient_minus_base"]
    shown = (
        rises_by_standard_errors(gap, 3)
        and change["lo"] >= -0.025
        and figures["markers_per_response_ratio"]["lo"] >= 0.9
    )
    return figures, verdict(shown, gap["hi"] < 0 or change["hi"] < -0.025)


def stripped_is_milder(data: RunData, best: str) -> tuple[Figures, str]:
    """C7."""
    if not need(data, BASE, "sdpo", "sdpo_stripped"):
        return {}, NOT_RUN
    milder = paired_difference(ood(data, "sdpo_stripped"), ood(data, "sdpo")).figure
    below = paired_difference(ood(data, BASE), ood(data, "sdpo_stripped")).figure
    figures = {"ood_stripped_minus_sdpo": milder, "ood_base_minus_stripped": below}
    return figures, verdict(milder["lo"] > 0 and below["hi"] >= 0, milder["hi"] < 0 or below["hi"] < 0)


def shift_is_specific(data: RunData, best: str) -> tuple[Figures, str]:
    """C12. Words that are neither markers nor held-out markers; numbers and symbols are left out."""
    if not need(data, BASE, "sdpo"):
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
    return figures, verdict(moved["value"] >= 3 * rest["value"] and moved["lo"] > rest["hi"], moved["hi"] < rest["lo"])


def pass_at_k_gap(data: RunData, best: str) -> tuple[Figures, str]:
    """C13, k = all samples of a question."""
    if not need(data, "sdpo", "policy_gradient"):
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
    return {f"ood_pass@{k}_policy_gradient_minus_sdpo": gap}, verdict(gap["lo"] > 0, gap["hi"] < 0)


def calibrator_repairs(data: RunData, best: str) -> tuple[Figures, str]:
    """R1. `best` was named in the recipe before the run; the others are corrected for as well."""
    rivals = [arm for arm in data.arms if arm in data.calibrated]
    if not need(data, "sdpo") or best not in rivals:
        return {}, NOT_RUN
    found = {arm: paired_difference(ood(data, arm), ood(data, "sdpo")) for arm in rivals}
    figures = {f"ood_{arm}_minus_sdpo": f.figure for arm, f in found.items()}
    p = holm({arm: f.p_value for arm, f in found.items() if f.p_value is not None})
    change = figures[f"ood_{best}_minus_sdpo"]
    return figures, verdict(change["lo"] > 0 and p.get(best, 1.0) <= 0.05, change["hi"] < 0)
