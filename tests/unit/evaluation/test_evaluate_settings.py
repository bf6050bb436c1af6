"""Where the settings of `csd evaluate` come from: options, then the suite's definition, then the defaults."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import typer
from typer.testing import CliRunner

from calibrated_sd.cli.evaluate import evaluate_command
from calibrated_sd.data.suites import Sampled, SuiteDefinition
from calibrated_sd.records import prompt_sha256, read_completions, read_json

app = typer.Typer()
app.command()(evaluate_command)
SAMPLED = {"thinking": Sampled(0.6, 0.95, 20), "no_thinking": Sampled(0.7, 0.8, 10)}


@pytest.fixture
def data(tmp_path):
    """A prepared suite of three problems, as `csd data` leaves it."""
    folder = tmp_path / "data" / "sums"
    folder.mkdir(parents=True)
    rows = [
        {"problem_id": word, "prompt": [{"role": "user", "content": f"question {word} plus two"}], "answer": word}
        for word in ("one", "two", "three")
    ]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    definition = SuiteDefinition("sums", "Sums", "boxed", n=2, sampling=SAMPLED)
    (folder / "suite.json").write_text(json.dumps({"schema_version": 1, "definition": definition.as_dict()}))
    return tmp_path / "data"


@pytest.fixture
def thinker_path(model_path, tmp_path):
    """The tiny model with a chat template that can switch thinking off, as Qwen3's does."""
    folder = tmp_path / "thinker"
    shutil.copytree(model_path, folder)
    template = folder / "chat_template.jinja"
    off = "{%- if enable_thinking is defined and not enable_thinking %} <think> </think>{% endif -%}"
    template.write_text(template.read_text() + off)
    return folder


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.output, result.exception


def settings_of(output):
    manifest, metrics = read_json(output / "manifest.json"), read_json(output / "metrics.json")
    assert manifest["settings"] == metrics["settings"]
    names = ("n", "max_new_tokens", "temperature", "top_p", "grader", "thinking", "dtype")
    return tuple(metrics["settings"][name] for name in names)


def test_the_suite_says_how_it_is_sampled(data, model_path, tmp_path):
    printed, error = run(
        *("--model", model_path, "--suite", "sums", "--data-dir", data, "--output", tmp_path / "out"),
    )
    assert error is None, printed
    # a template without <think>: the settings of models that do not think
    assert settings_of(tmp_path / "out") == (2, 10, 0.7, 0.8, "boxed", None, "float32")
    records = read_completions(tmp_path / "out" / "completions.jsonl")
    assert len(records) == 3 * 2
    assert {r["suite"] for r in records} == {"sums"}
    assert max(r["n_tokens"] for r in records) == 10


def test_options_win(data, model_path, tmp_path):
    suite = ("--suite", data / "sums", "--output", tmp_path / "out", "--model", model_path)  # by its folder
    printed, error = run(*suite, "--n", 1, "--temperature", 0, "--max-new-tokens", 7)
    assert error is None, printed
    assert settings_of(tmp_path / "out") == (1, 7, 0.0, 0.8, "boxed", None, "float32")


def test_without_a_definition_the_defaults(data, model_path, tmp_path):
    (data / "sums" / "suite.json").unlink()
    printed, error = run("--model", model_path, "--suite", data / "sums", "--output", tmp_path / "out", "--limit", 2)
    assert error is None, printed
    assert settings_of(tmp_path / "out") == (16, 256, 1.0, 1.0, "boxed", None, "float32")


@pytest.mark.parametrize(
    ("flags", "expected", "ending"),
    [
        ((), (0.6, 0.95, 20, None), "<|assistant|>"),  # the template has <think> in it
        (("--thinking",), (0.6, 0.95, 20, True), "<|assistant|>"),
        (("--no-thinking",), (0.7, 0.8, 10, False), "<|assistant|> <think> </think>"),
    ],
)
def test_thinking_on_and_off(data, thinker_path, tmp_path, flags, expected, ending):
    out = tmp_path / "out"
    printed, error = run(
        "--model", thinker_path, "--suite", "sums", "--data-dir", data, "--output", out, "--limit", 2, *flags
    )
    assert error is None, printed
    assert "no switch" not in printed
    used = read_json(out / "metrics.json")["settings"]
    assert (used["temperature"], used["top_p"], used["max_new_tokens"], used["thinking"]) == expected
    hashed = {r["prompt_sha256"] for r in read_completions(out / "completions.jsonl")}
    assert hashed == {prompt_sha256(f"<|user|> question {word} plus two {ending}") for word in ("one", "two")}


