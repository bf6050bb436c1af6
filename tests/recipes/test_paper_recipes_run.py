"""The settings of the paper's recipes act together: two updates of one generation, on a tiny model, without vLLM."""

import json
import math

import pytest

from calibrated_sd.cli.recipes import find_recipe
from calibrated_sd.cli.train import load_rows, make_trainer
from calibrated_sd.experiments.train_recipe import parse_recipe
from tiny_runs import NUMBERS

SMALL = {
    **{"use_cpu": "true", "bf16": "false", "use_vllm": "false", "gpus": 1, "save_strategy": "no", "max_steps": 2},
    **{"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "steps_per_generation": 2},
    **{"max_completion_length": 12, "model_init_kwargs": '{"dtype": "float32"}', "reward": "odd:odd_tokens"},
    **{"gradient_checkpointing": "false", "learning_rate": 1e-2, "warmup_steps": 0},
}
TINY_CONTEXT = {"max_prompt_length": 32, "max_reprompt_len": 64, "distillation_topk": 8, "chunk_size": 4}
METHODS = ("grpo", "sdpo", "sdpo_stripped", "sdpo_ema", "sdpo_projection", "sdpo_mix_to_floor", "hybrid")


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    path = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    rows = [{"problem": f"question {n} plus two", "answer": n} for n in NUMBERS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("variant", ["full", pytest.param("lora", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", [*METHODS, "hybrid_mix_to_floor"])
def test_two_updates_of_one_generation(method, variant, problems, model_path, tmp_path, monkeypatch):
    (tmp_path / "odd.py").write_text(
        "def odd_tokens(completion_ids, **_):\n    return [float(i[0] % 2) for i in completion_ids]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    small = {**SMALL, **({} if method == "grpo" else TINY_CONTEXT), "model": model_path, "problems": problems}
    overrides = [word for key, value in small.items() for word in (f"--{key}", str(value))]
    path = find_recipe(f"Qwen3-8B/{method}/{variant}")
    run, settings = parse_recipe(path, [*overrides, "--output_dir", str(tmp_path / "out")])
    trainer = make_trainer(run, settings, load_rows(run, settings), tmp_path)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines() if '"loss"' in line]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(math.isfinite(line["grad_norm"]) for line in lines)
    assert any((p != before[name]).any() for name, p in trainer.model.named_parameters() if name in before)
    assert "epistemic/per_1k" in lines[0]
    if "projection" in method or "mix_to_floor" in method:
        assert lines[0]["calibration/strength"] == 1.0
        assert lines[0]["calibration/retention"] > 0
