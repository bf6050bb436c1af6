"""Writes what a study leaves in a published folder, with made-up numbers: no runs, no completions. `python synthetic_published.py DIR`
writes a folder with pages to look at."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from calibrated_sd.records import figure, write_json

SUITES = (
    ("train", "congruence, trained problems", "train"),
    ("heldout", "other moduli", "heldout"),
    ("far", "linear", "far"),
)
# name, label, calibrator, distillation weight, OOD accuracy, in-domain accuracy, markers/1k, training problems, coverage of
ARMS = (
    ("policy_gradient", "policy gradient", None, 0.0, 0.91, 0.93, 86.0, None, None),
    ("sdpo", "SDPO, c = s", None, 1.0, 0.21, 0.63, 12.0, None, None),
    ("mix_to_floor", "SDPO + mix-to-floor, κ = 1", "mix_to_floor", 1.0, 0.79, 0.80, 80.0, None, None),
    ("hybrid", "0.3 policy gradient + 0.7 SDPO", None, 0.7, 0.36, 0.64, 43.0, None, None),
    (
        "hybrid_floor",
        "0.3 policy gradient + 0.7 (SDPO + mix-to-floor)",
        "mix_to_floor",
        0.7,
        0.92,
        0.94,
        84.0,
        None,
        None,
    ),
    ("neutral", "SDPO + neutral, s = 1", "neutral", 1.0, 0.70, 0.75, 81.0, None, None),
    ("policy_gradient_8", "policy gradient, 8 problems", None, 0.0, 0.80, 0.85, 82.0, 8, "policy_gradient"),
    ("policy_gradient_334", "policy gradient, 334 problems", None, 0.0, 0.92, 0.94, 85.0, 334, "policy_gradient"),
    ("sdpo_8", "SDPO, 8 problems", None, 1.0, 0.19, 0.50, 10.0, 8, "sdpo"),
    ("sdpo_334", "SDPO, 334 problems", None, 1.0, 0.24, 0.66, 13.0, 334, "sdpo"),
)
METHOD = "95% two-level percentile bootstrap, 2000 resamples; covers questions and 3 seeds"
PROVENANCE = {"commit": "0123456789abcdef", "dirty": False, "command": "csd reproduce --recipe study/claims --full",
              "runs_made_at": ["0123456789abcdef (clean)"], "wall_time_s": 1234.5}  # fmt: skip
BASE_ACCURACY = 0.78


def make_study(
    directory: Path,
    *,
    arms: Iterable[str] | None = None,
    seeds: Sequence[int] = (100, 101, 102),
    missing: Iterable[tuple[str, int]] = (),
) -> Path:
    """A published reproduce folder: ``manifest.json, claims.json, summary.csv``.

    Args:
        directory: where.
        arms: names of ``ARMS``; all by default.
        seeds: planned training seeds.
        missing: (arm, seed) that have not finished.
    """
    chosen = [arm for arm in ARMS if arms is None or arm[0] in set(arms)]
    lost = set(missing)
    write_json(directory / "manifest.json", {
        "schema_version": 1, "kind": "reproduce", "profile": "full", "best": "hybrid_floor", "seeds": list(seeds), "eval_steps": [0, 3, 16],
        "arms": [{"name": "base", "label": "base (step 0)", "context": "–"}] + [
            {"name": a[0], "label": a[1], "context": "s", "calibration_method": a[2], "calibration_strength": 1.0 if a[2] else 0.0,
             "distillation_weight": a[3], "learning_rate": 5e-4} for a in chosen],
        "suites": [{"name": name, "label": label, "role": role} for name, label, role in SUITES],
        "plan": {"n_train_problems": 64, "arms": [{"name": a[0], "trainer": {}, "n_train_problems": a[7], "coverage_of": a[8]} for a in chosen]},
        "provenance": PROVENANCE,
    })  # fmt: skip
    write_json(
        directory / "claims.json",
        {"schema_version": 1, "profile": "full", "claims": claims(), "provenance": PROVENANCE},
    )
    rows = _arm_rows("base", BASE_ACCURACY, 0.82, 81.0, [0], {0: 1.0})
    for name, _, _, _, ood, trained, density, *_ in chosen:
        done = [seed for seed in seeds if (name, seed) not in lost]
        if done:
            rows += _arm_rows(name, ood, trained, density, done, {3: 0.4, 16: 1.0})
            for against, level in (("base", BASE_ACCURACY), ("sdpo", 0.21)):
                if name != against:
                    value = ood - level
                    rows.append([name, "all", "ood", 16, f"ood_difference_vs_{against}", value, value - 0.03, value + 0.03, 273, "share",
                                 METHOD, 0.0005, 0.009])  # fmt: skip
    with open(directory / "summary.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["arm", "seed", "suite", "step", "metric", "value", "lo", "hi", "n", "unit", "method", "p_value", "p_holm"]
        )
        writer.writerows(rows)
    return directory


def _arm_rows(
    name: str, ood: float, trained: float, density: float, seeds: Sequence[int], steps: dict[int, float]
) -> list[list[Any]]:
    method = (
        METHOD.replace("3 seeds", f"{len(seeds)} seeds")
        if len(seeds) > 1
        else "95% bootstrap; covers questions only, 1 seed"
    )
    rows: list[list[Any]] = []
    for step, share in steps.items():
        for suite, level, n in (("train", trained, 64), ("heldout", ood, 91), ("far", ood, 182), ("ood", ood, 273)):
            value = BASE_ACCURACY + (level - BASE_ACCURACY) * share
            rows.append(
                [
                    name,
                    "all",
                    suite,
                    step,
                    "accuracy",
                    value,
                    value - 0.02,
                    value + 0.02,
                    n,
                    "share",
                    f"avg@2; {method}",
                    "",
                    "",
                ]
            )
            if step == max(steps):
                rows += [
                    [
                        name,
                        seed,
                        suite,
                        step,
                        "accuracy",
                        value + 0.01 * (seed % 3 - 1),
                        "",
                        "",
                        n,
                        "share",
                        "avg@2",
                        "",
                        "",
                    ]
                    for seed in seeds
                ]
            if suite == "ood":
                for metric, shown, unit in (("markers_per_1k", density, "per 1k tokens"), ("markers_per_response", density / 10, "per response"),
                                            ("held_out_per_1k", density / 5, "per 1k tokens"), ("length", 90, "tokens")):  # fmt: skip
                    rows.append(
                        [name, "all", suite, step, metric, shown, shown * 0.95, shown * 1.05, n, unit, method, "", ""]
                    )
    return rows


def claims() -> list[dict[str, Any]]:
    return [
        {"id": "C5", "statement": "SDPO with c = s falls below the base model.", "verdict": "shown", "criterion": "OOD below base by ≥ 3 standard errors", "notes": ["ood_top5_minus_full: level"],
         "ours": {"ood_accuracy_base": figure(0.78, 0.76, 0.81, 273, "share", METHOD),
                  "ood_sdpo_minus_base": figure(-0.5674, -0.601, -0.529, 273, "share", METHOD)}},
        {"id": "C12", "statement": "The shift is specific to epistemic words.", "verdict": "not shown", "criterion": "markers / other words ≥ 3",
         "ours": {"mean_change_markers": figure(0.68, 0.48, 1.26, 10, "per response", "covers questions only, 1 seed")},
         "reason": "in so small a vocabulary other words fall with the length"},
        {"id": "C10", "statement": "A model with a thinking switch.", "verdict": "not run", "criterion": None, "ours": {}, "reason": "needs such a model"},
    ]  # fmt: skip


PAGE = """# Results

<!-- headline -->
Plain SDPO loses 57 points out of distribution (−0.57 [−0.60, −0.53], n = 273, 3 seeds).
<!-- /headline -->

By hand, before.

<!-- table: claims -->
<!-- /table -->

Between.

<!-- table: arms -->
<!-- /table -->

![Arms against the base model](figures/forest.png)

By hand, after.
"""
LISTING = """pages: [index.md]
tables:
  claims: {kind: claims, from: study/claims}
  arms: {kind: arms, from: study/claims}
figures:
  forest: {kind: forest, from: study/claims}
headline: {page: index.md, claim: C5, from: study/claims}
"""


def make_published(root: Path, **options: Any) -> Path:
    """A published folder with one page, two tables, a figure and a headline; not built yet."""
    make_study(root / "study/claims", **options)
    (root / "index.md").write_text(PAGE, encoding="utf-8")
    (root / "published.yaml").write_text(LISTING, encoding="utf-8")
    return root


if __name__ == "__main__":
    make_published(Path(sys.argv[1]))
