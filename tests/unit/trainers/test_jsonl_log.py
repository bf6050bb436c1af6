"""`train.jsonl` holds every logged step once, however the run went."""

import json
from types import SimpleNamespace

from calibrated_sd.trainers import JsonlLogCallback


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def state(step, main=True):
    return SimpleNamespace(global_step=step, max_steps=9, log_history=[], is_world_process_zero=main)


def test_one_line_per_log_with_the_keys_as_logged(make_trainer, tmp_path):
    path = tmp_path / "runs" / "arm" / "train.jsonl"
    trainer = make_trainer(callbacks=[JsonlLogCallback(path)])
    trainer.train()
    written = lines(path)
    assert written == [{**entry} for entry in trainer.state.log_history]
    assert [line["step"] for line in written] == [1, 2, 3, 3]
    assert "calibration/true_kl" in written[0]


def test_a_resumed_run_drops_the_lines_after_its_checkpoint(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"step": 1, "loss": 0.1}\n{"step": 2, "loss": 0.2}\n{"step": 3, "loss": 0.3}\n{"step": 4, "lo')
    callback = JsonlLogCallback(path)
    callback.on_train_begin(None, state(2), None)
    callback.on_log(None, state(3), None, logs={"loss": 0.31})
    assert lines(path) == [{"step": 1, "loss": 0.1}, {"step": 2, "loss": 0.2}, {"step": 3, "loss": 0.31}]


def test_a_lost_file_is_made_again_from_the_checkpoint(tmp_path):
    path, resumed = tmp_path / "train.jsonl", state(2)
    resumed.log_history = [{"step": 1, "loss": 0.1}, {"step": 2, "loss": 0.2}]
    JsonlLogCallback(path).on_train_begin(None, resumed, None)
    assert lines(path) == resumed.log_history


def test_a_run_from_the_start_starts_the_file_anew(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"step": 1, "loss": 9.0}\n')
    JsonlLogCallback(path).on_train_begin(None, state(0), None)
    assert lines(path) == []


def test_numbers_that_json_lacks_become_null(tmp_path):
    callback = JsonlLogCallback(tmp_path / "train.jsonl")
    callback.on_log(None, state(1), None, logs={"loss": float("nan"), "grad_norm": float("inf"), "epoch": 0.5})
    assert lines(callback.path) == [{"step": 1, "loss": None, "grad_norm": None, "epoch": 0.5}]


def test_other_processes_write_nothing(tmp_path):
    callback = JsonlLogCallback(tmp_path / "train.jsonl")
    callback.on_train_begin(None, state(0, main=False), None)
    callback.on_log(None, state(1, main=False), None, logs={"loss": 0.1})
    assert not callback.path.exists()
