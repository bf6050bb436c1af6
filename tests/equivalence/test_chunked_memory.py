"""`chunk_size` keeps what it promises: nothing as large as the vocabulary times the positions is ever built."""

import pytest
import torch
from fixed_batches import DISTILLING, SHAPING, fixed_batch, gradients, loss_and_gradients, nudge
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen3Config, Qwen3ForCausalLM

from calibrator_kit import settings_of

CHUNK = 3  # divides none of the counts of positions below


class Largest(TorchDispatchMode):
    """Remembers how many rows of vocabulary size the largest result had."""

    def __init__(self, vocabulary):
        super().__init__()
        self.vocabulary, self.rows = vocabulary, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.dim() > 0 and leaf.shape[-1] == self.vocabulary:
                self.rows = max(self.rows, leaf.numel() // self.vocabulary)
        return result


@pytest.fixture
def rows_of_vocabulary(make_trainer, word_tokenizer, tmp_path):
    """The most rows of vocabulary size in one tensor, over loss and backward pass of a batch."""
    path = tmp_path / "wide"
    config = Qwen3Config(
        vocab_size=211,  # nothing else has this size
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        eos_token_id=1,
        pad_token_id=0,
    )
    Qwen3ForCausalLM(config).save_pretrained(path)
    word_tokenizer.save_pretrained(path)

    def measure(**settings):
        trainer = make_trainer(model=str(path), calibration_metrics="full", **settings)
        nudge(trainer)
        inputs = fixed_batch(trainer)
        loss_and_gradients(trainer, inputs)  # the first time the head is checked
        with Largest(211) as seen:
            trainer.compute_loss(trainer.model, inputs).backward()
        gradients(trainer)
        return seen.rows

    return measure


HIDDEN = 8
"""Rows of the transposed head, which is there anyway."""


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"distillation_mode": "topk_logits", "distillation_topk": 5, "topk_markers": True},
        {"distillation_weight": 0.5},
        {"context_levels": "rollout:0.6,none:0.4", "context_mixing": "arith"},
        *(settings_of(name) for name in (*DISTILLING, *SHAPING)),
    ],
    ids=str,
)
def test_logits_are_never_built(rows_of_vocabulary, settings):
    """JSD and mixtures stack two tables of a chunk; 12 positions count, and the student has 15 or 20."""
    assert rows_of_vocabulary(chunk_size=CHUNK, **settings) <= max(HIDDEN, 2 * CHUNK)


def test_trls_path_builds_them(rows_of_vocabulary):
    """So that the test above measures something."""
    assert rows_of_vocabulary() >= 4 * 7
