"""Engines in processes of their own: same samples, one writer, errors that arrive, and nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from calibrated_sd.errors import ConfigError
from calibrated_sd.evaluation.completions import record_completions
from calibrated_sd.evaluation.engine_workers import worker_environments
from calibrated_sd.evaluation.engines import EngineSettings, load_engine
from calibrated_sd.records import read_completions
from process_kit import take_interrupts

PROBLEMS = [
    {"suite": "s", "problem_id": word, "prompt": f"question {word} plus two", "answer": word}
    for word in ("one", "two", "three", "four", "five")
]


def record(settings, path, **options):
    with load_engine(settings) as engine:
        rows = record_completions(
            engine.model, engine.tokenizer, PROBLEMS, path, n=3, backend=engine.iterate, max_new_tokens=12, **options
        )
    return {(r["problem_id"], r["sample"]): r for r in rows}


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"  # nobody has asked for its exit code yet


def gone(pids, within_s=10.0):
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and any(map(is_alive, pids)):
        time.sleep(0.05)
    return not any(map(is_alive, pids))


def test_two_copies_make_what_one_makes_and_continue_it(model_path, tmp_path):
    one, path = EngineSettings(model=model_path), tmp_path / "two" / "completions.jsonl"
    straight = record(one, tmp_path / "one.jsonl")
    (tmp_path / "two").mkdir()
    kept = [line for i, line in enumerate((tmp_path / "one.jsonl").read_text().splitlines(True)) if i % 3]
    path.write_text("".join(kept))
    progress = []
    two = EngineSettings(model=model_path, data_parallel=2)
    assert record(two, path, on_progress=lambda *seen: progress.append(seen)) == straight
    assert path.read_text().startswith("".join(kept))
    assert len(read_completions(path)) == 15  # none twice: read_completions would refuse
    assert (progress[0], progress[-1]) == ((10, 15), (15, 15))


def test_one_engine_serves_several_jobs(model_path, fake_vllm):
    options = {"problem_ids": ["a", "b", "c"], "max_new_tokens": 6, "n": 4}
    prompts = ["wait", "maybe", "question one plus two"]
    with load_engine(EngineSettings(model=model_path, backend="vllm")) as engine:

        def made(**more):
            batches = engine.iterate(None, engine.tokenizer, prompts, **options, **more)
            return {(c.problem_id, c.sample): c for batch in batches for c in batch}

        first = made()
        next(engine.iterate(None, engine.tokenizer, prompts, **options, seed=9))  # given up after its first batch
        assert made(seed=5).keys() == first.keys()
        assert made() == first


def test_an_error_in_a_worker_is_the_users(model_path, fake_vllm):
    with pytest.raises(ConfigError, match="greater than the derived max_model_len"):
        load_engine(EngineSettings(model=model_path, backend="vllm", max_model_len=10**6))


@pytest.mark.slow
def test_a_worker_that_dies_leaves_what_is_finished(model_path, fake_vllm, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM_STEP_S", "0.3")
    monkeypatch.setenv("FAKE_VLLM_CHILDREN", str(tmp_path / "children"))
    settings, path = EngineSettings(model=model_path, backend="vllm"), tmp_path / "completions.jsonl"
    with load_engine(settings) as engine:
        (worker,) = engine.close.__self__.processes

        def kill_after_the_first(done, total):
            if done:
                worker.kill()

        options = {"n": 3, "max_new_tokens": 12, "on_progress": kill_after_the_first}
        with pytest.raises(ConfigError, match=r"Worker 0 .* \(exit code -9\).*--if-exists resume"):
            record_completions(None, engine.tokenizer, PROBLEMS, path, backend=engine.iterate, **options)
    children = [int(line) for line in (tmp_path / "children").read_text().split()]
    assert len(children) == 1
    assert gone([worker.pid, *children])
    assert 0 < len(read_completions(path)) < 15
    monkeypatch.setenv("FAKE_VLLM_STEP_S", "0")
    assert len(record(settings, path)) == 15


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_a_stopped_command(model_path, fake_vllm, tmp_path, monkeypatch, number):
    """Also where the command can do nothing about it any more."""
    monkeypatch.setenv("FAKE_VLLM_STEP_S", "0.3")
    monkeypatch.setenv("FAKE_VLLM_CHILDREN", str(tmp_path / "children"))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "calibrated_sd.cli.main", "evaluate", "--model", model_path, "--backend", "vllm"]
    command += ["--suite", "organism:heldout", "--limit", "9", "--n", "4", "--max-new-tokens", "4", "--output", out]
    with open(tmp_path / "said", "wb") as said:
        process = subprocess.Popen(
            list(map(str, command)), stdout=said, stderr=said, start_new_session=True, preexec_fn=take_interrupts
        )
    completions = out / "completions.jsonl"
    deadline = time.monotonic() + 60
    while not completions.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    children = [int(line) for line in (tmp_path / "children").read_text().split()]
    workers = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _parent(pid) == process.pid]
    assert len(workers) == 1
    assert all(map(is_alive, [*workers, *children]))
    os.kill(process.pid, number)  # this process only: its workers have to notice
    assert process.wait(30) == {signal.SIGINT: 130}.get(number, -number)
    assert gone([*workers, *children])
    assert 0 < len(read_completions(completions)) < 36


def _parent(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


class TestGpusOfTheWorkers:
    @pytest.fixture
    def gpus(self, monkeypatch):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    def of(self, copies, each=1):
        settings = EngineSettings(model="m", backend="vllm", data_parallel=copies, tensor_parallel=each)
        return worker_environments(settings)

    def test_each_copy_has_its_own(self, gpus):
        gpus(8)
        assert self.of(4, 2) == [{"CUDA_VISIBLE_DEVICES": pair} for pair in ("0,1", "2,3", "4,5", "6,7")]
        assert self.of(2) == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
        assert self.of(1, 8) == [{}]

    def test_of_those_that_are_visible(self, gpus, monkeypatch):
        gpus(2)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-3a")
        assert self.of(2) == [{"CUDA_VISIBLE_DEVICES": "5"}, {"CUDA_VISIBLE_DEVICES": "GPU-3a"}]

    def test_too_few(self, gpus):
        gpus(4)
        with pytest.raises(ConfigError, match=r"3 copies .* 2 GPUs each need 6 GPUs, but 4 are visible"):
            self.of(3, 2)

    def test_none(self, gpus):
        gpus(0)
        assert self.of(2) == [{}, {}]
