"""What one training job needs: its config, its problems, its trainer, its evaluation. The organism or any model.

A job's recipe is plain data (`run.json`): ``model, problems, grader, lora_r, n_train_problems, subset_seed, steps,
seed, trainer`` and the sizes of its evaluations; what it leaves out means the organism.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibrated_sd.experiments.sft_rows import encode_rows
from calibrated_sd.organism.species import SPECIES

ORGANISM = "organism"
ON_CPU = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "model_init_kwargs": {"attn_implementation": "eager"},
}
"""How the organism is trained, unless a recipe says otherwise."""


def is_organism(recipe: Mapping[str, Any]) -> bool:
    """Whether the job trains on an organism's own puzzles."""
    return organism_name(recipe) in SPECIES


def organism_name(recipe: Mapping[str, Any]) -> str:
    """Whose puzzles the job trains on, if it does on an organism's."""
    return recipe.get("problems", ORGANISM)


def trainer_settings(
    output_dir: str, trainer: Mapping[str, Any], *, steps: int, seed: int, save_steps: int, organism: bool = True
) -> Any:
    """The config of a run: the recipe's settings, and what every job sets itself.

    Raises:
        ConfigError, ValueError: settings that the trainer refuses.
    """
    from calibrated_sd.trainers.sdpo import CalibratedSDPOConfig

    return CalibratedSDPOConfig(
        output_dir=output_dir,
        max_steps=steps,
        seed=seed,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        save_strategy="steps",
        save_steps=save_steps,
        save_total_limit=1,
        **{**(ON_CPU if organism else {}), **trainer},
    )


def training_rows(recipe: Mapping[str, Any], prompts_per_batch: int) -> list[dict[str, Any]]:
    """Prompt and answer of every training problem; the problems of a smaller `n_train_problems` are among those of a
    larger one.

    A generation batch takes different rows. Where there are fewer problems than that, each is repeated equally often,
    so that narrow coverage costs as many rollouts as wide coverage.
    """
    n = recipe["n_train_problems"]
    if is_organism(recipe):
        from calibrated_sd.organism.suites import as_row, training_problems

        problems = [
            as_row(p, "train") for p in training_problems(n, recipe.get("subset_seed", 0), organism_name(recipe))
        ]
        rows = [{"prompt": row["prompt"], "answer": row["answer"]} for row in problems]
    else:
        rows = _file_rows(recipe["problems"], n, recipe.get("subset_seed", 0))
    if len(rows) < prompts_per_batch:
        rows *= math.lcm(len(rows), prompts_per_batch) // len(rows)
    return rows


def _file_rows(path: str, n: int | None, subset_seed: int) -> list[dict[str, Any]]:
    import random

    from calibrated_sd.evaluation.datasets import load_problems

    problems: list[Mapping[str, Any]] = list(load_problems(path))
    if subset_seed:  # 0 keeps the file's order
        random.Random(f"train-{subset_seed}").shuffle(problems)
    keys = [key for key in ("prompt", "answer", "solution") if all(key in p for p in problems)]
    rows = []
    for problem in problems[:n]:
        row = {key: problem[key] for key in keys}
        if isinstance(row["prompt"], str):
            row["prompt"] = [{"role": "user", "content": row["prompt"]}]
        rows.append(row)
    return rows


