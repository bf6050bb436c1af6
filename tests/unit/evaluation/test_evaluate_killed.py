"""`csd evaluate` killed without warning in the middle, then resumed: no sample is lost, none is made twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import typer
from typer.testing import CliRunner

from calibrated_sd.cli.evaluate import evaluate_command
from calibrated_sd.records import read_completions

app = typer.Typer()
app.command()(evaluate_command)


@pytest.fixture
def arguments(model_path, tmp_path):
    suite = tmp_path / "numbers.jsonl"
    words = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    rows = [{"problem": f"question {a} plus {b}", "answer": a, "id": f"{a} {b}"} for a in words for b in words]
    suite.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def build(output, *more):
        settings = ("--n", "2", "--max-new-tokens", "40", "--batch-size", "8", "--seed", "4")
        return list(map(str, ("--model", model_path, "--suite", suite, *settings, "--output", output, *more)))

    return build


def lines(path):
    return path.read_bytes().count(b"\n") if path.is_file() else 0


@pytest.mark.parametrize("thresholds", [(1,), pytest.param((1, 40, 120), marks=pytest.mark.slow)])
def test_kill_and_resume(arguments, tmp_path, thresholds):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    counts = [0]
    for threshold in thresholds:  # killed as soon as so many samples are there
        more = ("--if-exists", "resume") if killed.is_dir() else ()
        command = [sys.executable, "-m", "calibrated_sd.cli.main", "evaluate", *arguments(killed, *more)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while lines(killed / "completions.jsonl") < threshold and process.poll() is None:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        counts.append(lines(killed / "completions.jsonl"))
        assert not (killed / "metrics.json").exists()
    assert counts == sorted(set(counts))  # each time something new
    assert counts[-1] < 200  # and never everything

    assert CliRunner().invoke(app, arguments(straight)).exception is None
    assert CliRunner().invoke(app, arguments(killed, "--if-exists", "resume")).exception is None
    rows = read_completions(killed / "completions.jsonl")  # refuses a sample that occurs twice
    assert len(rows) == 100 * 2
    assert (killed / "completions.jsonl").read_bytes() == (straight / "completions.jsonl").read_bytes()
    suites = [json.loads((folder / "metrics.json").read_text())["suites"] for folder in (straight, killed)]
    assert suites[0] == suites[1]
