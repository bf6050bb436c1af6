"""For tests of engines: the tiny model, a LoRA adapter for it, and a stand-in for vLLM, here and in started processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

FAKE_VLLM = Path(__file__).parents[2] / "fake_vllm"


@pytest.fixture
def fake_vllm(monkeypatch):
    """`import vllm` finds the stand-in, in this process and in those it starts."""
    monkeypatch.syspath_prepend(str(FAKE_VLLM))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FAKE_VLLM), os.environ.get("PYTHONPATH", "")]))
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "vllm"}
    import vllm

    yield vllm
    for name in [name for name in sys.modules if name.split(".")[0] == "vllm"]:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture(scope="module")
def model(model_path):
    """The tiny model, in float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)


@pytest.fixture(scope="session")
def adapter_path(model_path, tmp_path_factory):
    """A LoRA adapter of rank 4 for the tiny model, with weights large enough to change what it says."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    adapted = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    folder = tmp_path_factory.mktemp("adapter")
    adapted.save_pretrained(folder)
    return folder
