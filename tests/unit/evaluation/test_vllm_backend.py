"""The vLLM backend against a stand-in with vLLM's interface. It says nothing about vLLM on a GPU."""

from __future__ import annotations

import sys
import types

import pytest

from calibrated_sd.errors import ConfigError, ContextError
from calibrated_sd.evaluation.vllm_backend import import_vllm, iter_completions_vllm


class StandIn:
    """Echoes the seed it was given as the only token, and ends every second request by length."""

    def __init__(self, window=64):
        config = types.SimpleNamespace(max_position_embeddings=window, vocab_size=1000)
        self.llm_engine = types.SimpleNamespace(model_config=types.SimpleNamespace(hf_config=config))
        self.calls = []

    def generate(self, prompts, sampling_params, use_tqdm):
        assert not use_tqdm
        self.calls.append((prompts, sampling_params))
        return [
            types.SimpleNamespace(
                outputs=[
                    types.SimpleNamespace(
                        token_ids=[p.seed % 1000], text=f"seed {p.seed}", finish_reason=("stop", "length")[i % 2]
                    )
                ]
            )
            for i, p in enumerate(sampling_params)
        ]


@pytest.fixture
def fake_vllm(monkeypatch):
    module = types.ModuleType("vllm")
    module.SamplingParams = lambda **settings: types.SimpleNamespace(**settings)
    monkeypatch.setitem(sys.modules, "vllm", module)


def run(llm, tokenizer, **options):
    settings = {"n": 2, "problem_ids": ["a", "b"], "max_new_tokens": 8, "temperature": 0.6, "top_p": 0.95, **options}
    return [c for batch in iter_completions_vllm(llm, tokenizer, ["wait", "maybe red"], **settings) for c in batch]


def test_one_seeded_request_per_sample(fake_vllm, word_tokenizer):
    llm = StandIn()
    made = run(llm, word_tokenizer)
    assert [(c.problem_id, c.sample, c.finish_reason) for c in made] == [
        ("a", 0, "stop"),
        ("a", 1, "length"),
        ("b", 0, "stop"),
        ("b", 1, "length"),
    ]
    ((prompts, params),) = llm.calls
    assert [p["prompt_token_ids"] for p in prompts] == [
        word_tokenizer(t)["input_ids"] for t in ("wait",) * 2 + ("maybe red",) * 2
    ]
    assert {(p.n, p.temperature, p.top_p, p.max_tokens) for p in params} == {(1, 0.6, 0.95, 8)}
    assert len({p.seed for p in params}) == 4


def test_a_resumed_run_asks_for_the_same_samples(fake_vllm, word_tokenizer):
    straight = {(c.problem_id, c.sample): c.text for c in run(StandIn(), word_tokenizer)}
    rest = run(StandIn(), word_tokenizer, already_done={("a", 0), ("b", 1)}, batch_size=1)
    assert {(c.problem_id, c.sample): c.text for c in rest} == {k: straight[k] for k in (("a", 1), ("b", 0))}


def test_the_window_is_checked(fake_vllm, word_tokenizer):
    with pytest.raises(ContextError, match="problem 'b'"):
        run(StandIn(window=9), word_tokenizer)


def test_without_vllm(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ConfigError, match=r"pip install 'calibrated-sd\[vllm\]'.*--backend transformers"):
        import_vllm()
