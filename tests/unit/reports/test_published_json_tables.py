"""Tables of published pages that come from a JSON file of figures, and how any table becomes Markdown."""

from typing import ClassVar

import pytest

from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.records import figure, write_json
from calibrated_sd.reports.published.early_warning_table import early_warning_table
from calibrated_sd.reports.published.json_table import figures_table
from calibrated_sd.reports.published.markdown import PublishedTable, provenance_line


class TestFigures:
    CONTENT: ClassVar = {
        "levels": {
            "none": {"accuracy": figure(0.5, 0.4, 0.6, 28, "share", "avg@8; covers questions only, 1 seed"), "n": 1234},
            "solution": {"accuracy": figure(1.0, 0.88, 1.0, 28, "share", "avg@8")},
        }
    }  # fmt: skip

    def test_rows_columns_and_labels(self, tmp_path):
        write_json(tmp_path / "a.json", self.CONTENT)
        options = {
            "rows": "levels",
            "columns": {"acc.": "accuracy", "N": "n"},
            "labels": {"solution": "s", "none": "∅"},
            "first": "context",
        }
        table = figures_table(tmp_path / "a.json", options)
        assert table.columns == ("context", "acc.", "N")
        assert table.rows == (("s", "1.00 [0.88, 1.00]", "–"), ("∅", "0.50 [0.40, 0.60]", "1,234"))
        assert table.conditions == "n = 28 problems × 8 samples; value [95 % interval]."

    @pytest.mark.parametrize(
        "options",
        [
            {"rows": "levels"},
            {"rows": "level", "columns": {"a": "accuracy"}},
            {"rows": "levels", "columns": {"a": "acuracy"}},
            {"rows": "levels", "columns": {"a": "accuracy"}, "labels": {"some": "x"}},
        ],
    )
    def test_paths_that_lead_nowhere_are_refused(self, tmp_path, options):
        write_json(tmp_path / "a.json", self.CONTENT)
        with pytest.raises(ConfigError):
            figures_table(tmp_path / "a.json", options)


def test_early_warning(tmp_path):
    def summary(hits):
        rate = figure(hits / 4, 0.1, 0.9, 4, "share", "Wilson")
        lead = figure(2.5, 1.0, 4.0, 2, "steps", "bootstrap of arms")
        return {"n_runs": 9, "n_arms": 3, "n_collapsing": 4, "n_hits": hits, "hit_rate": rate, "false_alarm_rate": rate, "lead": lead,
                "lead_from_last_good": lead, "in_time": rate}  # fmt: skip

    content = {
        "kind": "early_warning", "over": "second half of the arms", "left_out": ["x"], "summary": summary(3),
        "signals": {"density": {**summary(2), "first": 1}},
        "criterion": {"collapse_standard_errors": 3.0, "onset_drop": 0.1, "hit_rate_at_least": 0.8, "false_alarm_rate_at_most": 0.2},
        "fit": {"defaults": {"summary": summary(1)}, "verdict": "fails", "halves": {"first": {"n_runs": 11}}},
    }  # fmt: skip
    write_json(tmp_path / "e.json", content)
    table = early_warning_table(tmp_path / "e.json", {})
    assert [row[:2] for row in table.rows] == [
        ("all signals, chosen thresholds", "0.75 [0.10, 0.90] of 4"),
        ("all signals, default thresholds", "0.25 [0.10, 0.90] of 4"),
        ("density alone", "0.50 [0.10, 0.90] of 4"),
    ]
    assert table.rows[2][4:] == ("2.5 [1.0, 4.0]", "2.5 [1.0, 4.0]", "1 of 2")
    assert "**fails**" in table.notes[1]
    write_json(tmp_path / "e.json", {"kind": "probe"})
    with pytest.raises(DataError, match="csd monitor"):
        early_warning_table(tmp_path / "e.json", {})


def test_markdown_keeps_its_columns_whatever_a_cell_holds(tmp_path):
    table = PublishedTable(("a|b", "c"), (("x\ny", "|"),), "n = 1.", "Partial.", ("note",))
    line = provenance_line(
        tmp_path, {"command": "csd sweep", "commit": "0123456789abcdef", "dirty": True}, tmp_path / "page.md"
    )
    assert line == "*Generated from* `csd sweep` · at commit 0123456789 (with uncommitted changes) · [files](./)"
    assert table.to_markdown(line).split("\n") == [
        "", "**Partial.**", "", r"| a\|b | c |", "|---|---|", r"| x y | \| |", "", "n = 1.", "", "- note", "", line, "",
    ]  # fmt: skip
    assert (
        provenance_line(tmp_path / "f.json", {}, tmp_path / "sub/page.md")
        == "*Generated from* commit unknown · [files](../f.json)"
    )
