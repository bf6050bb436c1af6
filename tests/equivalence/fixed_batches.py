"""Training batches with every key that a calibrator may read, made without sampling anything."""

from __future__ import annotations

import torch

from calibrated_sd.calibrators import CALIBRATORS, Advantage, Divergence
from calibrated_sd.trainers.micro_batch import MicroBatch

LENGTHS = (5, 2, 4, 3)
"""Completion tokens of the four rows; the batch is wider than the longest, as a slice of a generation batch may be."""

DISTILLING = [name for name, cls in CALIBRATORS.items() if not issubclass(cls, Advantage)]
SHAPING = [name for name, cls in CALIBRATORS.items() if issubclass(cls, Advantage)]
POINTWISE = [name for name in DISTILLING if not issubclass(CALIBRATORS[name], Divergence)]
"""Methods that do not need the whole vocabulary in the loss."""


def fixed_batch(trainer, active=(1.0, 0.0, 1.0, 1.0), width=7, seed=1):
    """Four rows of the word tokenizer's ids, padded on both sides, markers among them; row 1 has no teacher context."""
    generator = torch.Generator().manual_seed(seed)

    def words(*shape):
        return torch.randint(7, 40, shape, generator=generator)

    def prompts(lengths):
        longest = max(lengths) + 1  # one column is padding everywhere
        mask = (torch.arange(longest) >= longest - torch.tensor(lengths).unsqueeze(1)).long()
        return words(4, longest) * mask, mask

    ids = words(4, width)
    mask = (torch.arange(width) < torch.tensor(LENGTHS).unsqueeze(1)).long()
    ids = ids * mask
    ids[:, 1] = torch.tensor([7, 8, 9, 30])  # "wait", "maybe", "hmm", and a number
    prompt_ids, prompt_mask = prompts([3, 2, 3, 1])
    batch = {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": ids,
        "completion_mask": mask,
        "raw_completion_lengths": torch.tensor(LENGTHS),
        "self_distillation_mask": torch.tensor(active),
        "marker_mask": torch.isin(ids, trainer.marker_ids) & mask.bool(),
        "rewards": torch.tensor([1.0, 0.0, 0.0, 1.0]),
        "advantages": torch.tensor([0.9, -0.9, -0.8, 0.8]),
        "succeeded": torch.tensor([True, False, False, True]),
        "pass_rate": torch.tensor([0.5, 0.5, 0.25, 0.25]),
        "context_available": torch.tensor([[True, True], [False, True], [True, True], [True, True]]),
    }
    for name, lengths in (("teacher", [6, 3, 5, 6]), ("context_only", [4, 3, 2, 4])):
        context_ids, context_mask = prompts(lengths)
        batch[f"{name}_input_ids"] = torch.cat([context_ids, ids], dim=1)
        batch[f"{name}_attention_mask"] = torch.cat([context_mask, mask], dim=1)
    return batch


def nudge(trainer, scale: float = 0.05) -> None:
    """Move the student away from its initial weights, which teacher and reference keep."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter += scale * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def loss_and_gradients(trainer, inputs):
    """What `compute_loss` says of a batch: the loss, and the gradient of every trained parameter."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    return loss.item(), gradients(trainer)


def losses_and_gradients(trainer, inputs):
    """The distillation loss of every counted position, calibrated, and the gradients of their sum."""
    trainer.model.train()
    trainer.model.zero_grad()
    micro = MicroBatch(
        trainer,
        trainer.model,
        trainer.teacher_model,
        inputs,
        trainer.distillation_calibrator,
        trainer.current_strength(),
    )
    ones = torch.ones(len(micro.sources.student))
    total, losses = micro.loss_of_tokens.total(ones, trainer.calibration.chunk_size)
    total.backward()
    return losses, gradients(trainer)


def gradients(trainer) -> dict[str, torch.Tensor]:
    """Those of the trained parameters; all of them must have one, because DDP waits for them."""
    trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert trained
    missing = [name for name, p in trained.items() if p.grad is None]
    assert not missing, missing
    return {name: p.grad.detach().clone() for name, p in trained.items()}


def relative_gap(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """|ours − theirs| / |theirs| over all parameters together."""
    assert ours.keys() == theirs.keys()
    gap = sum((ours[name] - theirs[name]).double().square().sum() for name in ours)
    return (gap / sum(value.double().square().sum() for value in theirs.values())).sqrt().item()