def test_a_template_without_the_switch_is_said(data, model_path, tmp_path):
    settings = ("--data-dir", data, "--output", tmp_path / "out", "--limit", 2, "--thinking")
    printed, error = run("--model", model_path, "--suite", "sums", *settings)
    assert error is None, printed
    assert "no switch enable_thinking" in printed
    assert settings_of(tmp_path / "out")[1:4] == (20, 0.6, 0.95)


def test_messages_for_a_model_without_a_chat_template(data, model_path, tmp_path):
    folder = tmp_path / "base_model"
    shutil.copytree(model_path, folder)
    (folder / "chat_template.jinja").unlink()
    _, error = run("--model", folder, "--suite", "sums", "--data-dir", data, "--output", tmp_path / "out")
    assert "no chat template" in str(error)
    assert not (tmp_path / "out").exists()


def test_cache_and_budget_reach_the_loop(data, model_path, tmp_path, monkeypatch):
    from calibrated_sd.evaluation import decoding

    lengths, dtypes = [], set()
    make, choose = decoding._static_cache, decoding.choose_tokens
    monkeypatch.setattr(decoding, "_static_cache", lambda model, n: (lengths.append(n), make(model, n))[1])
    monkeypatch.setattr(decoding, "choose_tokens", lambda logits, *a: (dtypes.add(logits.dtype), choose(logits, *a))[1])
    suite = ("--model", model_path, "--suite", data / "sums", "--n", 4, "--max-new-tokens", 16)
    assert run(*suite, "--output", tmp_path / "plain")[1] is None
    assert (lengths, dtypes) == ([], {torch.float32})
    assert run(*suite, "--output", tmp_path / "static", "--cache", "static", "--batch-tokens", 90)[1] is None
    # each prompt has 6 words and may grow to 22; 4 rows of 22 are 88 <= 90, so 12 rows make 3 batches
    assert lengths == [22, 22, 22]
    files = [(tmp_path / name / "completions.jsonl").read_bytes() for name in ("plain", "static")]
    assert files[0] == files[1]
    dtypes.clear()
    assert run(*suite, "--output", tmp_path / "half", "--dtype", "bfloat16")[1] is None
    assert dtypes == {torch.bfloat16}
    assert settings_of(tmp_path / "half")[-1] == "bfloat16"


class TestAdapters:
    def evaluate(self, data, model, out, *more):
        printed, error = run(
            *("--model", model, "--suite", "sums", "--data-dir", data, "--output", out, "--temperature", 0, "--n", 1),
            *more,
        )
        assert error is None, printed
        return [r["completion"] for r in read_completions(out / "completions.jsonl")], printed

    def test_the_adapter_is_used_and_recorded(self, data, model_path, adapter_path, tmp_path):
        plain, _ = self.evaluate(data, model_path, tmp_path / "plain")
        adapted, printed = self.evaluate(data, model_path, tmp_path / "adapted", "--adapter", adapter_path)
        assert adapted != plain
        assert "was trained on" not in printed
        block = read_json(tmp_path / "adapted" / "metrics.json")["provenance"]["adapter"]
        assert (block["rank"], len(block["sha256"])) == (4, 64)
        assert block["base_model"] == model_path

    def test_another_base_model_is_said(self, data, model_path, adapter_path, tmp_path):
        other = tmp_path / "other_model"
        shutil.copytree(model_path, other)
        _, printed = self.evaluate(data, other, tmp_path / "out", "--adapter", adapter_path)
        assert "The adapter was trained on" in printed

    def test_an_adapter_in_place_of_a_model(self, data, adapter_path, tmp_path):
        _, error = run("--model", adapter_path, "--suite", "sums", "--data-dir", data, "--output", tmp_path / "out")
        assert "is a LoRA adapter, not a whole model" in str(error)
        assert f"--adapter {adapter_path}" in str(error)
