"""Files of every kind that were cut off: a sentence that names the file, or a run that goes on with what is whole."""

import shutil
import sys

import pytest

from calibrated_sd.errors import DataError
from calibrated_sd.experiments import runner
from calibrated_sd.reports.loading import read_summary
from fault_kit import cut, digest, mounted, run_csd, train_recipe, trained, whole_json
from stand_in_worker import SWEEP_WORKER

CUTS = [0.0, 0.5]


@pytest.fixture(scope="module")
def model(model_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "model"
    shutil.copytree(model_path, folder)
    return folder


@pytest.fixture
def evaluated(model, tmp_path, capsys):
    """A finished evaluation, and how to run it again."""
    (tmp_path / "suite.jsonl").write_text('{"problem": "question one", "answer": "1", "id": "a"}\n')

    def run(*more):
        words = ("evaluate", "--model", model, "--suite", tmp_path / "suite.jsonl", "--n", 4, "--max-new-tokens", 8)
        return run_csd(capsys, *words, "--output", tmp_path / "out", *more)

    assert run().code == 0
    return tmp_path / "out", run


def test_a_torn_line_of_an_evaluation_is_sampled_again(evaluated, capsys):
    out, run = evaluated
    before = digest(out / "completions.jsonl")
    cut(out / "completions.jsonl", 0.6)
    run_csd(capsys, "compare", out, out).refused(out / "completions.jsonl", "cut off", "--if-exists resume")
    run_csd(capsys, "markers", out / "completions.jsonl").refused(out / "completions.jsonl", "cut off")
    assert run("--if-exists", "resume").code == 0
    assert digest(out / "completions.jsonl") == before


def test_a_line_damaged_in_the_middle_is_refused(evaluated):
    out, run = evaluated
    lines = (out / "completions.jsonl").read_bytes().split(b"\n")
    lines[1] = lines[1][:40]
    (out / "completions.jsonl").write_bytes(b"\n".join(lines))
    before = digest(out / "completions.jsonl")
    run("--if-exists", "resume").refused(out / "completions.jsonl", "line 2")
    assert digest(out / "completions.jsonl") == before


@pytest.mark.parametrize("content", ["", '{"kind": "eva', "[]", '"x"', "\x00" * 40])
@pytest.mark.parametrize("command", ["evaluate", "train", "sweep", "reproduce", "report"])
def test_a_manifest_that_is_none(model, tmp_path, capsys, command, content):
    """The folder may be someone else's, so it is neither continued nor emptied."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text(content)
    (tmp_path / "suite.jsonl").write_text('{"problem": "question one", "answer": "1", "id": "a"}\n')
    (tmp_path / "sweep.yaml").write_text("# x\nbase: organism/sdpo_projection\ngrid: {calibration_strength: [0.5]}\n")
    words = {
        "evaluate": ("evaluate", "--model", model, "--suite", tmp_path / "suite.jsonl", "--output", out),
        "train": ("train", "--config", train_recipe(tmp_path, str(model)), "--output", out),
        "sweep": ("sweep", "--config", tmp_path / "sweep.yaml", "--output", out),
        "reproduce": ("reproduce", "--quick", "--output", out),
    }
    for policy in ("resume", "overwrite") if command in words else ():
        run_csd(capsys, *words[command], "--if-exists", policy).refused(out)
    if command == "report":
        run_csd(capsys, "report", out).refused(out / "manifest.json")
    assert (out / "manifest.json").read_text() == content


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_weights_that_are_cut_off(model, tmp_path, capsys, command, share):
    shutil.copytree(model, tmp_path / "model")
    cut(tmp_path / "model" / "model.safetensors", share)
    (tmp_path / "suite.jsonl").write_text('{"problem": "question one", "answer": "1", "id": "a"}\n')
    words = {
        "train": ("train", "--config", train_recipe(tmp_path, str(tmp_path / "model"))),
        "evaluate": ("evaluate", "--model", tmp_path / "model", "--suite", tmp_path / "suite.jsonl"),
    }[command]
    run_csd(capsys, *words, "--output", tmp_path / "out").refused(tmp_path / "model")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["manifest.json", "train.jsonl"])
def test_files_of_a_training_run(model, tmp_path, capsys, name):
    recipe, out = train_recipe(tmp_path, str(model), max_steps=2), tmp_path / "out"
    assert run_csd(capsys, "train", "--config", recipe, "--output", out).code == 0
    expected = trained(out)
    cut(out / name, 0.9)
    done = run_csd(capsys, "train", "--config", recipe, "--output", out, "--if-exists", "resume")
    if name == "manifest.json":
        done.refused(out / name, "cut off")
        return
    assert done.code == 0, done.said
    assert trained(out) == expected


@pytest.mark.parametrize("content", ["", "arm,seed,suite,step", "arm,seed\n", "a\n1,2,3\n", "\udcff\n"])
def test_a_table_that_is_cut_off(tmp_path, content):
    path = tmp_path / "results.csv"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(DataError, match=r"results\.csv"):
        read_summary(path)


@pytest.fixture
def sweep(tmp_path, monkeypatch, capsys):
    """A sweep of two runs whose jobs make their results up."""
    (tmp_path / "worker.py").write_text(SWEEP_WORKER)
    monkeypatch.setattr(
        runner, "worker_command", lambda folder: [sys.executable, str(tmp_path / "worker.py"), str(folder)]
    )
    (tmp_path / "sweep.yaml").write_text(
        "# A sweep\nbase: organism/sdpo_projection\nsettings: {max_steps: 2}\nseeds: [0]\n"
        "grid: {calibration_strength: [0.5]}\nlandmarks: [base]\nevaluation: {eval_problems: 6, eval_samples: 1}\n"
    )

    def run(out, *more):
        return run_csd(capsys, "sweep", "--config", tmp_path / "sweep.yaml", "--output", out, *more)

    return run


def test_files_of_a_sweep(sweep, tmp_path, capsys):
    out = tmp_path / "out"
    assert sweep(out).code == 0
    expected = digest(out / "results.csv")
    whole_json(out)
    run = next(path.parent for path in sorted(out.glob("runs/*/seed_0/run.json")) if "base" not in str(path))
    for file, commands in (
        (run / "run.json", ("resume",)),
        (next(run.glob("eval/*/completions.jsonl")), ("resume",)),
        (out / "archive.json.gz", ("resume",)),
        (out / "manifest.json", ("resume", "report")),
        (out / "results.json", ("report",)),
    ):
        whole = file.read_bytes()
        for share in CUTS:
            cut(file, share)
            damaged = file.read_bytes()
            if "resume" in commands:
                sweep(out, "--if-exists", "resume").refused(out if file.name == "manifest.json" else file)
            if "report" in commands:
                run_csd(capsys, "report", out).refused(file)
            assert file.read_bytes() == damaged
        file.write_bytes(whole)
    (out / "archive.json.gz").unlink()  # as the sentences about it and about run.json say
    shutil.rmtree(run)
    assert sweep(out, "--if-exists", "resume").code == 0
    assert digest(out / "results.csv") == expected


@pytest.mark.parametrize("room", [0, 60])
def test_a_sweep_on_a_full_disk(sweep, tmp_path, capsys, room):
    from fault_kit import Disk

    assert sweep(tmp_path / "straight").code == 0
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=64m", "none") as path:
        if path is None:
            pytest.skip("mounting a small disk is not permitted here")
        disk, out = Disk(path), path / "out"
        disk.leave(room)
        sweep(out).refused(out)
        whole_json(out)
        disk.grow()
        policy = "resume" if (out / "manifest.json").exists() else "raise"
        done = sweep(out, "--if-exists", policy)
        assert done.code == 0, done.said
        assert digest(out / "results.csv") == digest(tmp_path / "straight" / "results.csv")
        page = digest(out / "report.html")
        disk.leave(0)
        run_csd(capsys, "report", out).refused(out, "the disk is full")
        assert digest(out / "report.html") == page
        whole_json(out)
