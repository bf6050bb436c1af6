"""Evaluation suites of the organism and the reward that grades an answer.

==================  ===================================================  ========
suite               problems                                             role
==================  ===================================================  ========
``train``           the very congruence problems trained on              train
``heldout``         congruences with other moduli                        heldout
``far_linear``      linear congruences, all moduli                       far
``far_sumproduct``  sum and product, all sums                            far
==================  ===================================================  ========
"""

from __future__ import annotations

import random
from typing import Any

from calibrated_sd.errors import unknown_name
from calibrated_sd.evaluation.rewards import make_reward
from calibrated_sd.organism.puzzles import Problem, all_problems

SUITES = {
    "train": ("train", "congruence, trained problems"),
    "heldout": ("heldout", "congruence, other moduli"),
    "far_linear": ("far", "linear congruence"),
    "far_sumproduct": ("far", "sum and product"),
}
"""Suite name → (role, label)."""

OOD_SUITES = tuple(name for name, (role, _) in SUITES.items() if role != "train")


def training_problems(n: int, seed: int = 0) -> list[Problem]:
    """`n` in-domain congruence problems; nested: the first 8 of `n=64` are the `n=8` set."""
    problems = all_problems("congruence", "train")
    random.Random(f"train-{seed}").shuffle(problems)
    return problems[:n]


def suite_problems(suite: str, n: int, seed: int = 0) -> list[Problem]:
    """The first `n` problems of a seeded order of the suite (fewer if it has fewer)."""
    if suite not in SUITES:
        raise unknown_name("suite", suite, SUITES)
    if suite == "train":
        return training_problems(n, seed)
    family, split = {
        "heldout": ("congruence", "heldout"),
        "far_linear": ("linear", None),
        "far_sumproduct": ("sumproduct", None),
    }[suite]
    problems = all_problems(family, split)
    random.Random(f"{suite}-{seed}").shuffle(problems)
    return problems[:n]


def as_row(problem: Problem, suite: str) -> dict[str, Any]:
    """A problem as a record for evaluation: prompt in chat form, answer as text."""
    return {
        "problem_id": problem.problem_id,
        "suite": suite,
        "prompt": [{"role": "user", "content": problem.question}],
        "problem": problem.question,
        "answer": str(problem.answer),
    }


def load_suite(name: str = "organism", n: int = 96, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of one suite, or of all four when `name` is ``"organism"``."""
    names = list(SUITES) if name == "organism" else [name]
    return [as_row(problem, suite) for suite in names for problem in suite_problems(suite, n, seed)]


correctness_reward = make_reward("boxed")
"""The organism's reward for TRL: 1.0 if the boxed number is the answer, else 0.0."""
