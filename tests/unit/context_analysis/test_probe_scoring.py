"""Scores against probabilities written down here, and the chunked head against the model's own logits."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from calibrated_sd.context_analysis.scoring import TraceScorer

PLAIN, RICH = 5, 6  # prompt tokens without and with a context
AFTER = {
    PLAIN: [0.1, 0.2, 0.4, 0.3],
    RICH: [0.1, 0.1, 0.6, 0.2],
}
"""p(next token) after each context, whatever came between."""


class Fixed:
    """A model whose next token depends on the first token of the prompt alone, in ids 0 to 3."""

    def __init__(self):
        self.calls = []

    def __call__(self, input_ids, attention_mask, use_cache):
        self.calls.append(input_ids.shape)
        table = torch.full((len(input_ids), input_ids.shape[1], 8), -torch.inf)
        for row, first in enumerate(input_ids[:, 0].tolist()):
            table[row, :, :4] = torch.tensor(AFTER[first]).log() + 3.0  # logits are not normalised
        return SimpleNamespace(logits=table)


def test_fixed_probabilities():
    """y = (2, 1, 2): log p = log .4 + log .2 + log .4 without context and log .6 + log .1 + log .6 with it."""
    scorer = TraceScorer(Fixed(), [torch.tensor([1, 3])])
    plain, rich = scorer.score([[PLAIN], [RICH, 0, 0]], [2, 1, 2], {1: [0, 3]})
    assert plain.logps.tolist() == pytest.approx([math.log(0.4), math.log(0.2), math.log(0.4)])
    assert rich.logps.tolist() == pytest.approx([math.log(0.6), math.log(0.1), math.log(0.6)])
    assert plain.masses[0].tolist() == pytest.approx([0.5] * 3)  # .2 + .3
    assert rich.masses[0].tolist() == pytest.approx([0.3] * 3)
    assert plain.alternatives[1].tolist() == pytest.approx([math.log(0.1), math.log(0.3)])
    assert rich.alternatives[1].tolist() == pytest.approx([math.log(0.1), math.log(0.2)])


def test_results_keep_their_order_and_batches_their_size():
    model = Fixed()
    found = TraceScorer(model, batch_size=2).score([[RICH, 0, 0, 0], [PLAIN], [RICH, 0]], [1])
    assert [round(math.exp(one.logps[0]), 4) for one in found] == [0.1, 0.2, 0.1]
    assert model.calls == [(2, 3), (1, 5)]  # the two shortest first


@pytest.fixture(scope="module")
def tiny(model_path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_path).eval()


@pytest.mark.parametrize("chunk_positions", [1, 3, 256])
def test_a_few_positions_at_a_time_change_nothing(tiny, chunk_positions):
    prompts, text = [[3, 9, 12], [3, 9, 12, 20, 21, 22, 23], [3]], [7, 11, 15, 8, 30]
    ids = [torch.tensor([7, 8, 9])]
    full = TraceScorer(tiny, ids, chunk_positions=None).score(prompts, text, {3: [4, 5]})
    some = TraceScorer(tiny, ids, chunk_positions=chunk_positions).score(prompts, text, {3: [4, 5]})
    alone = [TraceScorer(tiny, ids).score([prompt], text, {3: [4, 5]})[0] for prompt in prompts]
    for a, b, c in zip(full, some, alone, strict=True):
        for other in (b, c):
            torch.testing.assert_close(a.logps, other.logps, rtol=0, atol=1e-5)
            torch.testing.assert_close(a.masses[0], other.masses[0], rtol=0, atol=1e-6)
            torch.testing.assert_close(a.alternatives[3], other.alternatives[3], rtol=0, atol=1e-5)


def test_scores_are_those_of_a_plain_forward(tiny):
    prompt, text = [3, 9, 12], [7, 11, 15]
    logps = torch.log_softmax(tiny(torch.tensor([prompt + text])).logits[0].double(), -1)
    expected = [logps[2, 7], logps[3, 11], logps[4, 15]]
    (found,) = TraceScorer(tiny).score([prompt], text)
    torch.testing.assert_close(found.logps, torch.stack(expected), rtol=0, atol=1e-5)
    assert tiny.get_output_embeddings().forward.__func__ is torch.nn.Linear.forward  # the head is its old self


def test_unknown_logits_are_taken_from_the_model_itself(tiny, monkeypatch):
    before = tiny.forward

    def sharpened(input_ids=None, attention_mask=None, use_cache=None):
        out = before(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)
        out.logits = out.logits * 3.0
        return out

    monkeypatch.setattr(tiny, "forward", sharpened)
    with pytest.warns(UserWarning, match="changes its logits after the output head"):
        (found,) = TraceScorer(tiny).score([[3, 9]], [7, 11])
    expected = torch.log_softmax(before(input_ids=torch.tensor([[3, 9, 7]])).logits[0, 1:].double() * 3.0, -1)
    torch.testing.assert_close(found.logps, expected[[0, 1], [7, 11]], rtol=0, atol=1e-5)
