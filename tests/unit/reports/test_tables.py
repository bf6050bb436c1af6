"""The summary table in its three forms."""

import io
import re

import pytest
from rich.console import Console

from calibrated_sd.reports import load_folder, summary_table, terminal_table
from calibrated_sd.reports.tables import Cell, number, p_text


@pytest.mark.parametrize(
    ("value", "digits", "signed", "text"),
    [
        (0.125, 2, False, "0.12"),
        (-0.5, 2, True, "−0.50"),
        (0.5, 2, True, "+0.50"),
        (-0.001, 2, True, "0.00"),
        (88.6, 0, False, "89"),
    ],
)
def test_numbers(value, digits, signed, text):
    assert number(value, digits, signed=signed) == text


@pytest.mark.parametrize(
    ("p", "text"), [(None, ""), (0.0004, "p < 0.001"), (0.001, "p = 0.001"), (0.0312, "p = 0.031"), (0.346, "p = 0.35")]
)
def test_p_values(p, text):
    assert p_text(p) == text


def test_a_cell_reads_value_interval_p():
    assert Cell("+0.31", "[0.26, 0.36]", "p = 0.004").text == "+0.31 [0.26, 0.36] (p = 0.004)"
    assert Cell("–").text == "–"


def test_columns_say_what_is_measured_and_which_way_is_better(complete):
    table = summary_table(load_folder(complete))
    assert [column.heading for column in table.columns] == [
        "in-domain ↑", "held-out ↑", "far 1 ↑", "far 2 ↑", "OOD pooled ↑",
        "markers/response ≈", "markers/1k ≈", "held-out/1k ≈", "length", "OOD − base ↑", "OOD − SDPO ↑",
    ]  # fmt: skip


def test_every_measured_cell_has_an_interval(complete):
    table = summary_table(load_folder(complete))
    assert len(table.rows) == 4
    for row in table.rows:
        assert row.note == ""
        assert all(re.fullmatch(r"\[−?[\d.]+, −?[\d.]+\]", cell.interval) for cell in row.cells if cell.value != "–")
        assert all(cell.value != "–" for cell in row.cells[:9])


def test_differences_come_from_the_summary(complete):
    rows = {row.arm.name: row.cells[-2:] for row in summary_table(load_folder(complete)).rows}
    assert rows["projection"][1].text == "+0.31 [0.26, 0.36] (p = 0.004)"
    assert rows["sdpo"] == (Cell("−0.10", "[−0.15, −0.05]", "p = 0.004"), Cell("–"))


def test_conditions_name_n_seeds_and_command(complete):
    conditions = summary_table(load_folder(complete)).conditions
    for words in (
        "n = 8 questions × 2 samples per suite (24 pooled)",
        "2 training seeds",
        "95 % interval",
        "csd reproduce --output out",
    ):
        assert words in conditions


def test_markdown_has_one_row_per_arm_with_equal_columns(complete):
    lines = [line for line in summary_table(load_folder(complete)).to_markdown().splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 4
    assert {line.count("|") for line in lines} == {13}  # 12 columns


def test_a_partial_table_says_so(broken):
    table = summary_table(load_folder(broken))
    assert table.warning == "SMOKE RUN (quick profile) · PARTIAL"
    notes = {row.arm.name: row.note for row in table.rows}
    assert notes == {
        "base": "",
        "sdpo": "failed; 0 of 1 seed finished; measured at step 4 of 12",
        "projection": "not run; 0 of 1 seed finished; not measured",
    }
    assert all(cell.value == "–" for cell in table.rows[-1].cells)
    assert table.to_markdown().startswith("**SMOKE RUN (quick profile) · PARTIAL**")


@pytest.mark.parametrize("width", [80, 140])
def test_intervals_stay_in_one_piece_on_a_terminal(complete, width):
    out = io.StringIO()
    Console(file=out, width=width).print(terminal_table(complete))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    pooled = summary_table(load_folder(complete)).rows[0].cells[4]
    assert pooled.value in text
    assert pooled.interval in text
