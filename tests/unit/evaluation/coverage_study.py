"""How often do the 95 % intervals hold the truth? Simulated, because the truth is known there.

``python tests/unit/evaluation/coverage_study.py`` prints the table in docs/explanation/statistics.md (about 2 minutes).

Model: 16 samples per question; the chance of a right answer is Beta(½, ½) between questions, squeezed into [0.3, 0.7]
for differences so that nothing is clipped; the arms differ by 0 on average with a standard deviation of 0.12 between
questions; every training seed shifts all questions by Normal(0, seed_sd).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from calibrated_sd.evaluation.statistics import mean_interval, paired_difference

N_SAMPLES, BETWEEN_QUESTIONS = 16, 0.12


class Coverage(NamedTuple):
    share: float
    half_width: float


def _run(chances: np.ndarray, rng: np.random.Generator) -> dict:
    """Mean score per question of each seed; chances: (seeds, questions)."""
    shares = rng.binomial(N_SAMPLES, np.clip(chances, 0, 1)) / N_SAMPLES
    return {seed: dict(enumerate(row)) for seed, row in enumerate(shares)}


def coverage_of_mean(*, n_questions: int, n_seeds: int, seed_sd: float, trials: int = 1000) -> Coverage:
    rng, inside, widths = np.random.default_rng(0), 0, 0.0
    for _ in range(trials):
        difficulty = rng.beta(0.5, 0.5, n_questions)
        chances = difficulty + rng.normal(0, seed_sd, (n_seeds, 1))
        shown = mean_interval(_run(chances, rng), n_resamples=500)
        inside += shown["lo"] <= 0.5 <= shown["hi"]
        widths += (shown["hi"] - shown["lo"]) / 2
    return Coverage(inside / trials, widths / trials)


def coverage_of_difference(*, n_questions: int, n_seeds: int, seed_sd: float, trials: int = 1000) -> Coverage:
    rng, inside, widths = np.random.default_rng(0), 0, 0.0
    for _ in range(trials):
        # Difficulty kept inside (0, 1) after all shifts, so that clipping does not move the truth away from 0.
        difficulty = 0.5 + 0.4 * (rng.beta(0.5, 0.5, n_questions) - 0.5)
        effect = rng.normal(0, BETWEEN_QUESTIONS, n_questions)
        a = _run(difficulty + effect + rng.normal(0, seed_sd, (n_seeds, 1)), rng)
        b = _run(difficulty + rng.normal(0, seed_sd, (n_seeds, 1)), rng)
        shown = paired_difference(a, b, n_resamples=500).figure
        inside += shown["lo"] <= 0 <= shown["hi"]
        widths += (shown["hi"] - shown["lo"]) / 2
    return Coverage(inside / trials, widths / trials)


if __name__ == "__main__":
    print("| figure | questions | seeds | spread of seeds | coverage | half-width |\n|---|---|---|---|---|---|")
    for n_questions, n_seeds, seed_sd in [(10, 1, 0), (30, 1, 0), (100, 1, 0), (100, 1, 0.05), (100, 3, 0.05)]:
        c = coverage_of_mean(n_questions=n_questions, n_seeds=n_seeds, seed_sd=seed_sd)
        print(f"| mean | {n_questions} | {n_seeds} | {seed_sd} | {c.share:.3f} | {c.half_width:.3f} |")
    for n_questions, n_seeds, seed_sd in [
        *((n, 1, 0) for n in (10, 30, 100)),
        *((100, s, sd) for sd in (0, 0.02, 0.05) for s in ((3,) if sd == 0 else (1, 3, 5, 10))),
    ]:
        c = coverage_of_difference(n_questions=n_questions, n_seeds=n_seeds, seed_sd=seed_sd)
        print(f"| difference | {n_questions} | {n_seeds} | {seed_sd} | {c.share:.3f} | {c.half_width:.3f} |")
