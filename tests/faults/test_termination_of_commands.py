"""SIGTERM to the commands that run for hours, as a scheduler sends it: exit code 143, and a run that can go on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from fault_kit import digest, train_recipe, trained, whole_json

CSD = [sys.executable, "-m", "calibrated_sd.cli.main"]
TESTS = str(Path(__file__).parents[1])
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1", "PYTHONPATH": TESTS}
ENVIRONMENT["PYTHONPATH"] = os.pathsep.join(filter(None, [TESTS, os.environ.get("PYTHONPATH")]))
EVALUATE = ["evaluate", "--model", "organism", "--suite", "organism", "--n", "2", "--limit", "32"]
EVALUATE += ["--max-new-tokens", "96", "--batch-size", "4"]

STUDY = Path(__file__).parents[2] / "recipes" / "organism" / "reproduce.yaml"


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


def small_study(folder):
    """The shipped study with two of its arms, and a profile of seconds."""
    content = yaml.safe_load(STUDY.read_text(encoding="utf-8"))
    content["arms"] = {name: content["arms"][name] for name in ("sdpo", "sdpo_stripped")}
    content |= {"best": "sdpo_stripped", "workers": 1}
    content["trainer"]["max_completion_length"] = content["max_new_tokens"] = 48
    counts = {key: 4 for key in content["profiles"]["quick"] if key.endswith(("_problems", "_screen"))}
    content["profiles"] = {"quick": {**content["profiles"]["quick"], **counts}}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return "reproduce", "--config", path, "--quick"


def small_sweep(folder):
    """Two strengths, two steps."""
    base = {"n_problems": 4, "num_generations": 4, "per_device_train_batch_size": 8, "max_completion_length": 48}
    base |= {"max_steps": 2, "learning_rate": 5.0e-4, "use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    evaluation = {"eval_problems": 4, "eval_samples": 1, "max_new_tokens": 48}
    content = {"base": base, "grid": {"calibration_strength": [0.5, 1.0]}, "evaluation": evaluation, "workers": 1}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return "sweep", "--config", path


def processes_of(folder):
    """Ids of processes with this folder on their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "cmdline").read_bytes():
                found.append(process.name)
        except OSError:  # ended meanwhile
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sweep", "reproduce"])
def test_a_study_ends_its_jobs_and_goes_on(name, tmp_path):
    """The signal comes while the second run trains: its process ends, too, and the first is not repeated."""
    words = small_sweep(tmp_path) if name == "sweep" else small_study(tmp_path)
    table = "results.csv" if name == "sweep" else "summary.csv"
    straight, out = tmp_path / "straight", tmp_path / "out"
    done = run(*words, "--output", straight)
    assert done.returncode == 0, done.stderr
    logs = []

    def second_run_trains():
        logs[:] = sorted(out.glob("runs/*/seed_*/train.jsonl"), key=lambda log: log.stat().st_mtime_ns)
        return len(logs) == 2

    terminate_once(second_run_trains, *words, "--output", out)
    assert processes_of(out) == []
    assert not (out / table).exists()
    assert (out / "archive.json.gz").exists()
    whole_json(out)
    first = logs[0].parent
    finished = {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    done = run(*words, "--output", out, "--if-exists", "resume")
    assert done.returncode == 0, done.stderr
    assert digest(out / table) == digest(straight / table)
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()} == finished
