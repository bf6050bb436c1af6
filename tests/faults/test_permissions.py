"""What may not be written or read is named in one sentence, and nothing is changed."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fault_kit import mounted, run_csd, train_recipe

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="permissions are other ones")

NOBODY = 65534


@contextlib.contextmanager
def as_nobody():
    """Permissions do not bind root, so root is someone else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture(scope="module")
def place(model_path):
    """A folder that everybody may read: the tiny model, a suite, a recipe, records, and a sweep's and a run's files."""
    folder = Path(tempfile.mkdtemp())
    shutil.copytree(model_path, folder / "model")
    rows = [{"problem": f"question {word} plus two", "answer": "1", "id": word} for word in ("one", "two")]
    (folder / "suite.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train_recipe(folder, str(folder / "model"))
    (folder / "sweep.yaml").write_text(
        f"# One arm\nbase: {folder}/train.yaml\nsettings: {{model: organism, problems: organism, reward: null}}\n"
        "grid: {calibration_strength: [0.5]}\nlandmarks: [base]\nevaluation: {eval_problems: 2, eval_samples: 1}\n"
    )
    for name, kind in (("study", "reproduce"), ("grid", "sweep"), ("out", "evaluate")):
        (folder / name).mkdir()
        (folder / name / "manifest.json").write_text(json.dumps({"schema_version": 1, "kind": kind, "arms": []}))
    yield folder
    subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=True)
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def readable(place):
    """Before each test everything may be read by everybody and written by its owner."""
    subprocess.run(["chmod", "-R", "u+rwX,go+rX,go-w", str(place)], check=True)
    shutil.rmtree(place / "new", ignore_errors=True)


def words(place, command, output):
    """A command that writes to an output, or reports on it."""
    return {
        "train": ("train", "--config", place / "train.yaml", "--output", output),
        "evaluate": ("evaluate", "--model", place / "model", "--suite", place / "suite.jsonl", "--n", 1,
                     "--max-new-tokens", 4, "--output", output),
        "sweep": ("sweep", "--config", place / "sweep.yaml", "--output", output),
        "reproduce": ("reproduce", "--quick", "--output", output),
        "report": ("report", output),
    }[command]  # fmt: skip


@pytest.mark.parametrize("command", ["train", "evaluate", "sweep", "reproduce", "report"])
@pytest.mark.parametrize("fault", ["read-only disk", "permissions"])
def test_an_output_that_may_not_be_written(place, tmp_path, capsys, command, fault):
    inside = "study" if command == "report" else "new"
    if fault == "permissions":
        for folder in (place, place / "study"):
            folder.chmod(0o555)
        with as_nobody():
            run_csd(capsys, *words(place, command, place / inside)).refused(place / inside)
        assert not (place / "new").exists()
        return
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=1m", "none") as disk:
        if disk is None:
            pytest.skip("mounting is not permitted here")
        shutil.copytree(place / "study", disk / "study")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        run_csd(capsys, *words(place, command, disk / inside)).refused(disk / inside)
        assert [path.name for path in disk.iterdir()] == ["study"]


@pytest.mark.parametrize("command", ["train", "evaluate", "sweep"])
def test_a_folder_of_ours_that_may_no_longer_be_written(place, capsys, command):
    out = place / "out"
    for policy in ("resume", "overwrite"):
        with as_nobody():
            out.parent.chmod(0o555) if os.geteuid() == out.stat().st_uid else None
            done = run_csd(capsys, *words(place, command, out), "--if-exists", policy)
        done.refused(out)
    assert [path.name for path in out.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("train.yaml", "train"),
        ("problems.jsonl", "train"),
        ("model/config.json", "train"),
        ("model/model.safetensors", "train"),
        ("model/tokenizer.json", "train"),
        ("suite.jsonl", "evaluate"),
        ("model/model.safetensors", "evaluate"),
        ("model/tokenizer.json", "evaluate"),
        ("sweep.yaml", "sweep"),
        ("grid/manifest.json", "report"),
        ("study/manifest.json", "report"),
    ],
)
def test_an_input_that_may_not_be_read(place, tmp_path_factory, capsys, name, command):
    (place / name).chmod(0)
    place.chmod(0o777)
    with as_nobody():
        done = run_csd(capsys, *words(place, command, place / (name.split("/")[0] if command == "report" else "new")))
    done.refused(name.split("/")[0])


@pytest.mark.parametrize("words", [("markers", "records.jsonl"), ("compare", "records.jsonl", "records.jsonl")])
def test_records_that_may_not_be_read(place, capsys, words):
    file = place / "records.jsonl"
    file.write_text('{"completion": "x"}\n')
    file.chmod(0)
    with as_nobody():
        done = run_csd(capsys, *(file if word == "records.jsonl" else word for word in words))
    done.refused(file)
