"""A disk that fills up: one sentence that names the file, nothing half-written, and a run that goes on when there is room."""

import errno
import sys
import warnings

import pytest
import torch

from calibrated_sd.errors import OutputError
from calibrated_sd.records import append_jsonl, read_json, read_jsonl, write_json
from calibrated_sd.trainers.finished import last_finished_checkpoint
from fault_kit import Disk, digest, largest_file, mounted, run_csd, straight_run, trained, whole_json

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")


@pytest.fixture
def disk(tmp_path):
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=64m", "none") as path:
        if path is None:
            pytest.skip("mounting a small disk is not permitted here; the limit on file sizes is tested")
        yield Disk(path)


@pytest.fixture(scope="module")
def straight(model_path, tmp_path_factory):
    return straight_run(tmp_path_factory.mktemp("straight"), model_path)


def kib(folder):
    return sum(-(-path.stat().st_size // 4096) * 4 for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("checkpoints", "kept"),
    [(0.0, None), (0.15, None), (0.97, None), (1.7, "checkpoint-1"), (3.2, "checkpoint-3")],
    ids=["the manifest", "teacher", "state", "second checkpoint", "model"],
)
def test_training(disk, straight, capsys, checkpoints, kept):
    """The disk has room for so many checkpoints."""
    recipe, expected = straight
    out = disk.path / "out"
    disk.leave(int(checkpoints * kib(expected / "checkpoint-1")) + (16 if checkpoints else 0))
    run_csd(capsys, "train", "--config", recipe, "--output", out).refused(out, "the disk is full", "--if-exists resume")
    whole_json(out)
    assert not (out / "model").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says which one it passes over
        last = last_finished_checkpoint(out)
    assert (last and last.name) == kept
    disk.grow()
    policy = "resume" if (out / "manifest.json").exists() else "raise"
    done = run_csd(capsys, "train", "--config", recipe, "--output", out, "--if-exists", policy)
    assert done.code == 0, done.said
    assert trained(out) == trained(expected)
    assert read_json(out / "manifest.json")["kind"] == "train"


@pytest.mark.parametrize("size", [1500, 40_000])
def test_training_with_a_limit_on_file_sizes(straight, tmp_path, capsys, size):
    recipe, expected = straight
    out = tmp_path / "out"
    with largest_file(size):
        run_csd(capsys, "train", "--config", recipe, "--output", out).refused(out)
    whole_json(out)
    done = run_csd(capsys, "train", "--config", recipe, "--output", out, "--if-exists", "resume")
    assert done.code == 0, done.said
    assert trained(out) == trained(expected)


def test_a_finished_model_outlives_the_disk(disk, straight, capsys):
    """Going on for longer does not fit: the model that was there is there, whole."""
    recipe, _ = straight
    out = disk.path / "out"
    words = ("train", "--config", recipe, "--output", out, "--save_steps", 10)
    assert run_csd(capsys, *words).code == 0
    before = digest(out / "model" / "model.safetensors")
    disk.leave(40)
    again = run_csd(capsys, *words, "--if-exists", "resume", "--max_steps", 4, "--save_strategy", "no")
    again.refused(out / "model", "the disk is full")
    assert digest(out / "model" / "model.safetensors") == before
    assert sorted(path.name for path in out.glob("model*")) == ["model"]


@pytest.fixture
def evaluate(model_path, tmp_path_factory, capsys):
    suite = tmp_path_factory.getbasetemp() / "numbers.jsonl"
    suite.write_text("".join(f'{{"problem": "question {w} plus two", "answer": "1", "id": "{w}"}}\n' for w in "abcdef"))

    def run(out, *more):
        words = ("evaluate", "--model", model_path, "--suite", suite, "--n", 3, "--max-new-tokens", 12)
        return run_csd(capsys, *words, "--batch-size", 7, "--output", out, *more)

    return run


@pytest.fixture
def evaluated(evaluate, tmp_path_factory):
    """An evaluation without faults, made once."""
    folder = tmp_path_factory.getbasetemp() / "evaluated"
    if not folder.exists():
        assert evaluate(folder).code == 0
    return folder


@pytest.mark.parametrize("room", [0, 4, 12])
def test_evaluation(disk, evaluate, evaluated, room):
    out = disk.path / "out"
    disk.leave(room)
    evaluate(out).refused(out, "the disk is full")
    whole_json(out)
    disk.grow()
    policy = "resume" if (out / "manifest.json").exists() else "raise"
    assert evaluate(out, "--if-exists", policy).code == 0
    assert digest(out / "completions.jsonl") == digest(evaluated / "completions.jsonl")
    assert read_json(out / "metrics.json")["suites"] == read_json(evaluated / "metrics.json")["suites"]


@pytest.mark.parametrize("size", [100, 2000])
def test_evaluation_with_a_limit_on_file_sizes(evaluate, evaluated, tmp_path, size):
    out = tmp_path / "out"
    with largest_file(size):
        evaluate(out).refused(out, "larger than the system allows")
    whole_json(out)
    policy = "resume" if (out / "manifest.json").exists() else "raise"
    assert evaluate(out, "--if-exists", policy).code == 0
    assert digest(out / "completions.jsonl") == digest(evaluated / "completions.jsonl")


def test_lines_are_added_whole_or_not_at_all(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, [{"a": 1}])
    with largest_file(200), pytest.raises(OutputError, match=r"rows.jsonl cannot be written: the file would be larger"):
        append_jsonl(path, [{"a": 2}, {"text": "x" * 500}])
    assert read_jsonl(path) == [{"a": 1}]
    append_jsonl(path, [{"a": 3}])
    assert read_jsonl(path) == [{"a": 1}, {"a": 3}]


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_a_file_stays_as_it_was_wherever_the_system_refuses(tmp_path, monkeypatch, step):
    path = write_json(tmp_path / "m.json", {"a": 1})

    def refuse(*args):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as patched:
        patched.setattr(f"calibrated_sd.records.files.os.{step}", refuse)
        with pytest.raises(OutputError, match=r"m.json cannot be written: the disk quota is used up"):
            write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.json"]


def test_other_errors_keep_their_traceback(tmp_path, monkeypatch):
    """Only what the system refuses is a sentence; a mistake of the program is not disguised as one."""
    from calibrated_sd.records.disk_faults import describe_fault, disk_fault, named_saves

    for error in (
        FileNotFoundError(errno.ENOENT, "no", "x"),
        PermissionError(errno.EPERM, "Operation not permitted"),  # of a socket, say
        RuntimeError("shape mismatch"),
        TypeError("(os error 2)"),
    ):
        assert describe_fault(error) is None
        with pytest.raises(type(error)), named_saves(tmp_path):
            raise error
    elsewhere = PermissionError(errno.EACCES, "Permission denied", "/elsewhere/answers.json")  # e.g. of a reward
    with pytest.raises(PermissionError), named_saves(tmp_path):
        raise elsewhere
    assert describe_fault(elsewhere).startswith("/elsewhere/answers.json cannot be read or written: permission denied.")
    assert disk_fault(Exception("No space left on device (os error 28)")) == errno.ENOSPC


def test_torch_stopped_at_any_byte_is_a_fault_of_the_disk(tmp_path):
    """It says so in more than one way, depending on what was still in its buffers."""
    from calibrated_sd.records.disk_faults import named_saves

    torch.save({"a": torch.zeros(5000)}, tmp_path / "a.pt")
    whole, said = (tmp_path / "a.pt").stat().st_size, set()
    for size in [*range(100, whole, 512), *range(whole - 300, whole, 20)]:
        with largest_file(size), pytest.raises(OutputError, match="cannot be written") as caught, named_saves(tmp_path):
            torch.save({"a": torch.zeros(5000)}, tmp_path / "a.pt")
        said.add(str(caught.value.__cause__).partition(".")[0])
    assert any("iostream" in words for words in said)
    assert len(said) > 1
