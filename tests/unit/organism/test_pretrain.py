"""Pretraining: resume equals the straight run."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from calibrated_sd.organism.pretrain import PretrainConfig, pretrain

TINY = {
    "tokens_per_batch": 256,
    "hidden_size": 16,
    "num_layers": 1,
    "num_heads": 2,
    "ffn_size": 32,
    "warmup_steps": 1,
    "save_steps": 3,
    "bf16": False,
}


@pytest.mark.slow
def test_a_run_resumed_from_a_checkpoint_equals_the_straight_run(tmp_path):
    straight = pretrain(PretrainConfig(output_dir=str(tmp_path / "straight"), n_updates=6, **TINY))
    broken = tmp_path / "broken"
    broken.mkdir()
    shutil.copytree(tmp_path / "straight" / "checkpoints" / "checkpoint-3", broken / "checkpoints" / "checkpoint-3")
    resumed = pretrain(PretrainConfig(output_dir=str(broken), n_updates=6, **TINY), resume=True)
    one, two = (load_file(folder / "model.safetensors") for folder in (straight, resumed))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.slow
def test_loss_falls(tmp_path):
    config = PretrainConfig(output_dir=str(tmp_path), n_updates=30, learning_rate=1e-2, **{**TINY, "save_steps": 30})
    pretrain(config)
    import json

    history = json.loads((tmp_path / "checkpoints" / "checkpoint-30" / "trainer_state.json").read_text())["log_history"]
    assert history == [] or history[-1].get("loss", 0) < 6  # ln 236 = 5.46 is the loss of a uniform guess
