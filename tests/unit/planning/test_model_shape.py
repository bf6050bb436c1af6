"""Sizes from configurations: the count equals that of the real class on torch's meta device, for every family."""

from __future__ import annotations

import json

import pytest
import torch

from calibrated_sd.errors import ConfigError
from calibrated_sd.planning.model_shape import SHIPPED, model_shape, read_shape

SMALL = {
    "vocab_size": 101,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def on_meta(config):
    """The model that transformers builds of a configuration, without memory."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = dict(config)
    made = AutoConfig.for_model(config.pop("model_type"), **config)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(made)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "own",
    [
        {"model_type": "llama"},
        {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "head_dim": 10},
        {"model_type": "mistral", "head_dim": 8},
        {"model_type": "qwen2"},
        {"model_type": "qwen3", "head_dim": 16},
        {"model_type": "qwen3"},
        {"model_type": "qwen3", "attention_bias": True, "head_dim": 16},
        {"model_type": "olmo2"},
        {"model_type": "olmo3", "num_key_value_heads": 4},
    ],
    ids=str,
)
def test_every_family_is_counted_exactly(own, tied):
    config = {**SMALL, **own, "tie_word_embeddings": tied}
    shape = read_shape(config, "small", "a test")
    model = on_meta(config)
    assert shape.n_parameters == sum(p.numel() for p in model.parameters())
    assert shape.head_parameters == model.get_output_embeddings().weight.numel()


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # Published sizes: 8.19 B, 1.72 B, 7.62 B, 7.30 B, 134.5 M.
        ("Qwen/Qwen3-8B", 8_190_735_360),
        ("Qwen/Qwen3-1.7B", 1_720_574_976),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", 7_615_616_512),
        ("allenai/Olmo-3-7B-Instruct", 7_298_011_136),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008),
    ],
)
def test_shipped_models(name, count):
    shape = model_shape(name)
    file = json.loads((SHIPPED / f"{name.split('/')[1]}.json").read_text())
    assert file["checked_against"]
    assert shape.n_parameters == count
    assert count == sum(p.numel() for p in on_meta(file["config"]).parameters())


def test_an_adapter_is_counted_as_peft_makes_it():
    from peft import LoraConfig, get_peft_model

    config = {**SMALL, "model_type": "qwen3", "head_dim": 16}
    shape = read_shape(config, "small", "a test")
    for targets in (None, "q_proj,down_proj"):
        named = targets.split(",") if targets else "all-linear"
        model = get_peft_model(on_meta(config), LoraConfig(r=5, target_modules=named), low_cpu_mem_usage=True)
        assert shape.lora_parameters(5, targets) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    with pytest.raises(ConfigError, match=r"names 'lm_head', but the blocks of small have q_proj"):
        shape.lora_parameters(5, "lm_head")


def test_a_folder_needs_no_weights(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**SMALL, "model_type": "llama", "tie_word_embeddings": True}))
    shape = model_shape(tmp_path)
    # 101·24 + 3·(2·24·24 + 2·24·12 + 3·24·40 + 48) + 24
    assert shape.n_parameters == 2424 + 3 * (1152 + 576 + 2880 + 48) + 24
    assert shape.source == "its config.json"


def test_refusals(tmp_path):
    with pytest.raises(ConfigError, match=r"no folder with a config\.json"):
        model_shape("somebody/unheard-of")
    with pytest.raises(ConfigError, match="family 'gpt2'"):
        read_shape({**SMALL, "model_type": "gpt2"}, "x", "a test")
    with pytest.raises(ConfigError, match="lacks vocab_size"):
        read_shape({**SMALL, "model_type": "llama", "vocab_size": None}, "x", "a test")


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]"])
def test_a_folder_whose_config_is_none(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match="Save or download the model again"):
        model_shape(tmp_path)
