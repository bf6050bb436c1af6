"""`csd ls | cat | cp | validate`: look at recipes, own a copy, check it."""

from __future__ import annotations

import dataclasses
import os
import re
import warnings
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from calibrated_sd.errors import ConfigError, DataError, OutputError, shortened, unknown_name
from calibrated_sd.records.files import write_bytes


def recipes_root() -> Path:
    """The folder of shipped recipes: inside the wheel, or at the repository root in an editable install."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "_recipes", package.parent.parent / "recipes"):
        if candidate.is_dir():
            return candidate
    raise DataError("The shipped recipes were not found beside the package. Reinstall calibrated-sd.")


def find_recipe(name: str) -> Path:
    """A recipe by path, or by its name below the shipped recipes (each with or without `.yaml`).

    Raises:
        ConfigError: no such file; the nearest shipped name is suggested.
    """
    for path in (Path(name), Path(f"{name}.yaml")):
        if path.is_file():
            return path
    root = recipes_root()
    for candidate in (root / name, root / f"{name}.yaml"):
        if candidate.is_file() and candidate.resolve().is_relative_to(root.resolve()):
            return candidate
    raise unknown_name("recipe", name, [p.relative_to(root).as_posix() for p in shipped_recipes()])


def shipped_recipes() -> list[Path]:
    return sorted(recipes_root().rglob("*.yaml"))


def recipe_title(path: Path) -> str:
    """The first comment line of a recipe."""
    first = path.read_text(encoding="utf-8").splitlines()[:1]
    return first[0].lstrip("# ").strip() if first else ""


def ls_command(
    folder: Annotated[str | None, typer.Argument(help="Only recipes below this folder, e.g. Qwen3-8B.")] = None,
) -> None:
    """List the shipped recipes by folder, with what each one is for.

    Examples:

      csd ls

      csd ls Qwen3-8B/sdpo
    """
    root = recipes_root()
    names = [(p, p.relative_to(root)) for p in shipped_recipes()]
    if folder is not None:
        wanted = Path(folder.rstrip("/")).parts
        chosen = [(path, name) for path, name in names if name.parts[: len(wanted)] == wanted]
        if not chosen:
            folders = {parent.as_posix() for _, name in names for parent in name.parents if parent.parts}
            raise unknown_name("folder of recipes", folder, sorted(folders))
        names = chosen
    for place, group in groupby(names, key=lambda entry: entry[1].parent.as_posix()):
        typer.echo(f"{place}/")
        rows = [(name.as_posix(), recipe_title(path)) for path, name in group]
        width = max(len(name) for name, _ in rows)
        for name, title in rows:
            typer.echo(f"  {name:<{width}}  {title}")


def cat_command(recipe: Annotated[str, typer.Argument(help="Name as `csd ls` prints it, or a path.")]) -> None:
    """Print a recipe.

    Examples:

      csd cat organism/reproduce.yaml

      csd cat organism/sdpo_projection
    """
    path = find_recipe(recipe)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}. Give a recipe, or save the file as UTF-8.") from error
    typer.echo(text, nl=False)


def cp_command(
    recipe: Annotated[str, typer.Argument(help="Name as `csd ls` prints it, or a path.")],
    destination: Annotated[Path, typer.Argument(help="File to write; an existing one is left alone.")],
) -> None:
    """Copy a recipe, to own and change it.

    Examples:

      csd cp organism/sdpo_projection my_run.yaml

      csd cp organism/reproduce.yaml studies/reproduce.yaml
    """
    source = find_recipe(recipe)
    if destination.is_dir():
        destination = destination / source.name
    if destination.exists():
        raise OutputError(f"{destination} exists already and was left alone. Give another name, or remove it first.")
    write_bytes(destination, source.read_bytes())
    typer.echo(f"{destination}: copied from {recipe}. Run `csd validate {destination}` after editing.")


def validate_file(path: Path) -> str:
    """Check one recipe against the code that reads it; returns its kind.

    Raises:
        ConfigError: anything wrong with it, including absolute paths, which do not work on another machine.
    """
    from calibrated_sd.records.recipe_files import read_recipe

    text, raw = read_recipe(path)
    found = re.search(r"[:\s]['\"]?(/(?:home|root|Users|mnt|data|tmp|work)/[^\s'\"]*)", text)
    if found:
        raise ConfigError(
            f"{path} names the absolute path {shortened(found.group(1))}. Use a hub id or a relative path."
        )
    if "profiles" in raw:
        from calibrated_sd.experiments.arm_settings import check_arms
        from calibrated_sd.experiments.recipe import PROFILES, make_plan

        for profile in PROFILES:
            check_arms(make_plan(raw, path, profile))
        return "reproduce"
    from calibrated_sd.experiments.sweep_recipe import is_sweep, load_sweep

    if is_sweep(raw):
        load_sweep(path, find=find_recipe)
        return "sweep"
    if "n_updates" in raw:
        from calibrated_sd.cli.organism import load_pretrain_config

        load_pretrain_config(path, None)
        return "pretrain"
    if is_launch_config(raw):
        check_launch_config(raw, path)
        return "launch"
    from calibrated_sd.experiments.train_recipe import parse_recipe

    environment = dict(os.environ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of libraries, about fields of their own
        try:
            parse_recipe(path, [], on_this_machine=False)
        finally:  # a recipe's `env` is for its own run, not for the next recipe that is checked
            os.environ.clear()
            os.environ.update(environment)
    return "train"


def is_launch_config(raw: dict[str, Any]) -> bool:
    """Whether a file's keys are those of a configuration of `accelerate launch`."""
    return "distributed_type" in raw or "compute_environment" in raw


