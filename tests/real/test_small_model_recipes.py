"""The recipes of SmolLM2-135M-Instruct on a small real model. Set CSD_REAL_MODEL to its folder."""

import json
import os

import pytest
from safetensors import safe_open

from calibrated_sd.cli.recipes import find_recipe
from calibrated_sd.cli.train import load_rows, make_trainer
from calibrated_sd.experiments.train_recipe import parse_recipe

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("CSD_REAL_MODEL" not in os.environ, reason="CSD_REAL_MODEL names no model folder"),
]


@pytest.fixture
def problems(tmp_path):
    path = tmp_path / "problems.jsonl"
    rows = [
        {"problem": f"A box holds {n} pens. How many do {n} boxes hold?", "answer": str(n * n), "solution": solution}
        for n, solution in (
            (n, f"{n} boxes of {n} hold {n} * {n} = {n * n} pens. \\boxed{{{n * n}}}") for n in range(3, 7)
        )
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("variant", ["full", "lora"])
@pytest.mark.parametrize("method", ["sft", "sdpo_projection"])
def test_two_steps(method, variant, problems, tmp_path):
    small = ["--max_completion_length", "24"] if method != "sft" else []
    run, settings = parse_recipe(
        find_recipe(f"SmolLM2-135M-Instruct/{method}/{variant}"),
        [
            *("--model", os.environ["CSD_REAL_MODEL"], "--problems", str(problems), "--max_steps", "2", *small),
            *("--output_dir", str(tmp_path / "out")),
        ],
    )
    trainer = make_trainer(run, settings, load_rows(run, settings), tmp_path)
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 2
    assert all(0 < loss < 10 for loss in losses)
    trainer.save_model(str(tmp_path / "model"))
    name = "adapter_model.safetensors" if variant == "lora" else "model.safetensors"
    with safe_open(tmp_path / "model" / name, "pt") as weights:
        assert all("lora_" in key for key in weights.keys()) == (variant == "lora")  # noqa: SIM118
    if method == "sdpo_projection":  # every row has a teacher: the solution is the data set's
        assert [line["contexts/solution_fraction"] for line in lines if "loss" in line] == [1.0, 1.0]
        assert all(line["calibration/strength"] == 1.0 for line in lines if "loss" in line)
