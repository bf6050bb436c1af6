"""Sampling: equal to transformers' own generate where that is defined, and to itself however it is cut up."""

from __future__ import annotations

import pytest
import torch
from sampling_kit import PROMPTS, sample

from calibrated_sd.errors import ConfigError, ContextError
from calibrated_sd.evaluation.generate import iter_completions, plan_batches


def test_greedy_equals_transformers(model, word_tokenizer):
    made = sample(model, word_tokenizer, n=1, temperature=0, max_new_tokens=40)
    for prompt, c in zip(PROMPTS, made, strict=True):  # one by one there, one left-padded batch here
        ids = torch.tensor([word_tokenizer(prompt)["input_ids"]])
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False)
        assert list(c.token_ids) == expected[0, ids.shape[1] :].tolist()


def test_left_padding_with_learned_positions(word_tokenizer):
    """Rotary models do not notice shifted positions; a GPT-2 does."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    settings = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 1.0}
    end = word_tokenizer.eos_token_id
    ids = {"bos_token_id": end, "eos_token_id": end}
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=len(word_tokenizer), **settings, **ids)).eval()
    together = sample(gpt2, word_tokenizer, n=2, temperature=0.7)
    assert together == sample(gpt2, word_tokenizer, n=2, temperature=0.7, batch_size=1)
    assert len({c.token_ids for c in together}) == 10


def test_samples_follow_the_model_and_not_the_batch(model, word_tokenizer):
    together = sample(model, word_tokenizer)
    assert together == sample(model, word_tokenizer, batch_size=1)
    assert together == sample(model, word_tokenizer, batch_size=4)
    assert len({c.token_ids for c in together}) > 10  # really sampled


def test_seed_problem_and_sample_name_the_randomness(model, word_tokenizer):
    first = sample(model, word_tokenizer)
    assert first == sample(model, word_tokenizer)
    other = sample(model, word_tokenizer, seed=6)
    assert all(a.token_ids != b.token_ids for a, b in zip(first, other, strict=True) if len(a.token_ids) > 3)
    # more samples or fewer tokens extend or cut what was there
    more = sample(model, word_tokenizer, n=5)
    assert [c for c in more if c.sample < 3] == first
    short = sample(model, word_tokenizer, max_new_tokens=4)
    assert [c.token_ids for c in short] == [c.token_ids[:4] for c in first]
    # the same text under two ids is two problems
    twins = sample(model, word_tokenizer, ["wait", "wait"])
    assert {c.token_ids for c in twins[:3]}.isdisjoint({c.token_ids for c in twins[3:]})


def test_how_completions_end(model, word_tokenizer):
    made = sample(model, word_tokenizer, n=20)
    stopped = [c for c in made if c.finish_reason == "stop"]
    cut = [c for c in made if c.finish_reason == "length"]
    assert stopped
    assert cut
    end = word_tokenizer.eos_token_id
    for c in stopped:
        assert c.token_ids[-1] == end
        assert end not in c.token_ids[:-1]
        assert c.text.split() == word_tokenizer.convert_ids_to_tokens(c.token_ids[:-1])
    for c in cut:
        assert len(c.token_ids) == 24
        assert end not in c.token_ids
    assert [(c.problem_id, c.sample) for c in made] == [(str(p), s) for p in range(5) for s in range(20)]


def test_only_what_is_missing_is_yielded(model, word_tokenizer):
    everything = sample(model, word_tokenizer)
    progress = []
    missing = {("0", 1), ("3", 2)}
    done = {(c.problem_id, c.sample) for c in everything} - missing
    batches = iter_completions(
        model,
        word_tokenizer,
        PROMPTS,
        n=3,
        max_new_tokens=24,
        seed=5,
        batch_size=4,
        already_done=done,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    made = [c for batch in batches for c in batch]
    assert sorted(made, key=lambda c: c.problem_id) == [c for c in everything if (c.problem_id, c.sample) in missing]
    assert progress[0] == (13, 15)
    assert progress[-1] == (15, 15)


def test_the_plan_depends_on_nothing_but_its_arguments():
    # lengths 5, 2, 5: prompt 1 first, then 0 and 2; two samples each; three rows per batch
    assert plan_batches([5, 2, 5], 2, 3) == [[(1, 0), (1, 1), (0, 0)], [(0, 1), (2, 0), (2, 1)]]
    assert plan_batches([], 2, 3) == []


def test_a_budget_of_tokens_cuts_batches():
    # each row may grow to its prompt + 10: 12, 15, 15, 40. Two rows of 12 are 24 <= 30; with a 15 it would be 3 x 15
    assert plan_batches([5, 2, 5], 2, 9, 30, 10) == [[(1, 0), (1, 1)], [(0, 0), (0, 1)], [(2, 0), (2, 1)]]
    # rows longer than the budget still come, one by one
    assert plan_batches([30, 2], 2, 9, 30, 10) == [[(1, 0), (1, 1)], [(0, 0)], [(0, 1)]]
    assert plan_batches([5, 2, 5], 2, 9, 10**6, 10) == plan_batches([5, 2, 5], 2, 9)


def test_a_budget_bounds_the_cache_and_changes_nothing_else(model, word_tokenizer, monkeypatch):
    from calibrated_sd.evaluation import generate as generate_module

    sizes = []
    decode = generate_module.decode_batch

    def watched(model, prompts, uniforms, *rest):
        sizes.append(len(prompts) * (max(map(len, prompts)) + uniforms.shape[1]))
        return decode(model, prompts, uniforms, *rest)

    monkeypatch.setattr(generate_module, "decode_batch", watched)
    free = sample(model, word_tokenizer)
    assert max(sizes) == 15 * (9 + 24)  # all rows at once; the longest prompt has 9 words
    sizes.clear()
    assert sample(model, word_tokenizer, batch_tokens=100) == free
    assert max(sizes) <= 100


def test_evaluation_mode_without_gradients_and_back(model, word_tokenizer):
    model.train()
    sample(model, word_tokenizer, n=1)
    assert model.training
    model.eval()
    sample(model, word_tokenizer, n=1)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_messages_go_through_the_chat_template(model, word_tokenizer):
    (c,) = sample(model, word_tokenizer, [[{"role": "user", "content": "wait"}]], n=1)
    assert c.prompt_text.split() == ["<|user|>", "wait", "<|assistant|>"]
    (plain,) = sample(model, word_tokenizer, [c.prompt_text], n=1)
    assert plain == c


class TestRefusals:
    def test_a_prompt_beyond_the_window_names_the_problem(self, model, word_tokenizer):
        # window 512: 492 + 20 fits exactly, 493 + 20 does not
        fits, too_long = " ".join(["wait"] * 492), " ".join(["wait"] * 493)
        assert len(sample(model, word_tokenizer, [fits], n=1, max_new_tokens=20)) == 1
        with pytest.raises(
            ContextError, match=r"'hard' has 493 tokens.*max_new_tokens=20.*window of 512.*to 492 tokens"
        ):
            sample(model, word_tokenizer, ["wait", too_long], problem_ids=["easy", "hard"], max_new_tokens=20)

    def test_an_empty_prompt(self, model, word_tokenizer):
        with pytest.raises(ContextError, match="'1' is empty"):
            sample(model, word_tokenizer, ["wait", ""])

    def test_another_models_tokenizer(self, model, word_tokenizer):
        class Foreign:
            def __call__(self, text):
                return {"input_ids": [5, 99_999]}

        with pytest.raises(ConfigError, match=r"99999.*ids below"):
            sample(model, Foreign())

    def test_messages_without_a_template(self, model, word_tokenizer, monkeypatch):
        monkeypatch.setattr(word_tokenizer, "chat_template", None)
        with pytest.raises(ConfigError, match="no chat template"):
            sample(model, word_tokenizer, [[{"role": "user", "content": "wait"}]])

    def test_ids_must_differ(self, model, word_tokenizer):
        with pytest.raises(ConfigError, match="1 distinct ids for 2 prompts"):
            sample(model, word_tokenizer, ["wait", "maybe"], problem_ids=["a", "a"])

    @pytest.mark.parametrize(
        "bad",
        [
            {"n": 0},
            {"batch_size": 0},
            {"batch_tokens": 0},
            {"cache": "statik"},
            {"max_new_tokens": 0},
            {"temperature": -1},
            {"top_p": 0},
            {"top_p": 1.1},
        ],
    )
    def test_settings_out_of_range(self, model, word_tokenizer, bad):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            sample(model, word_tokenizer, **bad)
