"""`csd monitor`: what it prints and writes, and what it leaves alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from calibrated_sd.cli.main import app, main

sys.path.append(str(Path(__file__).parents[1] / "experiments"))
from warning_kit import FALL, five_cases, write_study

runner = CliRunner()


@pytest.fixture
def study(tmp_path):
    write_study(tmp_path / "study", five_cases())
    return tmp_path / "study"


def test_the_result_is_written_and_printed(study, tmp_path):
    file = tmp_path / "warning.json"
    result = runner.invoke(app, ["monitor", str(study), "--patience", "2", "--output", str(file)])
    assert result.exit_code == 0, result.output
    document = json.loads(file.read_text())
    assert document["kind"] == "early_warning"
    assert document["summary"]["n_hits"] == 2
    assert document["settings"]["signals"]["density"]["low"] == 0.5
    assert [(r["arm"], r["seed"], r["collapsed"], r["onset"], r["alarm"]) for r in document["runs"]] == [
        ("a", 0, True, 8, 7),
        ("a", 1, True, 8, 6),
        ("b", 0, True, 8, None),
        ("c", 2, False, None, 7),
        ("d", 2, False, None, None),
    ]
    assert "5 runs of 4 arms, 3 collapse" in result.output
    assert "2 of 3" in result.output
    assert "1.5" in result.output


def test_settings_reach_the_detector(study, tmp_path):
    """Unsmoothed, at once: FALL is below half of its baseline at step 5."""
    assert FALL.index(4.0) + 1 == 5
    file = tmp_path / "warning.json"
    changes = tmp_path / "signals.json"
    changes.write_text('{"density": {"low": 0.45}, "length": null}')
    options = [
        "--signals",
        str(changes),
        "--smoothing",
        "0",
        "--patience",
        "1",
        "--baseline",
        "2",
        "--output",
        str(file),
    ]
    result = runner.invoke(app, ["monitor", str(study), *options])
    assert result.exit_code == 0, result.output
    document = json.loads(file.read_text())
    assert [row["alarm"] for row in document["runs"]] == [5, 4, None, 5, None]
    assert document["settings"]["signals"]["length"] is None
    assert (document["settings"]["baseline"], document["settings"]["smoothing"]) == (2, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--signals", '{"density": '], "not valid JSON"),
        (["--signals", '{"denisty": {"low": 0.4}}'], "denisty"),
        (["--signals", "{}", "--smoothing", "1"], "smoothing must be in"),
        (["--baseline", "0"], "whole number of at least 1, got 0"),
        (["--if-exists", "resume", "--output", "x.json"], "if_exists"),
        (["--fit"], "cannot be chosen"),
    ],
)
def test_errors_are_one_paragraph(study, options, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["csd", "monitor", str(study), *options])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_only_its_own_file_is_overwritten(study, tmp_path):
    file = tmp_path / "notes.json"
    file.write_text('{"kind": "notes"}')
    for options in ([], ["--if-exists", "overwrite"]):
        assert runner.invoke(app, ["monitor", str(study), "--output", str(file), *options]).exit_code != 0
    assert file.read_text() == '{"kind": "notes"}'
    own = tmp_path / "own.json"
    for options in ([], ["--if-exists", "overwrite"]):
        assert runner.invoke(app, ["monitor", str(study), "--output", str(own), *options]).exit_code == 0
