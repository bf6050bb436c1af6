"""`csd reproduce`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from calibrated_sd.cli.console import IfExists, console, error_console, quiet_libraries
from calibrated_sd.errors import ConfigError, DataError


def reproduce_command(
    output: Annotated[Path, typer.Option(help="Folder for everything the run writes.")] = Path("reproduce-out"),
    quick: Annotated[bool, typer.Option("--quick", help="Smoke run in under two minutes; concludes nothing.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Every claim, three seeds, more steps; about 90 minutes on two cores.")
    ] = False,
    seeds: Annotated[
        str | None,
        typer.Option(help="Training seeds instead of the profile's: a number of seeds, or a list like 0,1,2."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at the same time, instead of the recipe's number.")
    ] = None,
    config: Annotated[str, typer.Option(help="Reproduce recipe, by name or path.")] = "organism/reproduce.yaml",
    if_exists: IfExists = "raise",
) -> None:
    """Reproduce the degradation and its repair on the CPU model organism, with a report. Needs no network.

    Writes claims.json, summary.csv, figures/*.png, report.html and everything they were made from (runs/). Interrupt
    it at any time and go on with --if-exists resume.

    Examples:

      csd reproduce --output reproduce-out

      csd reproduce --quick --output smoke --if-exists overwrite

      csd reproduce --full --seeds 100,101,102 --workers 1 --output claims
    """
    if quick and full:
        raise ConfigError("--quick and --full exclude each other. Leave out both for the default run.")
    quiet_libraries()
    from calibrated_sd.cli.recipes import find_recipe
    from calibrated_sd.cli.sweep import parse_seeds
    from calibrated_sd.experiments.reproduce import reproduce
    from calibrated_sd.reports.build import build_report

    profile = "quick" if quick else "full" if full else "default"
    command = " ".join(
        ["csd reproduce", *([f"--{profile}"] if profile != "default" else []), *([f"--seeds {seeds}"] if seeds else [])]
        + ([f"--config {config}"] if config != "organism/reproduce.yaml" else [])
    )
    if quick:
        console.print("Smoke run: it shows that every part works; its figures conclude nothing.")
    try:
        with _progress() as show:
            claims = reproduce(
                find_recipe(config),
                output,
                profile=profile,
                seeds=parse_seeds(seeds),
                workers=workers,
                if_exists=if_exists,
                command=command,
                progress=show,
            )
    except KeyboardInterrupt:
        error_console.print("Interrupted. What is finished is kept; the same command with --if-exists resume goes on.")
        raise typer.Exit(130) from None
    except DataError:
        if (output / "claims.json").is_file():  # some jobs failed: report what finished, then say which did not
            console.print(f"partial report: {build_report(output)}", highlight=False)
        raise
    page = build_report(output)
    print_results(output, claims)
    console.print(f"report: {page}", highlight=False)


def print_results(directory: Path, claims: list[dict[str, Any]]) -> None:
    """The summary table and the verdicts, on the terminal."""
    from calibrated_sd.reports.tables import terminal_table

    console.print(terminal_table(directory))
    for claim in claims:
        if claim["verdict"] != "not run":
            console.print(f"  {claim['id']:<4} {claim['verdict']:<13} {claim['statement']}", highlight=False)
    skipped = [claim["id"] for claim in claims if claim["verdict"] == "not run"]
    if skipped:
        console.print(f"  not run here: {', '.join(skipped)}", highlight=False)


class _progress:
    """A progress bar on a terminal, plain lines otherwise."""

    def __enter__(self) -> Any:
        if not console.is_terminal:
            return lambda line, share: print(f"[{share:4.0%}] {line}", flush=True)
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            console=console,
        )
        self.bar.start()
        task = self.bar.add_task("reproduce", total=1.0)

        def show(line: str, share: float) -> None:
            self.bar.console.print(line, highlight=False)
            self.bar.update(task, completed=share)

        return show

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if hasattr(self, "bar"):
            if kind is None:
                self.bar.update(self.bar.task_ids[0], completed=1.0)
            self.bar.stop()
