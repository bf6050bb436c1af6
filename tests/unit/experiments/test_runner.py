"""Jobs: statuses, skipping, failures; the worker itself is tested through `csd reproduce` in tests/recipes."""

import sys

import pytest

from calibrated_sd.errors import DataError
from calibrated_sd.experiments import runner
from calibrated_sd.experiments.provenance import code_state
from calibrated_sd.experiments.runner import Job, run_jobs, set_status, status_of, worker_environment
from calibrated_sd.records import read_json
from stand_in_worker import WORKER


@pytest.fixture(autouse=True)
def small_worker(monkeypatch, tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    real = runner.subprocess.Popen

    def start(command, **options):
        if command[:3] != [sys.executable, "-m", "calibrated_sd.experiments.worker"]:
            return real(command, **options)  # git, asked for the commit
        return real([sys.executable, str(script), command[-1]], **options)

    monkeypatch.setattr(runner.subprocess, "Popen", start)


def job(tmp_path, name, do="work", **recipe):
    return Job(tmp_path / "runs" / name / "seed_0", {"do": do, **recipe})


def test_all_jobs_are_done_and_a_failure_does_not_stop_the_others(tmp_path):
    jobs = [job(tmp_path, "a"), job(tmp_path, "b", "crash"), job(tmp_path, "c")]
    lines = []
    statuses = run_jobs(jobs, workers=2, poll_s=0.05, progress=lambda line, share: lines.append((line, share)))
    assert [statuses[j.folder] for j in jobs] == ["ok", "failed", "ok"]
    assert "exit code 3" in read_json(jobs[1].folder / "run.json")["error"]
    assert lines[-1][1] == pytest.approx(1.0)
    assert read_json(jobs[0].folder / "run.json")["code"] == list(code_state())  # which code made it


def test_finished_jobs_are_skipped_and_failed_ones_tried_again(tmp_path):
    a, b = job(tmp_path, "a"), job(tmp_path, "b", "crash")
    run_jobs([a, b], poll_s=0.05)
    run_jobs([a, b], poll_s=0.05)
    assert (a.folder / "made.txt").read_text() == "x"  # once
    assert status_of(b.folder) == "failed"


def test_results_of_another_recipe_are_refused(tmp_path):
    run_jobs([job(tmp_path, "a", steps=1)], poll_s=0.05)
    with pytest.raises(DataError, match="another recipe"):
        run_jobs([job(tmp_path, "a", steps=2)], poll_s=0.05)


def test_an_interrupt_marks_what_was_running_and_keeps_what_is_done(tmp_path):
    a, b = job(tmp_path, "a"), job(tmp_path, "b")
    run_jobs([a], poll_s=0.05)

    def interrupt(line, share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs([a, b], poll_s=0.05, progress=interrupt)
    assert status_of(a.folder) == "ok"
    assert status_of(b.folder) == "cancelled"


def test_status_keeps_other_fields(tmp_path):
    set_status(tmp_path, "running", recipe={"x": 1})
    set_status(tmp_path, "ok", wall_time_s=2.0)
    assert read_json(tmp_path / "run.json") == {"status": "ok", "recipe": {"x": 1}, "wall_time_s": 2.0}


def test_the_organisms_workers_keep_their_memory():
    """glibc gives large blocks back at once, unless told otherwise; a real model's worker is left as it is."""
    own = worker_environment({"problems": "organism"})
    assert int(own["MALLOC_TRIM_THRESHOLD_"]) > int(own["MALLOC_MMAP_THRESHOLD_"]) >= 2**20
    assert "MALLOC_TRIM_THRESHOLD_" not in worker_environment({"problems": "file.jsonl"})
