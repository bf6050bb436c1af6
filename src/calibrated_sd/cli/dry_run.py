"""What `csd train --dry-run` prints: the recipe, its length, a prompt as student and teacher read it, memory, verdict."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from calibrated_sd.cli.console import console, error_console
from calibrated_sd.cli.dry_run_prompts import Tokens, show_prompts
from calibrated_sd.cli.models import model_path
from calibrated_sd.errors import ConfigError

EXAMPLE = {
    "prompt": [{"role": "user", "content": "What is 17 · 24? Put the final answer in \\boxed{}."}],
    "answer": "408",
    "solution": "Maybe split it: 17 · 24 = 17 · 20 + 17 · 4. Wait, check: 340 + 68 = 408. The answer is \\boxed{408}.",
    "completion": [{"role": "assistant", "content": "17 · 24 = 340 + 68 = \\boxed{408}."}],
}
"""Shown where the problems are not at hand."""
GROUPS = {
    "rollouts": (
        "num_generations",
        "generat",
        "completion",
        "temperature",
        "top_",
        "min_p",
        "vllm",
        "iterations",
        "steps_per",
    ),
    "calibration": ("calibration", "loss_reduction", "chunk_size", "topk_markers"),
    "context": ("context", "demo", "reprompt", "teacher", "solution", "feedback", "success", "template", "thinking"),
    "loss": ("distillation", "beta", "epsilon", "loss", "scale_rewards", "importance"),
    "optimizer": (
        "learning_rate",
        "lr_",
        "optim",
        "adam",
        "weight_decay",
        "warmup",
        "max_grad",
        "max_steps",
        "num_train_epochs",
    ),
    "machine": ("per_device", "gradient_", "bf16", "fp16", "model_init", "deepspeed", "fsdp", "use_cpu"),
}
"""Headings of the printed recipe, and what begins or is part of the names below each; the rest is "other"."""

MADE_UP = (
    *("accelerator_config", "use_cpu", "disable_tqdm", "dataloader_pin_memory"),
    *("activation_checkpointing", "activation_checkpointing_kwargs"),
)
"""Settings that a config fills in for the machine it is made on, or from another name of the same thing."""


def show_plan(run: Any, settings: Any, rows: Sequence[Mapping[str, Any]] | None, recipe_path: Path | None) -> None:
    """Print the plan of a run.

    Args:
        run: `RunArguments`.
        settings: the finished config of the trainer.
        rows: training rows; None or empty where the problem file is not there yet: an example stands in.
        recipe_path: the recipe, for what it states itself and for its launch file.

    Raises:
        typer.Exit: with code 2 if the run does not fit `gpu_memory_gib`.
        ConfigError, DataError: a run that would be refused or would train 0 steps.
    """
    from calibrated_sd.planning import model_shape, plan_run

    _show_recipe(run, settings, rows)
    shape = dataclasses.replace(model_shape(model_path(run.model)), name=run.model)
    tokens = Tokens.of(model_path(run.model), getattr(settings, "chat_template_kwargs", None))
    shown = rows or [EXAMPLE]
    lengths = tokens.prompt_lengths(rows) if rows else None
    plan = plan_run(
        run,
        _launched(settings, recipe_path),
        shape,
        n_rows=len(rows) if rows else None,
        prompt_tokens=lengths.longest if lengths else None,
        stated=_stated(recipe_path),
    )
    _show_steps(plan, lengths)
    if not rows:
        _note_missing(run, _header(recipe_path))
    show_prompts(run, settings, shown[0], tokens)
    _show_memory(run, settings, plan)
    if plan.fits is False:
        error_console.print(f"Error: {plan.verdict}", markup=False, highlight=False)
        raise typer.Exit(2)
    console.print(f"\n{plan.verdict}", markup=False, highlight=False)


def _stated(recipe_path: Path | None) -> list[str]:
    if recipe_path is None:
        return []
    import yaml

    return list(yaml.safe_load(Path(recipe_path).read_text(encoding="utf-8")) or {})


def _launched(settings: Any, recipe_path: Path | None) -> Any:
    """Settings with the sharding of the launch file that the recipe's header names, unless they say it themselves."""
    from calibrated_sd.planning import launch_sharding, sharding, with_sharding

    if recipe_path is None or sharding(settings) != "ddp":
        return settings
    head = "".join(
        line for line in Path(recipe_path).read_text(encoding="utf-8").splitlines(True) if line.startswith("#")
    )
    named = re.search(r"--config_file[ =](\S+\.ya?ml)", head)
    if named is None:
        return settings
    from calibrated_sd.cli.recipes import find_recipe

    try:
        file = find_recipe(f"launch/{Path(named.group(1)).name}")
    except ConfigError:
        return settings  # a launch file of the user's own, which the plan cannot see
    return with_sharding(settings, launch_sharding(file))


