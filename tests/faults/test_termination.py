"""SIGTERM as a scheduler sends it: a checkpoint between two steps, exit code 143, and a run that goes on as if nothing had been."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from transformers import TrainerCallback

from calibrated_sd.trainers.finished import last_finished_checkpoint
from calibrated_sd.trainers.processes import any_process
from calibrated_sd.trainers.stop_on_signal import StopOnSignal
from finished_runs import finish


class SendSigterm(TrainerCallback):
    """As the scheduler would, while a step is computed."""

    def __init__(self, step):
        self.step = step

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def test_training_stops_between_steps_and_resumes_as_the_straight_run(make_trainer, tmp_path):
    straight = finish(make_trainer(max_steps=4))
    before = signal.getsignal(signal.SIGTERM)
    stopped, stop = make_trainer(max_steps=4), StopOnSignal()
    stopped.add_callback(stop)
    stopped.add_callback(SendSigterm(1))
    stopped.train()
    assert stop.stopped_at == stopped.state.global_step == 2
    assert signal.getsignal(signal.SIGTERM) is before
    checkpoint = last_finished_checkpoint(tmp_path / "out")
    assert checkpoint.name == "checkpoint-2"
    resumed = finish(make_trainer(max_steps=4), resume_from_checkpoint=str(checkpoint))
    assert resumed.differs_from(straight) == []


def test_without_a_signal_nothing_changes(make_trainer, tmp_path):
    straight, listening, stop = finish(make_trainer()), make_trainer(), StopOnSignal()
    listening.add_callback(stop)
    assert finish(listening).differs_from(straight) == []
    assert stop.stopped_at is None
    assert last_finished_checkpoint(tmp_path / "out") is None


def test_training_that_raised_gives_the_signal_back_at_the_next_end():
    before, stop = signal.getsignal(signal.SIGTERM), StopOnSignal()
    stop.on_train_begin(None, None, None)  # an exception, and no end
    stop.on_train_begin(None, None, None)
    stop.on_train_end(None, None, None)
    assert signal.getsignal(signal.SIGTERM) is before


def test_any_process_stops_all(monkeypatch):
    """The others learn of it after the same step, in one reduction."""
    seen = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda asked, op: (seen.append(int(asked)), asked.fill_(1)))
    assert any_process(False, torch.device("cpu"))
    assert seen == [0]


MAIN = """
    import sys, time, os, signal
    from calibrated_sd.cli import main as cli
    def command():
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            print("cleaned", flush=True)
    cli.app = command
    cli.main()
"""


@pytest.fixture
def command():
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(MAIN)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def test_a_command_cleans_up_and_says_how_to_go_on(command):
    command.send_signal(signal.SIGTERM)
    out, err = command.communicate(timeout=60)
    assert command.returncode == 143
    assert out == "cleaned\n"
    assert "--if-exists resume" in err
    assert "Traceback" not in err
