"""A clock that is set while something runs: steps decide what is newest, and no duration is negative."""

import itertools
import json
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import calibrated_sd
from calibrated_sd.records import write_json
from calibrated_sd.records.archive import archived_states, write_archive_file
from calibrated_sd.trainers import JsonlLogCallback
from calibrated_sd.trainers.checkpoint_order import CheckpointOrder
from calibrated_sd.trainers.finished import STATE, last_finished_checkpoint, order_by_step

HOUR = 3600.0


@pytest.fixture
def clock(monkeypatch):
    """`clock.offset` is added to what the clock says; what cannot be set stays."""
    real, state = time.time, SimpleNamespace(offset=0.0)
    monkeypatch.setattr(time, "time", lambda: real() + state.offset)
    return state


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_durations_of_a_training_during_which_the_clock_was_set(make_trainer, tmp_path, clock, jump):
    path = tmp_path / "train.jsonl"
    trainer = make_trainer(callbacks=[JsonlLogCallback(path)], max_steps=2)
    step = trainer.training_step

    def set_clock(*args, **kwargs):
        clock.offset = jump
        return step(*args, **kwargs)

    trainer.training_step = set_clock
    since = time.monotonic()
    trainer.train()
    took = time.monotonic() - since
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    durations = {key: value for line in lines for key, value in line.items() if "time" in key or "_per_second" in key}
    assert len(durations) >= 3
    assert all(value is None or value >= 0 for value in durations.values()), durations
    last = lines[-1]
    assert 0 < last["train_runtime"] <= took
    assert last["train_steps_per_second"] == pytest.approx(2 / last["train_runtime"], rel=0.05)


def test_a_duration_that_cannot_be_known_is_null(tmp_path):
    callback = JsonlLogCallback(tmp_path / "train.jsonl")
    callback.on_log(
        None,
        SimpleNamespace(global_step=1, max_steps=2, is_world_process_zero=True),
        None,
        logs={
            "eval_loss": -1.0,
            "eval_runtime": -3599.0,
            "eval_samples_per_second": -0.1,
            "eval_steps_per_second": 0.0,
        },
    )
    line = json.loads((tmp_path / "train.jsonl").read_text())
    assert line == {
        **{"step": 1, "eval_loss": -1.0, "eval_runtime": None, "eval_samples_per_second": None},
        "eval_steps_per_second": 0.0,
    }


def checkpoints(folder):
    return sorted((path.name for path in folder.glob("checkpoint-*")), key=lambda name: int(name.split("-")[1]))


@pytest.mark.parametrize(("guarded", "left"), [(True, ["checkpoint-3", "checkpoint-4"]), (False, None)])
def test_the_oldest_checkpoint_goes_whatever_the_clock_said(make_trainer, tmp_path, guarded, left):
    """After two checkpoints the clock is set back by an hour: transformers alone deletes the new ones."""
    out = tmp_path / "out"
    trainer = make_trainer(max_steps=4, save_strategy="steps", save_steps=1, save_total_limit=2)
    save, saved = trainer._save_checkpoint, itertools.count(1)

    def save_and_age(model, trial):
        save(model, trial)
        if next(saved) <= 2:  # as if they had been written by a clock that was an hour ahead
            for path in out.glob("checkpoint-*"):
                os.utime(path, (time.time() + HOUR, time.time() + HOUR))

    trainer._save_checkpoint = save_and_age
    if guarded:
        trainer.add_callback(CheckpointOrder())
    trainer.train()
    if guarded:
        assert checkpoints(out) == left
    else:
        assert checkpoints(out) != ["checkpoint-3", "checkpoint-4"], (
            "transformers has mended this: remove CheckpointOrder"
        )


def test_times_of_change_follow_the_steps(tmp_path):
    now = time.time()
    for step, age in ((1, -HOUR), (2, 5 * HOUR), (10, 0.0), (30, 9 * HOUR), (11, 3 * HOUR)):
        folder = tmp_path / f"checkpoint-{step}"
        write_json(folder / STATE, {"global_step": step})
        os.utime(folder, (now - age, now - age))
    order_by_step(tmp_path, 11)
    by_time = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime)
    assert [path.name for path in by_time] == [f"checkpoint-{step}" for step in (30, 1, 2, 10, 11)]
    assert not (tmp_path / "checkpoint-11" / STATE).exists()  # it is about to be written anew
    times = [path.stat().st_mtime for path in by_time]
    assert all(later - earlier >= 1.0 for earlier, later in itertools.pairwise(times))
    order_by_step(tmp_path, 10, saved_now=False)
    assert (tmp_path / "checkpoint-10" / STATE).exists()  # nothing will replace it


def test_the_newest_checkpoint_is_that_of_the_last_step(make_trainer, tmp_path):
    out = tmp_path / "out"
    make_trainer(max_steps=3, save_strategy="steps", save_steps=1).train()
    for step in (1, 2, 3):
        os.utime(out / f"checkpoint-{step}", (1e9 - step * HOUR, 1e9 - step * HOUR))
    assert last_finished_checkpoint(out).name == "checkpoint-3"


def test_an_archive_is_read_anew_although_its_time_did_not_move(tmp_path, monkeypatch):
    from calibrated_sd.records.archive import ARCHIVE, ArchivedRun

    def write(status):
        write_archive_file(tmp_path / ARCHIVE, [ArchivedRun("a/seed_0", status, {"arm": "a"}, None, 1.0, {}, [])])
        os.utime(tmp_path / ARCHIVE, (1e9, 1e9))

    write("ok")
    assert archived_states(tmp_path)["a/seed_0"]["status"] == "ok"
    write("no")
    assert archived_states(tmp_path)["a/seed_0"]["status"] == "no"


CLOCKS = {
    "trainers/finished.py": 1,  # times of change of files, which are the clock's
    "trainers/callbacks.py": 3,  # to notice that the clock was set
}


def test_nothing_else_asks_the_clock():
    """Durations come from clocks that cannot be set; dates from nowhere, so that equal runs give equal files."""
    root = Path(calibrated_sd.__file__).parent
    found = {
        path.relative_to(root).as_posix(): len(re.findall(r"time\.time\(|datetime\.|\.getmtime\(|strftime", text))
        for path in root.rglob("*.py")
        if (text := path.read_text(encoding="utf-8"))
    }
    assert {name: n for name, n in found.items() if n} == CLOCKS