def differing(settings: Any) -> dict[str, Any]:
    """Settings that differ from what TRL's own config class would hold, or that only we have and that are turned."""
    upstream = next((c for c in type(settings).__mro__ if c.__module__.startswith("trl.")), type(settings))
    plain = upstream(output_dir=settings.output_dir, use_cpu=True)
    values: dict[str, Any] = {}
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        usual = getattr(plain, item.name) if hasattr(plain, item.name) else _default(item)
        acts = item.name == "calibration_method" and settings.is_calibrated
        if (value != usual or acts) and item.name not in MADE_UP:
            values[item.name] = getattr(value, "value", value)
    return values


def _default(item: Any) -> Any:
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def _group(name: str) -> str:
    for heading, parts in GROUPS.items():
        if any(part in name for part in parts):
            return heading
    return "other"


def _show_recipe(run: Any, settings: Any, rows: Sequence[Any] | None) -> None:
    def line(name: str, value: Any) -> None:
        console.print(f"  {name:<34} {value}", highlight=False, markup=False)

    console.print("run", style="bold")
    for item in dataclasses.fields(run):
        value = getattr(run, item.name)
        if item.name == "problems" and rows:
            value = f"{value} ({len(rows)})"
        if value is not None:
            line(item.name, value)
    grouped: dict[str, dict[str, Any]] = {heading: {} for heading in (*GROUPS, "other")}
    for name, value in differing(settings).items():
        grouped[_group(name)][name] = value
    for heading, values in grouped.items():
        if values:
            console.print(heading, style="bold")
        for name, value in sorted(values.items()):
            line(name, value)
    console.print("All other settings are TRL's defaults.", highlight=False)


def _show_steps(plan: Any, lengths: Any) -> None:
    steps = plan.steps

    def number(value: float | None) -> str:
        return "as many as the data make" if value is None else f"{value:,}"

    console.print("\nlength", style="bold")
    lines = {"steps": number(steps.optimizer_steps), "sequences per step": number(steps.sequences_per_step)}
    if steps.generation_batches != 0:
        lines["rollouts at a time"] = (
            f"{number(steps.rollouts_per_generation)} ({number(steps.prompts_per_generation)} prompts), "
            f"{number(steps.generated_rows_per_gpu)} on each GPU"
        )
        lines["rollouts in all"] = number(steps.rollouts)
    lines["tokens at most"] = number(steps.completion_tokens_at_most)
    if steps.epochs is not None:
        lines["each problem is used"] = f"{steps.epochs:g} times"
    if lengths is not None:
        lines["prompt lengths"] = f"{lengths.shortest} to {lengths.longest} {lengths.unit}, median {lengths.median}"
    for name, value in lines.items():
        console.print(f"  {name:<34} {value}", highlight=False, markup=False)


def _header(recipe_path: Path | None) -> str:
    """The comments of a recipe that stand on lines of their own."""
    if recipe_path is None:
        return ""
    lines = Path(recipe_path).read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if line.startswith("#"))


def _note_missing(run: Any, header: str) -> None:
    stated = re.search(r"^# data: (.*csd .*)$", header, re.MULTILINE)
    make = f"Make it with `{stated.group(1).strip()}`" if stated else "See `csd data --help` for how to make it"
    console.print(
        f"\n{run.problems} is not here yet; an example problem stands in for it. {make}, or set problems to another file.",
        highlight=False,
        markup=False,
    )


def _show_memory(run: Any, settings: Any, plan: Any) -> None:
    from rich.table import Table

    from calibrated_sd.planning import amount

    memory = plan.memory
    table = Table(
        title=f"memory of one GPU: {plan.shape.name}, {plan.shape.n_parameters:,} parameters",
        title_justify="left",
    )
    for heading, side in (("part", "left"), ("size", "right"), ("when", "left"), ("how", "left")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    for part in memory.parts:
        table.add_row(part.name, amount(part.size), part.phase, part.note)
    table.add_section()
    for phase, size in memory.phases.items():
        mark = " ← peak" if phase == memory.peak_phase else ""
        table.add_row(f"in all, {phase}{mark}", amount(size), "", "")
    console.print()
    console.print(table)
    chunk = getattr(settings, "chunk_size", None)
    if run.trainer in ("sdpo", "sdft"):
        other = None if chunk else 256
        console.print(_with_other_chunk(run, settings, plan, other), highlight=False, markup=False)
    if settings.use_cpu:
        console.print("The recipe runs on a CPU: read GPU as process.", highlight=False)


def _with_other_chunk(run: Any, settings: Any, plan: Any, chunk: int | None) -> str:
    """One line on what the loss would take with chunking turned the other way."""
    import copy

    from calibrated_sd.planning import amount
    from calibrated_sd.planning.loss_memory import loss_parts

    changed = copy.copy(settings)
    changed.chunk_size = chunk
    rows, completion = plan.steps.rows_per_gpu, plan.memory.completion_tokens
    now, then = (sum(p.size for p in loss_parts(run, s, plan.shape, rows, completion)) for s in (settings, changed))
    return (
        f"The loss takes {amount(now)} with chunk_size={settings.chunk_size}; with chunk_size={chunk} it would take "
        f"{amount(then)}."
    )