def check_launch_config(raw: dict[str, Any], path: Path) -> None:
    """Check a configuration of `accelerate launch` with accelerate's own reader, and that chunking works under it.

    Raises:
        ConfigError: keys that accelerate does not know, no number of processes, or weights that are sharded.
    """
    from accelerate.commands.config.config_args import ClusterConfig

    known = {f.name for f in dataclasses.fields(ClusterConfig)}
    for key in raw:
        if key not in known:
            raise unknown_name(f"key in {path}", key, known)
    processes = raw.get("num_processes")
    if not isinstance(processes, int) or isinstance(processes, bool) or processes < 1:
        raise ConfigError(f"{path} says num_processes: {shortened(processes)}. Give the number of GPUs.")
    for key, value in raw.items():
        holds_many = key.endswith("_config") or key in ("commands", "tpu_vm", "tpu_env")
        if isinstance(value, (dict, list)) != holds_many and value not in (None, {}):
            kind = "a mapping or list" if holds_many else "one value"
            raise ConfigError(f"{key} in {path} must be {kind}, got {shortened(value)}.")
    try:
        ClusterConfig.from_yaml_file(yaml_file=str(path))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"accelerate cannot read {path}: {shortened(error, 500, plain=True)}. Correct it, or make one with "
            "`accelerate config`."
        ) from error
    deepspeed = raw.get("deepspeed_config") or {}
    stage = deepspeed.get("zero_stage", 0) if isinstance(deepspeed, dict) else None
    if stage not in (0, 1, 2, 3):
        raise ConfigError(f"deepspeed_config.zero_stage in {path} must be 0, 1, 2 or 3, got {shortened(stage)}.")
    if stage == 3 or str(raw["distributed_type"]).upper() == "FSDP":
        raise ConfigError(
            f"{path} shards the weights (FSDP or ZeRO-3), under which chunk_size cannot read the output head. Use "
            "zero_stage: 2."
        )


def recipes_below(given: str) -> list[Path]:
    """The recipes that a name stands for: one file, or all below a folder, shipped or not.

    Raises:
        ConfigError: no such recipe or folder, or a folder without recipes.
    """
    for folder in (Path(given), recipes_root() / given):
        if folder.is_dir():
            found = sorted(folder.rglob("*.yaml"))
            if not found:
                raise ConfigError(f"There is no recipe (*.yaml) below {folder}. Give a file, or another folder.")
            return found
    return [find_recipe(given)]


def validate_command(
    recipes: Annotated[
        list[str] | None, typer.Argument(help="Recipes or folders to check; all shipped ones if left out.")
    ] = None,
) -> None:
    """Check recipes against the code that reads them, without running anything.

    Examples:

      csd validate

      csd validate my_run.yaml Qwen3-8B
    """
    paths = [path for given in recipes for path in recipes_below(given)] if recipes else shipped_recipes()
    for path in paths:
        typer.echo(f"ok  {validate_file(path):<10} {path}")
    typer.echo(f"{len(paths)} recipe{'s' if len(paths) != 1 else ''} valid")
