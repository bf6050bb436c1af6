"""From a sweep folder to ``pareto.png`` and ``report.html``; its tables, for the page and for the terminal."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from calibrated_sd.records.files import write_bytes
from calibrated_sd.reports.build import PAGE
from calibrated_sd.reports.canvas import standing
from calibrated_sd.reports.html import flat, page_template
from calibrated_sd.reports.pareto import draw_pareto
from calibrated_sd.reports.scores import Score
from calibrated_sd.reports.sweep_folder import SweepFolder, load_sweep_folder
from calibrated_sd.reports.tables import MISSING, number

FIGURE = "pareto.png"
COLUMNS = (
    ("accuracy", "OOD acc. ↑", 2),
    ("retention", "retention ≈ 1", 2),
    ("markers_per_1k", "markers/1k ≈", 1),
    ("length", "length", 0),
    ("held_out_per_1k", "held-out/1k ≈", 1),
    ("truncated_share", "cut off ↓", 2),
)
"""Metric, heading, digits of the table of points."""

MOST_COLUMNS = 4


@dataclass(frozen=True)
class Cell:
    """``value [lo, hi]``, what else is worth saying on the page, and how the interval was made."""

    value: str
    interval: str = ""
    extra: str = ""
    method: str = ""


@dataclass(frozen=True)
class Sheet:
    """A table, independent of the medium; the first cell of a row is its name."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    note: str = ""

    def to_rich(self) -> Group:
        """For the terminal: as many columns as fit beside the names."""
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False)
        table.add_column(self.columns[0], overflow="fold", min_width=18)
        for column in self.columns[1 : MOST_COLUMNS + 1]:
            table.add_column(column, justify="right", no_wrap=True)
        for name, cells in self.rows:
            table.add_row(Text(name), *(Text(f"{c.value}\n{c.interval}".strip()) for c in cells[:MOST_COLUMNS]))
        return Group(Text(self.title, style="bold"), table, Text(self.note, style="dim"))


def build_sweep_report(directory: str | Path) -> Path:
    """Write ``pareto.png`` and ``report.html`` into a sweep folder; returns the page's path. Needs no model.

    Raises:
        DataError: not a sweep folder, or one without results.
        OutputError: the folder cannot be written.
    """
    folder = load_sweep_folder(directory)
    drawing = draw_pareto(folder)
    page = page_template("sweep.html.j2").render(
        folder=folder,
        warning=standing(folder),  # type: ignore[arg-type]
        figure=drawing,
        image=base64.b64encode(drawing.png).decode("ascii"),
        sheets=sheets(folder),
        failed=folder.results["failed"],
        others=folder.results["other_runs"],
        provenance=list(flat(folder.provenance)),
        shades=[],
    )
    write_bytes(folder.path / FIGURE, drawing.png)
    write_bytes(folder.path / PAGE, page.encode("utf-8", errors="replace"))
    return folder.path / PAGE


def sweep_tables(directory: str | Path) -> list[Group]:
    """The tables of a sweep folder, ready for `rich`."""
    return [sheet.to_rich() for sheet in sheets(load_sweep_folder(directory))]


def sheets(folder: SweepFolder) -> list[Sheet]:
    """Methods at equal retention, and every point."""
    return [*_matched_sheets(folder), _point_sheet(folder)]


def _matched_sheets(folder: SweepFolder) -> list[Sheet]:
    if not folder.matched:
        return []
    heads = tuple(f"retention {target:g}" for target in folder.targets)
    rows = []
    for name in folder.series:
        cells = []
        for entry in (entry for entry in folder.matched if entry.series == name):
            cell = _cell(entry.accuracy, 2)
            if not entry.reached:
                cell = replace(cell, value="not reached", interval=f"({number(entry.low, 2)}–{number(entry.high, 2)})")
            elif entry.strength.value is not None:
                cell = replace(cell, extra=f"at {folder.curve} {entry.strength.value:.2g}")
            cells.append(cell)
        rows.append((name, tuple(cells)))
    note = (
        "OOD accuracy where a method keeps that share of the base model's markers per 1k tokens, on the line between "
        "neighbouring points. Nothing is extrapolated; where a share is not reached, the measured range stands instead."
    )
    found = [Sheet("Accuracy at equal retention", ("method", *heads), tuple(rows), note)]
    if folder.differences:
        against = folder.differences[0][1]
        table: dict[str, list[Cell]] = {}
        for name, _, _, score in folder.differences:
            table.setdefault(name, []).append(_cell(score, 2, signed=True))
        body = tuple((name, tuple(cells)) for name, cells in table.items())
        found.append(Sheet(f"The same, minus {against}", ("method", *heads), body, "Same questions on both sides."))
    return found


def _point_sheet(folder: SweepFolder) -> Sheet:
    rows = []
    for point in folder.points:
        cells = tuple(_cell(point.scores.get(metric), digits) for metric, _, digits in COLUMNS)
        rows.append((point.label, cells))
    note = (
        "Pooled out-of-distribution suites after the last step. Retention is markers per 1k tokens over the base model's; "
        "held-out markers are doubt in words that no calibrator is given. ↑ more is better, ↓ less, ≈ the base model's "
        "level is the aim."
    )
    return Sheet("Every point", ("run", *(heading for _, heading, _ in COLUMNS)), tuple(rows), note)


def _cell(score: Score | None, digits: int, signed: bool = False) -> Cell:
    if score is None or score.value is None:
        return Cell(MISSING, method="" if score is None else score.method)
    value = number(score.value, digits, signed=signed)
    if score.lo is None or score.hi is None:
        return Cell(value, method=score.method)
    return Cell(value, f"[{number(score.lo, digits)}, {number(score.hi, digits)}]", method=score.method)
