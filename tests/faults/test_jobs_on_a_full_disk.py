"""Jobs in processes of their own, when nobody can write any more: all end, and the sentence is that of the disk.

The campaign fills the disk at many points: `pytest -m study tests/faults/test_jobs_on_a_full_disk.py`.
"""

import json
import os
import subprocess
import sys
import time
import warnings

import pytest

from calibrated_sd.errors import OutputError
from calibrated_sd.experiments import runner, worker
from calibrated_sd.experiments.runner import FAILED, Job, run_jobs
from counted import COUNTED
from fault_kit import Disk, digest, mounted, run_csd, train_recipe, trained, whole_json
from stand_in_worker import WORKER

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such mounts")

CSD = [sys.executable, "-m", "calibrated_sd.cli.main"]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
SWEEP = """# One strength, two steps
base: organism/sdpo_projection
settings: {max_steps: 2, per_device_train_batch_size: 16, gradient_accumulation_steps: 1, max_completion_length: 32}
grid: {calibration_strength: [0.5]}
landmarks: [base]
seeds: [0]
evaluation: {eval_problems: 2, eval_samples: 1, max_new_tokens: 32}
workers: 1
"""


@pytest.fixture
def disk(tmp_path):
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=64m", "none") as path:
        if path is None:
            pytest.skip("mounting a small disk is not permitted here")
        yield Disk(path)


def test_all_jobs_are_ended_although_their_states_cannot_be_written(tmp_path, monkeypatch):
    begun, start = [], runner._start
    monkeypatch.setattr(runner, "worker_command", lambda folder: [sys.executable, "-c", WORKER, str(folder)])

    def remember(job):
        begun.append(start(job))
        return begun[-1]

    monkeypatch.setattr(runner, "_start", remember)

    def full(line, share):
        if len(begun) == 3:
            monkeypatch.setattr(runner, "set_status", refuse)
            raise OutputError("archive.json.gz cannot be written: the disk is full.")

    def refuse(*args, **kwargs):
        raise OutputError("run.json cannot be written: the disk is full.")

    jobs = [Job(tmp_path / "runs" / str(i), {"do": "wait"}) for i in range(3)]
    since = time.monotonic()
    with pytest.raises(OutputError, match=r"archive\.json\.gz"):
        run_jobs(jobs, workers=3, progress=full)
    assert time.monotonic() - since < 50
    assert len(begun) == 3
    assert all(process.poll() is not None for process in begun)


def test_a_job_that_cannot_write_its_state_says_why(disk, monkeypatch, capsys):
    """What happened is in the log, and the one who started it sees the exit code."""
    folder = disk.path / "runs" / "a" / "seed_0"
    folder.mkdir(parents=True)
    recipe = {"kind": "arm", "problems": "organism"}
    (folder / "run.json").write_text(json.dumps({"schema_version": 1, "status": "running", "recipe": recipe}))

    def train(folder, recipe):
        disk.leave(0)
        raise RuntimeError("the sun went out")

    monkeypatch.setattr(worker, "train_arm", train)
    monkeypatch.setattr(worker.torch, "set_num_threads", lambda n: None)
    with pytest.raises(RuntimeError, match="the sun went out"):
        worker.run_job(folder)
    assert "the sun went out" in capsys.readouterr().err
    assert json.loads((folder / "run.json").read_text())["status"] != FAILED


@pytest.mark.study
@pytest.mark.parametrize("room", [0, 40, 2000, 6000, 12000, 17000])
def test_a_sweep_with_its_real_jobs(disk, tmp_path, room):
    (tmp_path / "sweep.yaml").write_text(SWEEP)

    def sweep(out, *more):
        words = ["sweep", "--config", str(tmp_path / "sweep.yaml"), "--output", str(out), *more]
        return subprocess.run([*CSD, *words], capture_output=True, text=True, env=ENVIRONMENT, check=False)

    done = sweep(tmp_path / "straight")
    assert done.returncode == 0, done.stderr
    out = disk.path / "out"
    disk.leave(room)
    done = sweep(out)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    whole_json(out)
    disk.grow()
    done = sweep(out, "--if-exists", "resume" if (out / "manifest.json").exists() else "raise")
    assert done.returncode == 0, done.stderr
    assert digest(out / "results.csv") == digest(tmp_path / "straight" / "results.csv")


@pytest.mark.study
def test_training_with_any_room(disk, model_path, tmp_path, capsys, record_property):
    """Every eight KiB from nothing to what the run takes."""
    recipe = train_recipe(tmp_path, model_path)
    assert run_csd(capsys, "train", "--config", recipe, "--output", tmp_path / "out").code == 0
    expected, room, refused = trained(tmp_path / "out"), 0, 0
    try:
        while True:
            out = disk.path / f"out_{room}"
            disk.leave(room)
            done = run_csd(capsys, "train", "--config", recipe, "--output", out)
            if done.code == 0:
                break
            done.refused(out)
            refused += 1
            whole_json(out, cut_state=True)
            disk.grow()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                policy = "resume" if (out / "manifest.json").exists() else "raise"
                assert run_csd(capsys, "train", "--config", recipe, "--output", out, "--if-exists", policy).code == 0
            assert trained(out) == expected, room
            subprocess.run(["rm", "-rf", str(out)], check=True)
            room += 8
    finally:
        record_property(COUNTED, ["full disk under csd train", refused])
    assert refused > 20
