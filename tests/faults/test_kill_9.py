"""`kill -9` at random moments: resuming loses nothing, repeats nothing, and ends where the straight run ends.

The suite kills each command a few times. The campaign is the same with more points:
`CSD_KILL_POINTS=14 pytest -m study tests/faults/test_kill_9.py` kills each of the four commands 14 times.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from counted import COUNTED
from fault_kit import digest, trained

CSD = [sys.executable, "-m", "calibrated_sd.cli.main"]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
POINTS = int(os.environ.get("CSD_KILL_POINTS", "14"))
IN_A_ROW = 3
"""Kills of one and the same folder before it may end."""

TRAIN = """# Four steps of a calibrated run, a checkpoint after each
model: organism
problems: organism
n_problems: 4
grader: boxed
distillation_mode: full_logits
distillation_alpha: 0.5
teacher_model_kind: ema
calibration_method: mix_to_floor
calibration_strength: 1.0
max_steps: 6
learning_rate: 5.0e-4
num_generations: 4
per_device_train_batch_size: 8
max_completion_length: 64
use_cpu: true
bf16: false
gradient_checkpointing: false
logging_steps: 1
save_steps: 1
save_total_limit: 2
report_to: none
output_dir: unused
"""
SWEEP = """# Two strengths, two steps
base: train.yaml
settings: {max_steps: 2}
grid: {calibration_strength: [0.5, 1.0]}
landmarks: [base]
evaluation: {eval_problems: 4, eval_samples: 1, max_new_tokens: 48}
workers: 1
"""


@dataclass(frozen=True)
class Subject:
    """A command, and what of its folder has to be equal in the end."""

    arguments: tuple[str, ...]
    outcome: Callable[[Path], Any]


def evaluated(folder: Path) -> Any:
    return digest(folder / "completions.jsonl"), json.loads((folder / "metrics.json").read_text())["suites"]


def swept(folder: Path) -> Any:
    return digest(folder / "results.csv")


def reproduced(folder: Path) -> Any:
    claims = json.loads((folder / "claims.json").read_text())["claims"]
    return [(claim["id"], claim["verdict"], claim["ours"]) for claim in claims], digest(folder / "summary.csv")


SUBJECTS = {
    "train": Subject(("train", "--config", "train.yaml"), trained),
    "evaluate": Subject(
        (
            "evaluate",
            "--model",
            "organism",
            "--suite",
            "organism",
            "--n",
            "2",
            "--limit",
            "24",
            "--max-new-tokens",
            "96",
        ),
        evaluated,
    ),
    "sweep": Subject(("sweep", "--config", "sweep.yaml"), swept),
    "reproduce": Subject(("reproduce", "--quick"), reproduced),
}


def command(subject: Subject, output: Path, *more: str) -> list[str]:
    return [*CSD, *subject.arguments, "--output", str(output), *more]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.yaml").write_text(TRAIN, encoding="utf-8")
    (tmp_path / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
    return tmp_path


def start(words: list[str], output: Path) -> tuple[subprocess.Popen[str], float]:
    """Start a command; returns it when it has written something, or has ended, and the seconds that this took."""
    since, clock = time.time(), time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    while process.poll() is None and not wrote_since(output, since):
        time.sleep(0.02)
    return process, time.monotonic() - clock


def wrote_since(output: Path, since: float) -> bool:
    for path in output.rglob("*"):
        try:
            if path.stat().st_mtime > since:
                return True
        except FileNotFoundError:  # a temporary file that has just got its name
            return True
    return False


def kill_and_resume(name: str, folder: Path, points: int, seed: int, count: Callable[[str, Any], None]) -> None:
    """Kill the command `points` times, `IN_A_ROW` times per output folder, and compare with a straight run.

    Each kill comes after the first write of its process: before it, imports are what is killed.
    """
    subject, rng = SUBJECTS[name], random.Random(f"{name}/{seed}")
    killed = folders = 0
    try:
        clock = time.monotonic()
        process, begun = start(command(subject, folder / "straight"), folder / "straight")
        _, error = process.communicate()
        assert process.returncode == 0, error[-2000:]
        writes = time.monotonic() - clock - begun
        expected = subject.outcome(folder / "straight")
        while killed < points:
            output, told = folder / f"killed_{folders}", []
            folders += 1
            assert folders <= 3 * points + 3, "the command ends before it can be killed"
            for _ in range(min(IN_A_ROW, points - killed)):
                wait = rng.uniform(0, writes)
                process, _ = start(command(subject, output, "--if-exists", "resume"), output)
                try:
                    _, error = process.communicate(timeout=wait)
                    assert process.returncode == 0, f"after {told}: {error[-2000:]}"
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.communicate()
                    killed += 1
                    told.append(round(wait, 2))
            done = subprocess.run(
                command(subject, output, "--if-exists", "resume"), capture_output=True, text=True, env=ENVIRONMENT
            )
            assert done.returncode == 0, f"killed after {told} s: {done.stderr[-2000:]}"
            assert subject.outcome(output) == expected, f"killed after {told} s"
            assert not list(output.rglob("*.tmp")), f"killed after {told} s"
    finally:  # a campaign that fails says so in its line
        count(COUNTED, [f"kill -9 of csd {name}", killed])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_a_killed_command_ends_as_the_straight_one(name, folder, record_property):
    kill_and_resume(name, folder, points=2, seed=0, count=record_property)


@pytest.mark.study
@pytest.mark.parametrize("name", SUBJECTS)
def test_the_campaign(name, folder, record_property):
    kill_and_resume(name, folder, points=POINTS, seed=1, count=record_property)
