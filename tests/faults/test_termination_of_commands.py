"""SIGTERM to the commands that run for hours, as a scheduler sends it: exit code 143, and a run that can go on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fault_kit import train_recipe, trained, whole_json

CSD = [sys.executable, "-m", "calibrated_sd.cli.main"]
TESTS = str(Path(__file__).parents[1])
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1", "PYTHONPATH": TESTS}
ENVIRONMENT["PYTHONPATH"] = os.pathsep.join(filter(None, [TESTS, os.environ.get("PYTHONPATH")]))
EVALUATE = ["evaluate", "--model", "organism", "--suite", "organism", "--n", "2", "--limit", "32"]
EVALUATE += ["--max-new-tokens", "96", "--batch-size", "4"]


def run(*words):
    return subprocess.run([*CSD, *map(str, words)], capture_output=True, text=True, env=ENVIRONMENT, check=False)


def terminate_once(written, *words):
    """Start a command, send SIGTERM when `written()` is true, and return how it ended."""
    process = subprocess.Popen(
        [*CSD, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    while not written():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    assert process.returncode == 143, (out, err)
    assert "--if-exists resume" in out + err
    return out + err


@pytest.mark.slow
def test_train(tmp_path, model_path):
    recipe, out = train_recipe(tmp_path, model_path, max_steps=12), tmp_path / "out"
    assert run("train", "--config", recipe, "--output", tmp_path / "straight").returncode == 0
    log = out / "train.jsonl"
    terminate_once(
        lambda: log.exists() and log.read_text().count('"loss"') >= 2, "train", "--config", recipe, "--output", out
    )
    assert not (out / "model").exists()
    assert list(out.glob("checkpoint-*/trainer_state.json"))
    whole_json(out)
    assert run("train", "--config", recipe, "--output", out, "--if-exists", "resume").returncode == 0
    assert trained(out) == trained(tmp_path / "straight")


@pytest.mark.slow
def test_evaluate(tmp_path):
    straight, out = tmp_path / "straight", tmp_path / "out"
    assert run(*EVALUATE, "--output", straight).returncode == 0
    found = out / "completions.jsonl"
    terminate_once(lambda: found.exists() and found.stat().st_size > 0, *EVALUATE, "--output", out)
    assert not (out / "metrics.json").exists()
    assert run(*EVALUATE, "--output", out, "--if-exists", "resume").returncode == 0
    assert found.read_bytes() == (straight / "completions.jsonl").read_bytes()
