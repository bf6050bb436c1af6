"""The summary table: one row per arm, every cell a value with its interval; for the terminal, Markdown and HTML."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from calibrated_sd.reports.canvas import counted, seeds_in_words, span, standing
from calibrated_sd.reports.folder import BASE, Arm, ReproduceFolder
from calibrated_sd.reports.loading import load_folder
from calibrated_sd.reports.scores import OOD, Contrast, Score, Scores

PLAIN_ARM = "sdpo"
"""The arm that calibrated ones are compared with: plain SDPO."""
MISSING = "–"


@dataclass(frozen=True)
class Column:
    """A column; ``arrow`` is ↑ where more is better, ≈ where the base model's level is the aim, empty otherwise."""

    title: str
    arrow: str = ""
    hint: str = ""
    group: str = "accuracy"

    @property
    def heading(self) -> str:
        return f"{self.title} {self.arrow}".strip()


@dataclass(frozen=True)
class Cell:
    """``value [lo, hi]``, and a p-value for differences."""

    value: str
    interval: str = ""
    p: str = ""

    @property
    def text(self) -> str:
        return " ".join(part for part in (self.value, self.interval, self.p and f"({self.p})") if part)


@dataclass(frozen=True)
class Row:
    """One arm; ``note`` says what is unfinished about it."""

    arm: Arm
    cells: tuple[Cell, ...]
    note: str = ""


@dataclass(frozen=True)
class SummaryTable:
    """The table, independent of the medium.

    Attributes:
        conditions: n, samples, seeds and the meaning of the intervals.
        warning: set for smoke and partial runs.
        columns: without the arm's own column.
        rows: one per arm that was planned, measured or not.
        notes: how to read it.
    """

    conditions: str
    warning: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())

    def to_markdown(self) -> str:
        """A GitHub table with its conditions above and its notes below."""
        lines = [f"**{self.warning}**", ""] if self.warning else []
        lines += [self.conditions, ""]
        table = [["arm", *(column.heading for column in self.columns)]]
        table += [[_named(row), *(cell.text for cell in row.cells)] for row in self.rows]
        table = [[text.replace("|", r"\|").replace("\n", " ") for text in row] for row in table]
        lines += [f"| {' | '.join(table[0])} |", "|" + "---|" * len(table[0])]
        lines += [f"| {' | '.join(row)} |" for row in table[1:]]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes), ""])

    def to_rich(self) -> Group:
        """For the terminal: accuracies first, then differences and style, so that each part fits on a screen."""
        parts: list[Table | Text] = []
        if self.warning:
            parts.append(Text(self.warning, style="bold red"))
        parts.append(Text(self.conditions, style="dim"))
        for group in dict.fromkeys(column.group for column in self.columns):
            chosen = [i for i, column in enumerate(self.columns) if column.group == group]
            table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False)
            table.add_column("arm", overflow="fold", min_width=9)
            for i in chosen:
                table.add_column(self.columns[i].heading, justify="right", no_wrap=True)
            for row in self.rows:
                table.add_row(Text(_named(row)), *(_stacked(row.cells[i]) for i in chosen))
            parts.append(table)
        parts.append(Text("\n".join(self.notes), style="dim"))
        return Group(*parts)


def summary_table(folder: ReproduceFolder, scores: Scores | None = None) -> SummaryTable:
    """The summary of a reproduce folder."""
    scores = scores or Scores(folder)
    accuracy = [(Column(title, "↑", suite_label), suite) for title, suite, suite_label in _suite_columns(folder)]
    style = [
        (Column("markers/response", "≈", "lexical set, OOD pooled", "style"), "markers_per_response", 1),
        (Column("markers/1k", "≈", "lexical set, OOD pooled", "style"), "markers_per_1k", 1),
        (Column("held-out/1k", "≈", "doubt in words no calibrator is given", "style"), "held_out_per_1k", 1),
        (Column("length", "", "tokens, OOD pooled", "style"), "length", 0),
    ]
    differences = [
        (Column("OOD − base", "↑", "pooled accuracy, paired by question", "difference"), BASE),
        (Column("OOD − SDPO", "↑", "pooled accuracy, paired by question", "difference"), PLAIN_ARM),
    ]
    rows = []
    for arm in folder.arms:
        cells = [_cell(scores.get(arm.name, suite, "accuracy"), 2) for _, suite in accuracy]
        cells += [_cell(scores.get(arm.name, OOD, metric), digits) for _, metric, digits in style]
        cells += [_difference(scores.contrast(arm.name, against)) for _, against in differences]
        rows.append(Row(arm, tuple(cells), _unfinished(folder, scores, arm)))
    columns = (*(c for c, _ in accuracy), *(c for c, _, _ in style), *(c for c, _ in differences))
    return SummaryTable(_conditions(folder, scores), standing(folder), columns, tuple(rows), _notes(folder, rows))


