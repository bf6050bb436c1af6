"""`csd train` under a launcher: one process writes and prints, both train one model."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from tiny_runs import NUMBERS, QUIET


def train(recipe, out, *arguments):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
            *("-m", "calibrated_sd.cli.main", "train", "--config", str(recipe), "--output", str(out), *arguments),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
        check=False,
    )


@pytest.mark.slow
def test_one_process_writes_what_two_have_trained(tmp_path, model_path):
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"problem": f"question {n}", "answer": n}) + "\n" for n in NUMBERS))
    settings = {
        **QUIET,
        **{"model": model_path, "problems": str(problems), "gpus": 2, "max_steps": 2, "num_generations": 4},
        **{"per_device_train_batch_size": 4, "max_completion_length": 8, "distillation_mode": "full_logits"},
        **{"teacher_model_kind": "base", "ddp_backend": "gloo"},
    }
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(yaml.safe_dump(settings), encoding="utf-8")
    done = train(recipe, out)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("model: ") == 1
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]  # each once, not once for each process
    assert json.loads((out / "manifest.json").read_text())["kind"] == "train"
    assert (out / "model" / "model.safetensors").is_file()
    assert (out / "model" / "tokenizer.json").is_file()

    other = train(recipe, tmp_path / "other", "--gpus", "8")
    assert other.returncode != 0
    assert "gpus=8 processes, but 2 were started" in other.stderr
    assert not (tmp_path / "other").exists()
