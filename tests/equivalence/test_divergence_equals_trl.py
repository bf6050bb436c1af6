"""The divergences and the default reduction are TRL's, bit for bit."""

import pytest
import torch
from trl.experimental.sdpo.loss_utils import compute_divergence

from calibrated_sd.objectives import divergence, sequence_mean


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.3, 1.0])
def test_values_and_gradients(alpha, dtype):
    generator = torch.Generator().manual_seed(1)
    logits, teacher_logits = (8 * torch.randn(3, 7, 101, generator=generator, dtype=dtype) for _ in range(2))
    teacher = teacher_logits.log_softmax(-1)
    results = []
    for function in (divergence, compute_divergence):
        leaf = logits.clone().requires_grad_()
        value = function(leaf.log_softmax(-1), teacher, alpha)
        value.sum().backward()
        results.append((value.detach(), leaf.grad))
    (ours, our_grad), (theirs, their_grad) = results
    assert torch.equal(ours, theirs)
    assert torch.equal(our_grad, their_grad)


def test_sequence_mean_is_the_loss_of_the_trainer():
    generator = torch.Generator().manual_seed(2)
    per_token_loss = torch.rand(4, 9, generator=generator)
    lengths = torch.tensor([[9], [3], [0], [5]])
    loss_mask = (torch.arange(9) < lengths).float()
    loss = (per_token_loss * loss_mask).sum(-1) / loss_mask.sum(-1).clamp(min=1.0)  # sdpo_trainer.py, SDPO loss
    assert torch.equal(sequence_mean(per_token_loss, loss_mask), loss.mean())