def terminal_table(directory: str | Path) -> Group:
    """The summary table of a folder, ready for `rich`."""
    return summary_table(load_folder(directory)).to_rich()


def number(value: float, digits: int, signed: bool = False) -> str:
    """A number with a real minus sign; ``-0.00`` is written as ``0.00``."""
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    if float(text) == 0:
        text = f"{0:.{digits}f}"
    return text.replace("-", "−")


def p_text(p: float | None) -> str:
    """``p = 0.031``, ``p < 0.001``; empty where there is none."""
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _suite_columns(folder: ReproduceFolder) -> list[tuple[str, str, str]]:
    """(title, suite, label): in-domain, held-out, far 1, far 2, …, pooled."""
    titles, far = [], 0
    for suite in folder.suites:
        if suite.role == "far":
            far += 1
            titles.append((f"far {far}", suite.name, suite.label))
        else:
            titles.append(
                ({"train": "in-domain", "heldout": "held-out"}.get(suite.role, suite.role), suite.name, suite.label)
            )
    return [*titles, ("OOD pooled", OOD, "all suites but the trained one, every question counts once")]


def _cell(score: Score | None, digits: int) -> Cell:
    if score is None or score.value is None:
        return Cell(MISSING)
    return Cell(number(score.value, digits), _interval(score, digits))


def _difference(contrast: Contrast | None) -> Cell:
    if contrast is None:
        return Cell(MISSING)
    score = contrast.score
    return Cell(number(score.value or 0.0, 2, signed=True), _interval(score, 2), p_text(contrast.p_value))


def _interval(score: Score, digits: int) -> str:
    if score.lo is None or score.hi is None:
        return ""
    return f"[{number(score.lo, digits)}, {number(score.hi, digits)}]"


def _unfinished(folder: ReproduceFolder, scores: Scores, arm: Arm) -> str:
    runs = [run for run in folder.runs if run.arm == arm.name]
    notes = []
    finished = sum(run.status == "ok" for run in runs)
    if runs and finished < len(runs):
        states = sorted({run.status for run in runs if run.status != "ok"})
        notes.append(f"{', '.join(states)}; {finished} of {counted(len(runs), 'seed')} finished")
    last, wanted = scores.last_step(arm.name), folder.last_step_of(arm.name)
    if arm.name != BASE and last is not None and wanted is not None and last < wanted:
        notes.append(f"measured at step {last} of {wanted}")
    if last is None:
        notes.append("not measured")
    return "; ".join(notes)


def _conditions(folder: ReproduceFolder, scores: Scores) -> str:
    questions, samples = scores.design()
    pooled = scores.get(BASE, OOD, "accuracy")
    parts = [f"n = {span(questions)} questions × {span(samples)} {'sample' if samples == [1] else 'samples'} per suite"]
    if pooled is not None and pooled.n:
        parts[0] += f" ({pooled.n} pooled)"
    parts += [seeds_in_words(folder), "value [95 % interval]", f"profile {folder.profile}", folder.command]
    return " · ".join(parts)


def _notes(folder: ReproduceFolder, rows: list[Row]) -> tuple[str, ...]:
    notes = [
        "↑ more is better; ≈ the base model's level is the aim. Length has no better direction of its own.",
        "; ".join(f"{title}: {label}" for title, _, label in _suite_columns(folder)) + ".",
        "Markers (lexical set, per response and per 1k tokens), held-out markers (doubt in words that no calibrator is given) and length (tokens) are those of the pooled OOD questions.",
    ]
    if any(row.cells[-1].value != MISSING or row.cells[-2].value != MISSING for row in rows):
        seeds = " Seeds are averaged in the test, but resampled in the interval." if len(folder.seeds) > 1 else ""
        notes.append(
            "Differences of pooled OOD accuracy are paired by question; p is from a sign-flip permutation test over "
            f"questions, Holm-corrected over the arms.{seeds}"
        )
    elif folder.summary is None:
        notes.append("Differences are computed at the end of csd reproduce, which has not been reached.")
    return tuple(notes)


def _named(row: Row) -> str:
    return f"{row.arm.label} ({row.note})" if row.note else row.arm.label


def _stacked(cell: Cell) -> Text:
    text = Text(cell.value, style="bold" if cell.interval else "")
    for line in (cell.interval, cell.p):
        if line:
            text.append(f"\n{line}", style="dim")
    return text
