"""`csd sweep`: one base recipe, any fields varied, several seeds, one plot."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calibrated_sd.cli.console import IfExists, console, error_console, quiet_libraries
from calibrated_sd.errors import ConfigError, DataError, shortened

if TYPE_CHECKING:
    from calibrated_sd.experiments.sweep_plan import Sweep


def sweep_command(
    config: Annotated[str, typer.Option(help="Sweep recipe, by name (see `csd ls`) or path.")],
    output: Annotated[Path, typer.Option(help="Folder for everything the sweep writes.")] = Path("sweep-out"),
    launcher: Annotated[str, typer.Option(help="Where the runs run: local or slurm.")] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at the same time, instead of the recipe's number.")
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Training seeds instead of the recipe's: a number of seeds, or a list like 0,1,2 (one: 7,)."),
    ] = None,
    slurm: Annotated[
        list[str] | None, typer.Option("--slurm", help="A parameter of the cluster, key=value; may be repeated.")
    ] = None,
    list_runs: Annotated[bool, typer.Option("--list", help="Print every run with its status, and stop.")] = False,
    if_exists: IfExists = "raise",
) -> None:
    """Train and evaluate every point of a grid, and compare methods at equal retention of doubt.

    Writes results.csv, results.json, pareto.png and report.html. Failed runs are kept apart below failed/, the rest is
    reported, and the command exits with code 2. Interrupt it at any time and go on with --if-exists resume, which
    also takes up points that were added to the recipe.

    Examples:

      csd sweep --config sweeps/strength --output strength

      csd sweep --config my_sweep.yaml --list

      csd sweep --config my_sweep.yaml --launcher slurm --slurm partition=gpu --slurm time=120 --output out
    """
    quiet_libraries()
    from calibrated_sd.cli.recipes import find_recipe
    from calibrated_sd.experiments.sweep import run_sweep
    from calibrated_sd.experiments.sweep_recipe import load_sweep
    from calibrated_sd.records import check_output

    recipe = find_recipe(config)
    sweep = load_sweep(recipe, seeds=parse_seeds(seeds), find=find_recipe)
    if list_runs:
        print_runs(sweep, output)
        return
    check_output(output, if_exists, kind="sweep", inputs=(recipe,))
    words = ["csd", "sweep", "--config", config, *(["--seeds", seeds] if seeds else [])]
    try:
        with _progress_lines() as show:
            failed = run_sweep(
                sweep,
                output,
                if_exists=if_exists,
                launcher=launcher,
                workers=workers,
                slurm=parse_slurm(slurm or []),
                command=shlex.join(words),
                progress=show,
            )
    except KeyboardInterrupt:
        error_console.print("Interrupted. What is finished is kept; the same command with --if-exists resume goes on.")
        raise typer.Exit(130) from None
    from calibrated_sd.reports.sweep_report import build_sweep_report, sweep_tables

    page = build_sweep_report(output)
    for table in sweep_tables(output):
        console.print(table)
    console.print(f"plot: {output / 'pareto.png'}   report: {page}", highlight=False, markup=False)
    if failed:
        names = ", ".join(str(folder.relative_to(output)) for folder in failed)
        raise DataError(
            f"{len(failed)} of the runs failed: {names}. error.txt in each folder says why. The rest is reported; run "
            "the same command with --if-exists resume to try these again."
        )


def parse_seeds(text: str | None) -> list[int] | None:
    """``"3"`` → [0, 1, 2]; ``"0,4"`` → [0, 4]; ``"50,"`` → [50]; None for the recipe's own."""
    if text is None:
        return None
    from calibrated_sd.experiments.sweep_checks import MOST_SEEDS

    text = text.strip()
    try:
        numbers = [int(part) for part in text.removesuffix(",").split(",")]
    except ValueError:
        numbers = []
    is_list = len(numbers) > 1 or text.endswith(",")
    if not is_list and numbers and numbers[0] > MOST_SEEDS:
        raise ConfigError(
            f"--seeds takes a number of seeds up to {MOST_SEEDS}, got {shortened(text)}. To train one seed, add a comma: "
            f"{shortened(text, plain=True)},"
        )
    seeds = numbers if is_list else list(range(numbers[0] if numbers else 0))
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"--seeds must be a number of seeds from 1, e.g. 3, or a list of different seeds, e.g. 0,1,2 (one seed: 7,); got {shortened(text)}."
        )
    return seeds


def parse_slurm(pairs: list[str]) -> dict[str, Any]:
    """``["time=120", "partition=gpu"]`` → ``{"time": 120, "partition": "gpu"}``, values read as YAML."""
    import yaml

    from calibrated_sd.records.recipe_files import YAML_ERRORS

    parameters = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--slurm takes key=value, e.g. --slurm partition=gpu, got {pair!r}.")
        try:
            parameters[key] = yaml.safe_load(value)
        except YAML_ERRORS as error:
            raise ConfigError(
                f"The value of --slurm {shortened(pair, plain=True)} is not valid YAML ({' '.join(str(error).split())}). "
                "Quote the whole for the shell, and text with brackets or colons once more within."
            ) from error
    return parameters


def print_runs(sweep: Sweep, directory: Path) -> None:
    """One line for each run: status, folder, what was varied. Reads the folder if there is one, and writes nothing."""
    from calibrated_sd.experiments.grid import value_text
    from calibrated_sd.experiments.sweep import sweep_statuses

    rows = sweep_statuses(sweep, directory)
    width = max(len(name) for name, *_ in rows) + 8
    for name, arm, seed, status in rows:
        swept = {} if arm is None else arm.swept
        varied = "  ".join(f"{field}={value_text(value)}" for field, value in swept.items()) or "landmark"
        typer.echo(f"{status:<10} {f'{name}/seed_{seed}':<{width}} {varied}")
    counts = Counter(status for *_, status in rows)
    typer.echo(f"{len(rows)} runs: " + ", ".join(f"{n} {status}" for status, n in sorted(counts.items())))


@contextmanager
def _progress_lines() -> Iterator[Callable[[str, float], None]]:
    from calibrated_sd.cli.reproduce import _progress

    shown = _progress()
    with shown as show:
        if hasattr(shown, "bar"):
            shown.bar.update(shown.bar.task_ids[0], description="sweep")
        yield show
