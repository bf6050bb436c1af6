"""One writer for each output folder; the lock ends with the process, however it ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

from calibrated_sd.errors import OutputError
from calibrated_sd.records import prepare_output, write_json
from calibrated_sd.records.folder_lock import _held, lock_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no flock")

HOLD = """
import sys, time
from calibrated_sd.records.folder_lock import lock_folder
lock_folder(sys.argv[1])
print("held", flush=True)
time.sleep(120)
"""


@pytest.fixture(autouse=True)
def given_back():
    """What a test locked is given back after it, as its process does not end."""
    before = set(_held)
    yield
    for key in set(_held) - before:
        os.close(_held.pop(key))


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_and_changes_nothing(holder, tmp_path):
    write_json(tmp_path / "manifest.json", {"schema_version": 1, "kind": "sweep"})
    for if_exists in ("resume", "overwrite"):
        with pytest.raises(OutputError, match="Another process is writing"):
            prepare_output(tmp_path, if_exists)
    assert [entry.name for entry in tmp_path.iterdir()] == ["manifest.json"]


def test_kill_9_leaves_no_lock_behind(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    prepare_output(tmp_path)


def test_one_process_may_prepare_a_folder_again(tmp_path):
    before = len(_held)
    prepare_output(tmp_path / "out")
    prepare_output(tmp_path / "out")
    lock_folder(tmp_path / "out")
    assert len(_held) == before + 1


def test_two_folders_are_two_locks(holder, tmp_path):
    prepare_output(tmp_path / "inside")


def test_a_folder_without_a_lock_is_used_without_one(tmp_path, monkeypatch):
    """As on a network file system that knows no locks."""

    def refuse(*args):
        raise OSError(45, "not supported")

    monkeypatch.setattr("calibrated_sd.records.folder_lock.fcntl.flock", refuse)
    assert prepare_output(tmp_path / "out").is_dir()


ORPHAN = """
import subprocess, sys, time
from calibrated_sd.experiments.worker import end_with_parent
child = subprocess.Popen([sys.executable, "-c",
    "import sys, time; from calibrated_sd.experiments.worker import end_with_parent; end_with_parent(); print('ready', flush=True); time.sleep(120)"],
    stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(120)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the system call is Linux's")
def test_a_worker_does_not_outlive_the_command_that_started_it(tmp_path):
    command = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True)
    worker = int(command.stdout.readline())
    assert alive(worker)
    command.kill()
    command.wait()
    command.stdout.close()
    deadline = time.monotonic() + 30
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
