"""Weights in a pickle are not read, although transformers and PEFT would."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from calibrated_sd.errors import ConfigError
from calibrated_sd.evaluation.engines import EngineSettings, load_here
from calibrated_sd.evaluation.lora import read_adapter


def test_a_model(model_path, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model_path, folder)
    load_here(EngineSettings(model=str(folder)))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="safetensors"):
        load_here(EngineSettings(model=str(folder)))


def test_an_adapter(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    torch.save({}, tmp_path / "adapter_model.bin")
    with pytest.raises(ConfigError, match="it is a pickle"):
        read_adapter(tmp_path)
