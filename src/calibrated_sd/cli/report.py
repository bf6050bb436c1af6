"""`csd report`: tables, figures and the page of a reproduce folder, once more from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calibrated_sd.cli.console import console


def report_command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `csd reproduce --output` wrote.")],
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the summary table as Markdown and write nothing.")
    ] = False,
) -> None:
    """Rebuild figures/*.png and report.html from the files of a reproduce folder. Needs no model and no torch.

    Works on interrupted and failed runs too: whatever is missing is said on the page.

    Examples:

      csd report reproduce-out

      csd report reproduce-out --markdown > summary.md
    """
    from calibrated_sd.reports.tables import markdown_table, terminal_table

    if markdown:
        typer.echo(markdown_table(directory), nl=False)
        return
    from calibrated_sd.reports.build import build_report

    page = build_report(directory)
    console.print(terminal_table(directory))
    console.print(f"report: {page}", highlight=False, markup=False)
