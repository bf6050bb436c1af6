"""An off-policy arm of the organism (arXiv:2603.24472, section 4): its data, sampled as `csd ladder` does, and its trainer.

A job depends on no other, so each one samples its data itself; equal seeds give equal data.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibrated_sd.context_analysis.ladder_prompts import Row, add_written_solutions, complete_rows
from calibrated_sd.context_analysis.off_policy import as_rows, build_off_policy
from calibrated_sd.context_analysis.selection import problem_key
from calibrated_sd.errors import DataError
from calibrated_sd.evaluation.completions import completion_record
from calibrated_sd.evaluation.generate import generate_completions
from calibrated_sd.evaluation.grading import grade_boxed
from calibrated_sd.experiments.training import ON_CPU, assemble, load_weights, organism_name
from calibrated_sd.organism.checkpoint import organism_path
from calibrated_sd.organism.suites import as_row, suite_problems
from calibrated_sd.records import write_json

LEVELS = ("none", "solution")
"""Contexts of D_ug and of D_sg."""


def sample_off_policy(model: Any, tokenizer: Any, recipe: Mapping[str, Any]) -> dict[str, list[Row]]:
    """The organism's right answers to the trained problems, without context and with a solution in the prompt.

    Args:
        model, tokenizer: the organism before training.
        recipe: ``n_train_problems, subset_seed, data_samples, max_new_tokens, seed``.

    Returns:
        Rows for `sft_rows` by the name of the data set: D_ug, D_sg and their controls.

    Raises:
        DataError: no problem was solved both ways.
    """
    problems = suite_problems("train", recipe["n_train_problems"], recipe.get("subset_seed", 0), organism_name(recipe))
    rows = add_written_solutions([as_row(problem, "train") for problem in problems])
    rows, by_level, _ = complete_rows(rows, LEVELS, template="training", seed=recipe["seed"])
    sampled = []
    for level in LEVELS:
        asked = {row["problem_id"]: row for row in by_level[level]}
        completions = generate_completions(
            model,
            tokenizer,
            [row["prompt"] for row in asked.values()],
            problem_ids=list(asked),
            n=recipe["data_samples"],
            max_new_tokens=recipe["max_new_tokens"],
            seed=recipe["seed"],
        )
        sampled.append(
            [completion_record(c, asked[c.problem_id], grade_boxed, context=level).as_dict() for c in completions]
        )
    built = build_off_policy(rows, [sampled[0]], [sampled[1]], seed=recipe["seed"])
    if not built.pairs:
        raise DataError(
            f"None of the {len(rows)} training problems was solved both with and without context, so there are no data "
            "for SFT. Raise data_samples or n_train_problems."
        )
    by_key = {problem_key(row): row for row in rows}
    return {name: as_rows(answers, by_key) for name, answers in built.sets.items()}


def make_sft_trainer(recipe: Mapping[str, Any], folder: Path, callbacks: list[Any]) -> Any:
    """The trainer of an off-policy job, on the data set that its recipe names; writes ``folder/data.json``, their sizes."""
    from calibrated_sd.trainers.sft.config import CalibratedSFTConfig

    model, tokenizer = load_weights(recipe)
    data = sample_off_policy(model, tokenizer, recipe)
    sizes = {name: {"rows": len(rows), "tokens": sum(r["n_tokens"] for r in rows)} for name, rows in data.items()}
    write_json(folder / "data.json", {"schema_version": 1, "trained_on": recipe["data"], "sets": sizes})
    settings = CalibratedSFTConfig(
        output_dir=str(folder / "trainer"),
        num_train_epochs=recipe["steps"],
        seed=recipe["seed"],
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        **{**ON_CPU, **recipe["trainer"]},
    )
    path = str(organism_path(recipe["model"]))
    return assemble(settings, data[recipe["data"]], path, recipe, callbacks, tokenizer, trainer="sft")
