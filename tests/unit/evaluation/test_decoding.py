"""The decoding loop: the choice of a token, rows that leave, and two caches with the same tokens."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from sampling_kit import sample

from calibrated_sd.evaluation import decoding
from calibrated_sd.evaluation.decoding import choose_tokens
from calibrated_sd.evaluation.sampling import Sampling


def test_finished_rows_are_dropped_and_nothing_changes(model, word_tokenizer, monkeypatch):
    rows = []
    forward = model.forward

    def counted(*args, **kwargs):
        rows.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    counted.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(model, "forward", counted)
    dropped = sample(model, word_tokenizer, n=20)
    with_dropping, rows[:] = sum(rows), []
    monkeypatch.setattr(decoding, "_COMPACT_BELOW", 0.0)
    assert sample(model, word_tokenizer, n=20) == dropped
    assert sum(rows) == 100 * 24
    needed = sum(len(c.token_ids) for c in dropped)
    assert needed <= with_dropping <= 1.15 * needed


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_a_static_cache_gives_the_same_tokens(model, word_tokenizer, temperature, monkeypatch):
    settings = {"n": 8, "temperature": temperature, "max_new_tokens": 40}
    dynamic = sample(model, word_tokenizer, **settings)
    assert temperature == 0 or len({len(c.token_ids) for c in dynamic}) > 1  # rows do leave
    assert sample(model, word_tokenizer, cache="static", **settings) == dynamic
    monkeypatch.setattr(decoding, "_COMPACT_BELOW", 0.0)
    assert sample(model, word_tokenizer, cache="static", **settings) == dynamic


def test_a_static_cache_loses_rows_too(model, word_tokenizer, monkeypatch):
    rows = []
    forward = model.forward

    def counted(*args, **kwargs):
        keys = kwargs["past_key_values"].layers[0].keys
        rows.append((len(kwargs["input_ids"]), None if keys is None else tuple(keys.shape[::2])))
        return forward(*args, **kwargs)

    counted.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(model, "forward", counted)
    made = sample(model, word_tokenizer, n=20, cache="static")
    assert rows[0][0] == 100
    assert all(shape == (n, 9 + 24) for n, shape in rows[1:])  # full length from the first step on
    assert sum(n for n, _ in rows) <= 1.15 * sum(len(c.token_ids) for c in made)


def test_sliding_windows_in_a_static_cache(word_tokenizer):
    """Layers that see 8 tokens only: their static part is a ring of 8 columns."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    end = word_tokenizer.eos_token_id
    config = MistralConfig(
        vocab_size=len(word_tokenizer),
        num_key_value_heads=2,
        sliding_window=8,
        initializer_range=0.5,
        bos_token_id=None,
        eos_token_id=end,
        **sizes,
    )
    mistral = MistralForCausalLM(config).eval()
    dynamic = sample(mistral, word_tokenizer, temperature=0.8)
    assert sample(mistral, word_tokenizer, temperature=0.8, cache="static") == dynamic


def test_several_ids_end_a_completion(model, word_tokenizer, monkeypatch):
    free = sample(model, word_tokenizer, n=6)
    end = word_tokenizer.eos_token_id
    other = max(free, key=lambda c: len(set(c.token_ids))).token_ids[3]
    assert other != end
    monkeypatch.setattr(model.generation_config, "eos_token_id", [end, other])
    cut = sample(model, word_tokenizer, n=6)
    for before, after in zip(free, cut, strict=True):
        ends = [i for i, token in enumerate(before.token_ids) if token in (end, other)]
        expected = before.token_ids[: ends[0] + 1] if ends else before.token_ids
        assert after.token_ids == expected
        assert after.finish_reason == ("stop" if ends else "length")
        assert len(after.text.split()) == len(expected) - bool(ends)  # the id that ended it is not in the text


class TestChoice:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))

    def choose(self, u, **settings):
        uniforms = torch.tensor([u], dtype=torch.float64)
        return int(choose_tokens(settings.pop("logits", self.logits), uniforms, Sampling(**settings)))

    def test_inverse_of_the_cumulative_distribution(self):
        # cumulative .5, .8, 1
        assert [self.choose(u) for u in (0.0, 0.49, 0.51, 0.79, 0.81, 1 - 2**-53)] == [0, 0, 1, 1, 2, 2]

    def test_temperature(self):
        # T = 1/2 squares: .25, .09, .04 of .38: cumulative .658, .895
        assert [self.choose(u, temperature=0.5) for u in (0.65, 0.67, 0.89, 0.90)] == [0, 1, 1, 2]
        assert self.choose(0.99, temperature=0) == 0

    def test_top_p(self):
        # .5 covers top_p = .5 alone; top_p = .6 needs .5 and .3, renormalised to .625 and .375
        assert self.choose(0.99, top_p=0.5) == 0
        assert [self.choose(u, top_p=0.6) for u in (0.62, 0.63, 0.99)] == [0, 1, 1]
        # also when the most likely token does not come first
        assert self.choose(0.0, top_p=0.5, logits=self.logits.flip(-1)) == 2

    def test_impossible_tokens_are_never_drawn(self):
        inf = float("inf")
        logits = torch.tensor([[-inf, 0.0, -inf, 0.0, -inf]])
        assert [self.choose(u, logits=logits) for u in (0.0, 0.49, 0.51, 1 - 2**-53)] == [1, 1, 3, 3]

    def test_frequencies(self):
        draws = torch.from_numpy(np.random.default_rng(0).random(20_000))
        chosen = choose_tokens(self.logits.expand(20_000, -1), draws, Sampling())
        shares = torch.bincount(chosen, minlength=3) / 20_000
        assert shares.tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.012)  # > 3 standard errors
