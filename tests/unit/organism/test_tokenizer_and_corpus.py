"""The tokenizer round-trips; a batch is a function of (seed, index)."""

import random

import pytest
import torch

from calibrated_sd.contexts import render_reprompt
from calibrated_sd.organism.corpus import CONTEXTS, Mixture, PretrainingBatches, context_prompt, demonstration, response
from calibrated_sd.organism.grammar import Habits
from calibrated_sd.organism.puzzles import FAMILIES, all_problems
from calibrated_sd.organism.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("context", CONTEXTS)
def test_everything_the_organism_reads_and_writes_round_trips(tokenizer, family, context):
    rng = random.Random(0)
    for problem in rng.sample(all_problems(family), 20):
        text = response(problem, context, rng, Habits()).text
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        prompt = context_prompt(problem.question, demonstration(problem, context, rng, Habits()))
        assert tokenizer.unk_token_id not in tokenizer(prompt)["input_ids"]


def test_think_tags_survive_decoding_without_special_tokens(tokenizer):
    text = "<think> maybe x = 12 . </think>"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_the_pretraining_prompt_is_what_trl_renders_for_a_teacher(tokenizer):
    question, demo = "find x below 35 such that x mod 7 = 3 and x mod 5 = 2 .", "the answer is \\boxed{ 17 } ."
    ours, trls = context_prompt(question, demo), render_reprompt(question, demo)
    assert tokenizer(ours)["input_ids"] == tokenizer(trls)["input_ids"]


def test_a_batch_depends_on_seed_and_index_alone(tokenizer):
    first, again = (PretrainingBatches(tokenizer, 40, 1024, seed=3) for _ in range(2))
    again[20]  # another order of access
    assert all(torch.equal(first[5][key], again[5][key]) for key in first[5])
    other = PretrainingBatches(tokenizer, 40, 1024, seed=4)
    assert not all(first[5][k].shape == other[5][k].shape and torch.equal(first[5][k], other[5][k]) for k in first[5])


def test_loss_falls_on_the_response_only(tokenizer):
    batches = PretrainingBatches(tokenizer, 16, 1024)
    assistant = tokenizer.convert_tokens_to_ids("<|assistant|>")
    for i in range(16):
        batch = batches[i]
        for ids, weights, mask in zip(batch["input_ids"], batch["loss_weights"], batch["attention_mask"], strict=True):
            start = (ids == assistant).nonzero()[-1, 0]
            assert weights[: start + 1].sum() == 0
            assert weights[mask == 0].sum() == 0
            last = int(mask.sum()) - 1
            assert ids[last] == tokenizer.eos_token_id
            assert weights[last] > 0


def test_batches_respect_the_token_budget_and_keep_the_longest_examples(tokenizer):
    batches = PretrainingBatches(tokenizer, 64, 2048)
    widths = [batches[i]["input_ids"].shape for i in range(64)]
    assert all(rows * width <= 2048 or rows == 1 for rows, width in widths)
    rng = random.Random(0)
    longest = max(len(batches.example(rng)[0]) for _ in range(1500))
    assert max(width for _, width in widths) > 0.8 * longest


def test_the_mixture_is_drawn_in_its_shares():
    rng = random.Random(0)
    drawn = [Mixture(none=0.5, stripped=0.5, regenerated=0.0, solution=0.0).draw(rng) for _ in range(400)]
    assert set(drawn) == {"none", "stripped"}
    assert 140 < drawn.count("none") < 260  # 6 standard deviations of Binomial(400, 1/2)