def make_trainer(recipe: Mapping[str, Any], folder: Path, callbacks: list[Any]) -> Any:
    """The trainer of a job; its checkpoints go to ``folder/trainer``."""
    from transformers import AutoTokenizer

    from calibrated_sd.organism.checkpoint import organism_path

    settings = trainer_settings(
        str(folder / "trainer"),
        recipe["trainer"],
        steps=recipe["steps"],
        seed=recipe["seed"],
        save_steps=recipe["save_steps"],
        organism=is_organism(recipe),
    )
    path, tokenizer = recipe["model"], None
    if is_organism(recipe):
        path = str(organism_path(recipe["model"]))
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    rows = training_rows(recipe, settings.generation_batch_size // settings.num_generations)
    return assemble(settings, rows, path, recipe, callbacks, tokenizer)


def assemble(
    settings: Any,
    rows: list[dict[str, Any]],
    path: str,
    recipe: Mapping[str, Any],
    callbacks: list[Any],
    tokenizer=None,
    trainer: str = "sdpo",
) -> Any:
    """The trainer of these settings and rows.

    Args:
        settings: a finished config of that trainer.
        rows: as `training_rows` or `sft_rows` gives them.
        path: folder or hub id of the model.
        recipe: its ``grader`` or ``reward`` makes the reward, its ``lora_r``, ``lora_alpha`` and
            ``lora_target_modules`` an adapter; ``chat_template_kwargs`` render the prompts of SFT.
        callbacks: handed to the trainer.
        tokenizer: None for the model's own.
        trainer: a key of `train_recipe.TRAINERS`.

    Raises:
        ConfigError: anything the trainer refuses, or a reward that cannot be loaded.
    """
    from datasets import Dataset

    from calibrated_sd.experiments.train_recipe import REWARDED, trainer_classes
    from calibrated_sd.trainers.checkpoint_order import CheckpointOrder
    from calibrated_sd.trainers.checks import load_processing_class

    given: dict[str, Any] = {"args": settings, "callbacks": callbacks, "peft_config": adapter_config(recipe)}
    if trainer in REWARDED:
        given["reward_funcs"] = reward_function(recipe)
    if trainer in ("sft", "grpo") and tokenizer is None:
        tokenizer = load_processing_class(path, settings)
    if trainer == "sft":
        rows = encode_rows(rows, tokenizer, recipe.get("chat_template_kwargs"), settings.max_length)
    made = trainer_classes(trainer)[1](
        model=path, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, **given
    )
    made.add_callback(CheckpointOrder())
    if trainer == "grpo":  # ours count markers by themselves
        from calibrated_sd.trainers.monitoring.marker_callback import MarkerMassCallback

        made.add_callback(MarkerMassCallback(made))
    return made


def reward_function(recipe: Mapping[str, Any]) -> Any:
    """The reward that a recipe names: its own function, or the one that its grader makes.

    Raises:
        ConfigError: no such grader, module or function.
    """
    from calibrated_sd.evaluation.rewards import load_reward, make_reward

    return load_reward(recipe["reward"]) if recipe.get("reward") else make_reward(recipe.get("grader", "boxed"))


def adapter_config(recipe: Mapping[str, Any]) -> Any:
    """The LoRA adapter that a recipe describes, or None."""
    if not recipe.get("lora_r"):
        return None
    from peft import LoraConfig

    modules = recipe.get("lora_target_modules")
    return LoraConfig(
        r=recipe["lora_r"],
        lora_alpha=2 * recipe["lora_r"] if recipe.get("lora_alpha") is None else recipe["lora_alpha"],
        lora_dropout=0.0,
        target_modules=[m.strip() for m in modules.split(",")] if modules else "all-linear",
        task_type="CAUSAL_LM",
    )


def load_weights(recipe: Mapping[str, Any]) -> tuple[Any, Any]:
    """Model and tokenizer before any training."""
    from calibrated_sd.organism.checkpoint import load_organism

    if is_organism(recipe):
        return load_organism(recipe["model"])
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(recipe["model"], dtype="auto", use_safetensors=True).eval()
    if torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())
    return model, AutoTokenizer.from_pretrained(recipe["model"])


def evaluate_on_files(
    model: Any, tokenizer: Any, file: Path, recipe: Mapping[str, Any], *, step: int, n_problems: int, n_samples: int
) -> None:
    """Sample the recipe's suites, which are problem files, and write `completions.jsonl` in one piece."""
    from calibrated_sd.evaluation.completions import record_completions
    from calibrated_sd.evaluation.datasets import load_problems

    problems = [
        {**problem, "suite": name}
        for name, suite in recipe["suites"].items()
        for problem in load_problems(suite["problems"], limit=n_problems)
    ]
    unfinished = file.with_name("unfinished.jsonl")  # a killed evaluation continues there
    record_completions(
        model,
        tokenizer,
        problems,
        unfinished,
        n=n_samples,
        arm=recipe["arm"],
        seed=recipe["seed"],
        step=step,
        grader=recipe.get("grader", "boxed"),
        sampling_seed=1000 + recipe["seed"],
        max_new_tokens=recipe["max_new_tokens"],
    )
    os.replace(unfinished, file)
