"""`csd report`: tables, figures and pages of a reproduce, sweep or published folder, once more from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calibrated_sd.cli.console import console, error_console
from calibrated_sd.errors import ConfigError


def report_command(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="A folder that `csd reproduce` or `csd sweep` wrote, or one with published.yaml."
        ),
    ],
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; exit with code 1 if the report there does not match its data."),
    ] = False,
    archives: Annotated[
        bool,
        typer.Option(
            "--archives/--no-archives",
            help="With --check of a published folder: also compute its results again from their archives (minutes).",
        ),
    ] = True,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Write nothing; print the summary table as Markdown.")
    ] = False,
) -> None:
    """Rebuild the figures and the page of a reproduce or sweep folder from its files. Needs no model, no torch.

    Interrupted and failed runs give a report too; it says on every table and figure what is missing. A folder with a
    published.yaml has its tables rewritten between the markers on its pages; --check says which line differs.

    Examples:

      csd report reproduce-out

      csd report reproduce-out --check

      csd report docs/results --check
    """
    if check and markdown:
        raise ConfigError("--check and --markdown exclude each other. Give one of them.")
    from calibrated_sd.reports.published import published_root

    root = published_root(directory)
    if root is not None and not markdown and (check or root == directory):
        from calibrated_sd.cli.published import report_published

        if root != directory:
            console.print(f"{directory} is published by {root}, which is checked.", highlight=False, markup=False)
        report_published(root, check=check, archives=archives)
        return
    if _is_sweep(directory):
        _report_sweep(directory, check or markdown)
        return
    from calibrated_sd.reports.build import build_report, check_report
    from calibrated_sd.reports.loading import load_folder
    from calibrated_sd.reports.tables import summary_table, terminal_table

    if markdown:
        typer.echo(summary_table(load_folder(directory)).to_markdown(), nl=False)
        return
    if check:
        result = check_report(directory)
        for gap in result.gaps:
            console.print(f"note: {gap}", highlight=False, markup=False)
        for problem in result.problems:
            error_console.print(f"out of date: {problem}", highlight=False, markup=False)
        if result.problems:
            error_console.print(f"Run `csd report {directory}` to rebuild it.", highlight=False, markup=False)
            raise typer.Exit(1)
        console.print(f"{directory}: the report matches its data.", highlight=False, markup=False)
        return
    page = build_report(directory)
    console.print(terminal_table(directory))
    console.print(f"report: {page}", highlight=False, markup=False)


def _is_sweep(directory: Path) -> bool:
    from calibrated_sd.records import read_object

    manifest = directory / "manifest.json"
    return manifest.is_file() and read_object(manifest).get("kind") == "sweep"


def _report_sweep(directory: Path, only_look: bool) -> None:
    from calibrated_sd.reports.sweep_report import build_sweep_report

    if only_look:
        raise ConfigError(
            f"{directory} is a sweep; --check and --markdown are for reproduce folders. Leave them out to redraw "
            "pareto.png and report.html."
        )
    page = build_sweep_report(directory)
    console.print(f"report: {page}", highlight=False, markup=False)
