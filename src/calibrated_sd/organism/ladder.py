"""The context ladder (paper §3, Table 1) on an organism: sample under each context level, grade, count.

The demonstration of level s is a successful context-free search, that of ỹ a confident rewrite, that of s∖think the
final answer alone; the second organism is also shown another puzzle's solution. Problems can be screened by base pass rate first; the screening samples are used for nothing else,
so that selecting hard problems does not bias the accuracy reported for them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from calibrated_sd.evaluation.completions import completion_record
from calibrated_sd.evaluation.generate import generate_completions
from calibrated_sd.evaluation.grading import grade_boxed
from calibrated_sd.evaluation.metrics import summarise, tidy
from calibrated_sd.organism.corpus import context_prompt, demonstration
from calibrated_sd.organism.grammar import Habits
from calibrated_sd.organism.problem import Problem
from calibrated_sd.organism.puzzles import all_problems
from calibrated_sd.organism.species import species
from calibrated_sd.organism.suites import as_row
from calibrated_sd.records import CompletionRecord

SCREEN = "screen"
"""Suite name of the screening samples."""
MAX_NEW_TOKENS = 256
LADDER_TOKENS = {"organism2": 224}
"""Length limit in the ladder where the longest demonstration leaves less room in the window."""


def ladder_problems(family: str, n: int, seed: int = 0) -> list[Problem]:
    """The first `n` problems of a seeded order of a whole family (fewer if it has fewer)."""
    problems = all_problems(family)
    random.Random(f"ladder-{family}-{seed}").shuffle(problems)
    return problems[:n]


def sample_records(
    model: Any,
    tokenizer: Any,
    problems: list[Problem],
    prompts: list[str],
    *,
    suite: str | Callable[[Problem], str],
    n_samples: int,
    sampling_seed: int,
    max_new_tokens: int = MAX_NEW_TOKENS,
    **fields: Any,
) -> list[CompletionRecord]:
    """Sample, grade and count; `fields` (context, arm, seed, step) go into the records."""
    by_id = {p.problem_id: p for p in problems}
    completions = generate_completions(
        model,
        tokenizer,
        [[{"role": "user", "content": prompt}] for prompt in prompts],
        problem_ids=list(by_id),
        n=n_samples,
        max_new_tokens=max_new_tokens,
        seed=sampling_seed,
    )
    return [
        completion_record(
            c,
            as_row(by_id[c.problem_id], suite if isinstance(suite, str) else suite(by_id[c.problem_id])),
            grade_boxed,
            **fields,
        )
        for c in completions
    ]


def measure_ladder(
    model: Any,
    tokenizer: Any,
    *,
    n_problems: int,
    n_samples: int = 1,
    n_screen: int = 0,
    seed: int = 0,
    habits: Habits | None = None,
    organism: str = "organism",
) -> list[CompletionRecord]:
    """Completions of every family under every context level.

    Args:
        model, tokenizer: the organism.
        n_problems: problems per family. A family with fewer gets more samples each, so that all have as many rows.
        n_samples: samples per problem and level.
        n_screen: context-free samples per problem for screening by pass rate; 0 for none.
        seed: seed of problems, demonstrations and samples.
        habits: how demonstrations are written.
        organism: whose puzzles and context levels.
    """
    habits = habits or Habits()
    records: list[CompletionRecord] = []
    for family in species(organism).families:
        problems = ladder_problems(family, n_problems, seed)
        repeats = n_samples * math.ceil(n_problems / len(problems))
        if n_screen:
            questions = [p.question for p in problems]
            records += sample_records(
                model,
                tokenizer,
                problems,
                questions,
                suite=SCREEN,
                n_samples=n_screen,
                sampling_seed=seed + 1,
                context="none",
            )
        for context in species(organism).contexts:
            rng = random.Random(f"demo-{family}-{context}-{seed}")
            prompts = [context_prompt(p.question, demonstration(p, context, rng, habits)) for p in problems]
            records += sample_records(
                model,
                tokenizer,
                problems,
                prompts,
                suite=family,
                n_samples=repeats,
                sampling_seed=seed,
                max_new_tokens=LADDER_TOKENS.get(organism, MAX_NEW_TOKENS),
                context=context,
            )
    return records


def summarise_ladder(records: list[CompletionRecord], organism: str = "organism") -> dict[str, Any]:
    """Accuracy, length and markers of every family and level as figures; the layout of ``ladder.json``."""
    frame = tidy(r.as_dict() for r in records)
    frame = frame[frame.suite != SCREEN]
    wanted = {
        "accuracy": "accuracy",
        "n_tokens": "length",
        "lexical_per_response": "markers_per_response",
        "lexical_per_1k": "markers_per_1k",
        "held_out_per_response": "held_out_per_response",
    }
    families: dict[str, Any] = {}
    for name in (*species(organism).families, "all"):
        rows = frame if name == "all" else frame[frame.suite == name]
        families[name] = {
            context: {
                new: figure
                for old, figure in summarise(rows[rows.context == context].assign(suite=name), ks=()).items()
                if (new := wanted.get(old))
            }
            for context in species(organism).contexts
            if (rows.context == context).any()
        }
    return {"schema_version": 1, "families": families}
