"""`csd organism pretrain | ladder`: make the model organism, and measure how context changes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from calibrated_sd.cli.console import IfExists, quiet_libraries
from calibrated_sd.errors import ConfigError, shortened, unknown_name

if TYPE_CHECKING:
    from calibrated_sd.organism.pretrain import PretrainConfig

organism_app = typer.Typer(
    help="The CPU model organism: pretrain it, measure its context ladder.", no_args_is_help=True
)


def load_pretrain_config(path: Path, output: Path | None) -> PretrainConfig:
    """Read a pretraining recipe.

    Raises:
        ConfigError: an unknown key, or habits and shares that the corpus does not know.
    """
    import dataclasses

    from calibrated_sd.organism.corpus import Mixture
    from calibrated_sd.organism.grammar import Habits
    from calibrated_sd.organism.pretrain import PretrainConfig
    from calibrated_sd.organism.species import species
    from calibrated_sd.records.recipe_files import read_recipe
    from calibrated_sd.records.setting_types import check_counts, check_settings

    raw = read_recipe(path)[1]
    for section, cls in (("", PretrainConfig), ("habits", Habits), ("mixture", Mixture)):
        values = raw.get(section, {}) if section else raw
        known = {f.name for f in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise unknown_name(f"{section or 'pretraining'} key in {path}", key, known)
        check_settings(values, cls, f"{section} of {path}" if section else str(path))
        if section and any(not 0 <= value <= 1 for value in values.values()):
            raise ConfigError(f"{section} in {path} are probabilities from 0 to 1, got {shortened(values)}.")
    check_counts(raw, PRETRAIN_LEAST, str(path))
    config = PretrainConfig(**raw)
    species(config.organism)
    if config.hidden_size % config.num_heads:
        raise ConfigError(
            f"hidden_size {config.hidden_size} in {path} cannot be divided among num_heads {config.num_heads}. Give a multiple."
        )
    if config.mixture and not sum(dataclasses.astuple(Mixture(**config.mixture))) > 0:
        raise ConfigError(f"The shares under mixture in {path} are all 0. Give at least one context a share.")
    if output is not None:
        config.output_dir = str(output)
    return config


PRETRAIN_LEAST = {
    **dict.fromkeys(("n_updates", "tokens_per_batch", "hidden_size", "num_layers", "num_heads", "ffn_size"), 1),
    **dict.fromkeys(("save_steps", "logging_steps", "threads"), 1),
    **dict.fromkeys(("seed", "warmup_steps", "weight_decay", "learning_rate"), 0),
}
"""Smallest values of a pretraining recipe that make sense."""


@organism_app.command("pretrain")
def pretrain_command(
    config: Annotated[str, typer.Option(help="Recipe name or path.")] = "organism/pretrain.yaml",
    output: Annotated[Path, typer.Option(help="Folder for model, tokenizer and checkpoints.")] = Path(
        "organism-pretrain"
    ),
    n_updates: Annotated[int | None, typer.Option(help="Override the number of updates (for a smoke run).")] = None,
    if_exists: IfExists = "raise",
) -> None:
    """Pretrain the model organism from scratch (about half an hour on one core).

    Examples:

      csd organism pretrain --config organism/pretrain.yaml --output organism-pretrain

      csd organism pretrain --n-updates 20 --output smoke
    """
    quiet_libraries()
    from calibrated_sd.cli.recipes import find_recipe
    from calibrated_sd.experiments.provenance import provenance
    from calibrated_sd.records import prepare_output, write_json

    recipe = find_recipe(config)
    settings = load_pretrain_config(recipe, output)
    if n_updates is not None:
        if n_updates < 1:
            raise ConfigError(f"--n-updates must be at least 1, got {n_updates}.")
        settings.n_updates = n_updates
    prepare_output(output, if_exists, kind="pretrain", inputs=(recipe,))
    write_json(output / "manifest.json", {"schema_version": 1, "kind": "pretrain", "provenance": provenance()})
    from calibrated_sd.organism.pretrain import pretrain

    folder = pretrain(settings, resume=if_exists == "resume")
    typer.echo(f"{folder}: model and tokenizer. Next: csd organism ladder --model {folder}")


@organism_app.command("ladder")
def ladder_command(
    model: Annotated[
        str, typer.Option(help="'organism' or 'organism2' (the shipped checkpoints), or a folder.")
    ] = "organism",
    organism: Annotated[
        str | None, typer.Option(help="Whose puzzles and contexts, for a folder: 'organism' or 'organism2'.")
    ] = None,
    n: Annotated[int, typer.Option(help="Samples per family and context level.")] = 512,
    seed: Annotated[int, typer.Option(help="Seed of problems and samples.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for completions and ladder.json.")] = Path("organism-ladder"),
    if_exists: IfExists = "raise",
) -> None:
    """Sample the organism under each context level; tabulate accuracy, length and markers with intervals.

    Examples:

      csd organism ladder --n 512 --output organism-ladder

      csd organism ladder --model organism-pretrain --n 64 --output small-ladder
    """
    quiet_libraries()
    from calibrated_sd.experiments.provenance import provenance
    from calibrated_sd.organism.checkpoint import load_organism, organism_path
    from calibrated_sd.organism.ladder import measure_ladder, summarise_ladder
    from calibrated_sd.organism.species import SPECIES, species
    from calibrated_sd.records import check_output, prepare_output, write_json, write_jsonl

    whose = species(organism or (model if model in SPECIES else "organism")).name
    if n < 1:
        raise ConfigError(f"--n must be at least 1, got {n}.")
    read = (organism_path(model),)
    check_output(output, if_exists, kind="organism-ladder", inputs=read)
    weights, tokenizer = load_organism(model)
    prepare_output(output, if_exists, kind="organism-ladder", inputs=read)
    records = measure_ladder(weights, tokenizer, n_problems=n, n_samples=1, seed=seed, organism=whose)
    summary = summarise_ladder(records, whose)
    command = f"csd organism ladder --model {model} --n {n} --seed {seed}"
    if organism is not None:
        command += f" --organism {organism}"
    block = provenance(command=command, seed=seed, model_path=organism_path(model))
    write_jsonl(output / "completions.jsonl", records)
    write_json(output / "ladder.json", {**summary, "samples_per_cell": n, "provenance": block})
    write_json(output / "manifest.json", {"schema_version": 1, "kind": "organism-ladder", "provenance": block})
    for family, levels in summary["families"].items():
        for level, row in levels.items():
            cells = "  ".join(f"{k} {v['value']:.3f} [{v['lo']:.3f}, {v['hi']:.3f}]" for k, v in row.items())
            typer.echo(f"{family:<11} {level:<12} {cells}")
