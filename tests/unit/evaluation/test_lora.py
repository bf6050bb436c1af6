"""Adapters: what is refused, what vLLM is told, and that merging and attaching say the same."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from calibrated_sd.errors import ConfigError
from calibrated_sd.evaluation.lora import apply_adapter, read_adapter, vllm_rank


def changed(folder, tmp_path, **settings):
    copy = tmp_path / "changed"
    shutil.copytree(folder, copy)
    old = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps({**old, **settings}))
    return copy


def load(model_path, dtype=torch.float32):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype)


def test_merged_and_attached_give_the_same_logits(model_path, adapter_path):
    from peft import PeftModel

    ids = torch.tensor([[7, 30, 31, 12]])
    attached = PeftModel.from_pretrained(load(model_path), str(adapter_path)).eval()
    base = load(model_path)
    merged = apply_adapter(base, read_adapter(adapter_path))
    assert type(merged) is type(base)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    with torch.inference_mode():
        expected, plain, got = attached(ids).logits, load(model_path).eval()(ids).logits, merged(ids).logits
    assert (expected - plain).abs().max() > 0.1
    assert torch.allclose(got, expected, atol=1e-4)


def test_half_precision_is_not_merged(model_path, adapter_path):
    base = load(model_path, torch.bfloat16)
    before = base.model.layers[0].self_attn.q_proj.weight.clone()
    adapted = apply_adapter(base, read_adapter(adapter_path))
    assert type(adapted) is type(base)
    assert torch.equal(adapted.model.layers[0].self_attn.q_proj.base_layer.weight, before)
    assert any("lora" in name for name, _ in adapted.named_parameters())


def test_what_is_read(adapter_path, model_path):
    adapter = read_adapter(adapter_path)
    assert (adapter.rank, adapter.base_model, len(adapter.sha256)) == (4, model_path, 64)


@pytest.mark.parametrize(
    ("settings", "rank"),
    [
        ({"r": 1}, 8),
        ({"r": 8}, 8),
        ({"r": 9}, 16),
        ({"r": 64}, 64),
        ({"r": 8, "rank_pattern": {"q_proj": 100}}, 128),
        ({"r": 512, "init_lora_weights": "gaussian"}, 512),
    ],
)
def test_ranks_vllm_knows(adapter_path, tmp_path, settings, rank):
    assert vllm_rank(read_adapter(changed(adapter_path, tmp_path, **settings))) == rank


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"use_dora": True}, "use_dora=True"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save=\['lm_head'\]"),
        ({"bias": "all"}, "bias='all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"r": 513}, "rank 513, above 512"),
    ],
)
def test_what_vllm_cannot_apply(adapter_path, tmp_path, settings, word):
    with pytest.raises(ConfigError, match=rf"{word}.*--backend transformers"):
        vllm_rank(read_adapter(changed(adapter_path, tmp_path, **settings)))


def test_what_is_no_adapter(adapter_path, model_path, tmp_path):
    with pytest.raises(ConfigError, match=r"holds no adapter \(no adapter_config.json\)"):
        read_adapter(model_path)
    with pytest.raises(ConfigError, match="of type PREFIX_TUNING"):
        read_adapter(changed(adapter_path, tmp_path, peft_type="PREFIX_TUNING"))
    (tmp_path / "changed" / "adapter_model.safetensors").unlink()
    (tmp_path / "changed" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4}')
    with pytest.raises(ConfigError, match=r"no adapter_model\.safetensors"):
        read_adapter(tmp_path / "changed")
