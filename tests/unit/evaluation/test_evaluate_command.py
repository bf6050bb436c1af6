"""`csd evaluate` from the command line: files, figures, resume, and every refusal with nothing touched."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import typer
from typer.testing import CliRunner

from calibrated_sd.cli.evaluate import evaluate_command
from calibrated_sd.errors import CalibratedSDError
from calibrated_sd.evaluation.suite_figures import suite_figures
from calibrated_sd.records import read_completions, read_json

app = typer.Typer()
app.command()(evaluate_command)


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "numbers.jsonl"
    rows = [
        {"problem": f"question {word} plus two equals", "answer": str(i), "id": word}
        for i, word in enumerate(["one", "two", "three", "four", "five", "six"])
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def csd(model_path, suite, tmp_path):
    """Run the command with defaults for a test; returns (message of the error or None, printed text)."""

    def run(**options):
        settings = {
            "model": model_path,
            "suite": suite,
            "output": tmp_path / "out",
            "n": 3,
            "max_new_tokens": 12,
            "batch_size": 7,
            **options,
        }
        arguments = [
            part for k, v in settings.items() if v is not None for part in (f"--{k.replace('_', '-')}", str(v))
        ]
        result = CliRunner().invoke(app, arguments)
        if result.exception is not None and not isinstance(result.exception, CalibratedSDError):
            raise result.exception
        return None if result.exception is None else str(result.exception), result.output

    return run


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()} if folder.is_dir() else None


def test_what_is_written(csd, tmp_path, suite):
    error, printed = csd(arm="tiny", seed=3)
    assert error is None
    out = tmp_path / "out"
    records = read_completions(out / "completions.jsonl")
    assert len(records) == 6 * 3
    assert {(r["suite"], r["arm"], r["seed"], r["step"], r["context"]) for r in records} == {
        ("numbers", "tiny", 3, 0, "none")
    }
    assert {r["problem_id"] for r in records} == {"one", "two", "three", "four", "five", "six"}

    metrics = read_json(out / "metrics.json")
    assert metrics["suites"] == {
        "numbers": json.loads(json.dumps(suite_figures(records)))
    }  # rebuilt from the file alone
    finished = len({r["problem_id"] for r in records if r["finish_reason"] == "stop"})
    for name, shown in metrics["suites"]["numbers"].items():
        assert set(shown) == {"value", "lo", "hi", "n", "unit", "method"}
        # a Wilson interval of finished answers stands on the questions that have any
        assert shown["n"] in ((6, finished) if name == "accuracy_given_finished" else (6,)) or shown["value"] is None
    assert metrics["provenance"]["seed"] == 3
    assert len(metrics["provenance"]["model_sha256"]) == 64
    assert metrics["settings"]["n"] == 3
    assert read_json(out / "manifest.json")["kind"] == "evaluate"
    assert "completions 18/18" in printed
    assert "lexical_per_1k" in printed
    assert "numbers: 6 problems" in printed


def test_resume_ends_like_the_straight_run(csd, tmp_path):
    csd()
    straight, other = files(tmp_path / "out"), tmp_path / "out2"
    csd(output=other)
    assert files(other)["completions.jsonl"] == straight["completions.jsonl"]
    for kept in (0, 333, 2500):
        (other / "metrics.json").unlink()
        (other / "completions.jsonl").write_bytes(straight["completions.jsonl"][:kept])
        assert csd(output=other, if_exists="resume")[0] is None
        assert files(other)["completions.jsonl"] == straight["completions.jsonl"]
        assert read_json(other / "metrics.json")["suites"] == json.loads(straight["metrics.json"])["suites"]


def test_overwrite_starts_anew(csd, tmp_path):
    csd()
    (tmp_path / "out" / "notes.txt").write_text("old")
    assert csd(if_exists="overwrite", n=2)[0] is None
    assert len(read_completions(tmp_path / "out" / "completions.jsonl")) == 12
    assert not (tmp_path / "out" / "notes.txt").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "not empty"),
        ({"if_exists": "resume", "n": 4}, "other settings (n 3 → 4)"),
        ({"if_exists": "resume", "temperature": 0.5}, "other settings (temperature 1.0 → 0.5)"),
        ({"if_exists": "resumee"}, "Did you mean 'resume'"),
        ({"if_exists": "overwrite", "suite": "absent.jsonl"}, "There is no problem file"),
        ({"if_exists": "overwrite", "suite": "aime24"}, "csd data prepare aime24"),
        ({"if_exists": "overwrite", "suite": "no_such_suite"}, "There is no suite 'no_such_suite'"),
        ({"if_exists": "overwrite", "suite": "folder/none"}, "no folder of a prepared suite"),
        ({"if_exists": "overwrite", "adapter": "nowhere"}, "holds no adapter"),
        ({"if_exists": "overwrite", "dtype": "fp32"}, "Unknown dtype 'fp32'"),
        ({"if_exists": "overwrite", "cache": "statik"}, "Did you mean 'static'"),
        ({"if_exists": "overwrite", "batch_tokens": 0}, "batch_tokens must be at least 1"),
        ({"if_exists": "overwrite", "data_parallel": 0}, "data_parallel must be at least 1"),
        ({"if_exists": "overwrite", "tensor_parallel": 2}, "needs --backend vllm"),
        ({"if_exists": "overwrite", "gpu_memory_utilization": 1.5}, "gpu_memory_utilization must lie in (0, 1]"),
        ({"if_exists": "resume", "cache": "static"}, "other settings (cache 'dynamic' → 'static')"),
        ({"if_exists": "overwrite", "suite": "organism:heldot"}, "Did you mean 'heldout'"),
        ({"if_exists": "overwrite", "model": "no/such/folder"}, "There is no model folder"),
        ({"if_exists": "overwrite", "max_new_tokens": 511}, "window of 512"),
        ({"if_exists": "overwrite", "n": 0}, "--n must be at least 1"),
        ({"if_exists": "overwrite", "batch_size": 0}, "--batch-size must be at least 1"),
        ({"if_exists": "overwrite", "top_p": 2}, "top_p"),
        ({"if_exists": "overwrite", "limit": 0}, "--limit"),
        ({"if_exists": "overwrite", "grader": "boxd"}, "Did you mean 'boxed'"),
        ({"if_exists": "overwrite", "grader": "gradr.py:f"}, "there is no file gradr.py"),
        ({"if_exists": "overwrite", "grading_workers": 0}, "at least one worker"),
        ({"if_exists": "overwrite", "backend": "vlm"}, "Did you mean 'vllm'"),
        ({"if_exists": "overwrite", "answer_column": "solution"}, "the columns are problem, answer, id"),
    ],
)
def test_refusals_leave_the_old_results_alone(csd, tmp_path, options, words):
    csd()
    before = files(tmp_path / "out")
    error, _ = csd(**options)
    assert error is not None
    assert words in error
    assert "\n" not in error
    assert files(tmp_path / "out") == before


def test_a_refused_first_run_leaves_nothing_behind(csd, tmp_path):
    error, _ = csd(max_new_tokens=511)
    assert "window of 512" in error
    assert not (tmp_path / "out").exists()


def test_a_model_without_its_tokenizer(csd, tmp_path, model_path):
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        (tmp_path / "bare").mkdir(exist_ok=True)
        shutil.copy(f"{model_path}/{name}", tmp_path / "bare" / name)
    error, _ = csd(model=tmp_path / "bare")
    assert "no tokenizer" in error
    assert "save_pretrained" in error
    (tmp_path / "bare" / "config.json").unlink()
    assert "no config.json" in csd(model=tmp_path / "bare")[0]
    assert not (tmp_path / "out").exists()


def test_broken_weights_are_a_user_error(csd, tmp_path, model_path):
    shutil.copytree(model_path, tmp_path / "broken")
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "no_such_architecture"}')
    error, _ = csd(model=tmp_path / "broken")
    assert "cannot be loaded" in error


def test_vllm_missing(csd, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "vllm", None)
    error, _ = csd(backend="vllm")
    assert "pip install 'calibrated-sd[vllm]'" in error
    assert not (tmp_path / "out").exists()


def test_limit_and_the_organisms_problems(csd, tmp_path):
    assert csd(suite="organism:heldout", limit=2, n=1)[0] is None
    records = read_completions(tmp_path / "out" / "completions.jsonl")
    assert len(records) == 2
    assert {r["suite"] for r in records} == {"heldout"}
    assert csd(suite="organism", limit=2, n=1, output=tmp_path / "all")[0] is None
    suites = read_json(tmp_path / "all" / "metrics.json")["suites"]
    assert list(suites) == ["train", "heldout", "far_linear", "far_sumproduct"]
    assert {s["accuracy"]["n"] for s in suites.values()} == {2}
