"""Evaluation suites of the organisms and the reward that grades an answer.

==================  ===================================================  ========
suite               problems                                             role
==================  ===================================================  ========
``train``           the very congruence problems trained on              train
``heldout``         congruences with other moduli                        heldout
``far_linear``      linear congruences, all moduli                       far
``far_sumproduct``  sum and product, all sums                            far
==================  ===================================================  ========

Those are the first organism's; the second has ``train``, ``heldout`` (digits), ``far_coins`` and ``far_rectangle``.
"""

from __future__ import annotations

import random
from typing import Any

from calibrated_sd.errors import unknown_name
from calibrated_sd.evaluation.rewards import make_reward
from calibrated_sd.organism.problem import Problem
from calibrated_sd.organism.puzzles import all_problems
from calibrated_sd.organism.species import SPECIES, species

SUITES = {name: (suite.role, suite.label) for name, suite in SPECIES["organism"].suites.items()}
"""Suite name → (role, label), of the first organism."""


def suites_of(organism: str = "organism") -> dict[str, tuple[str, str]]:
    """Suite name → (role, label) of an organism."""
    return {name: (suite.role, suite.label) for name, suite in species(organism).suites.items()}


def training_problems(n: int, seed: int = 0, organism: str = "organism") -> list[Problem]:
    """`n` in-domain problems of the trained family; nested: the first 8 of `n=64` are the `n=8` set."""
    problems = all_problems(species(organism).families[0], "train")
    random.Random(f"train-{seed}").shuffle(problems)
    return problems[:n]


def suite_problems(suite: str, n: int, seed: int = 0, organism: str = "organism") -> list[Problem]:
    """The first `n` problems of a seeded order of the suite (fewer if it has fewer).

    Raises:
        ConfigError: the organism has no such suite.
    """
    suites = species(organism).suites
    if suite not in suites:
        raise unknown_name("suite", suite, suites)
    if suite == "train":
        return training_problems(n, seed, organism)
    problems = all_problems(suites[suite].family, suites[suite].split)
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


def load_suite(name: str = "organism", n: int = 96, seed: int = 0, organism: str | None = None) -> list[dict[str, Any]]:
    """Rows of one suite, or of all four when `name` is that of an organism.

    Args:
        name: an organism or a suite.
        n: problems of each suite.
        seed: of their order.
        organism: whose suite it is; None for the first one's, or for the organism that `name` names.

    Raises:
        ConfigError: no such organism or suite.
    """
    organism = organism or (name if name in SPECIES else "organism")
    names = list(species(organism).suites) if name in SPECIES else [name]
    return [as_row(problem, suite) for suite in names for problem in suite_problems(suite, n, seed, organism)]


correctness_reward = make_reward("boxed")
"""The organism's reward for TRL: 1.0 if the boxed number is the answer, else 0.0."""
