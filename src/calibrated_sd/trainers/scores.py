"""Forward passes that give scores at the completion positions: logits, or hidden states from which they are made later.

For the second the output head is bypassed during the forward pass. The pass itself still goes through whatever wraps the
model, so that several processes and gradient checkpointing work as they do for logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import is_peft_model
from einops import rearrange
from torch import Tensor

from calibrated_sd.errors import ConfigError
from calibrated_sd.objectives import HeadScores, LogitScores, Scores, chunk_slices, selected_logps
from calibrated_sd.shapes import PerToken
from calibrated_sd.trainers.lm_head import OutputHead
from calibrated_sd.trainers.teacher import has_sharded_weights


class ScoreReader:
    """Runs models for one trainer.

    Args:
        trainer: a TRL self-distillation trainer after its constructor.
        chunked: whether to keep hidden states instead of logits.

    Raises:
        ConfigError: `chunked` with sharded weights or a trained output head, which it cannot reach.
    """

    def __init__(self, trainer: Any, chunked: bool):
        self.trainer = trainer
        self.chunked = chunked
        self._is_checked = False
        if chunked:
            _refuse_sharded(trainer)

    def read(self, model: Any, input_ids: Tensor, attention_mask: Tensor, width: int) -> Scores:
        """Scores at the last `width` positions, (B·width) of them, row by row, divided by the temperature.

        Args:
            model: as TRL passes it to its forward passes, wrapped or not.
            input_ids, attention_mask: (B, L), the completion in the last `width` columns.
            width: completion columns.
        """
        if not self.chunked:
            logits = self.trainer._forward_logits(model, input_ids, attention_mask, width)
            return LogitScores(rearrange(logits, "b t v -> (b t) v"))
        if not self._is_checked:
            self._is_checked = True
            self._check_head(model, input_ids, attention_mask)
        return self._hidden_scores(model, input_ids, attention_mask, width)

    @torch.no_grad()
    def rollout_logps(self, model: Any, input_ids: Tensor, attention_mask: Tensor, completion_ids: Tensor) -> PerToken:
        """log p(y) of fresh rollouts, (B, T), a micro-batch at a time; TRL runs the whole generation batch at once."""
        rows, chunk_size = self.trainer.args.per_device_train_batch_size, self.trainer.calibration.chunk_size
        parts = []
        for part in chunk_slices(len(completion_ids), rows):
            ids = completion_ids[part]
            scores = self.read(model, input_ids[part], attention_mask[part], ids.size(1))
            logps = selected_logps(scores, rearrange(ids, "b t -> (b t)"), chunk_size)
            parts.append(rearrange(logps, "(b t) -> b t", b=len(ids)))
        return torch.cat(parts)

    def _hidden_scores(self, model: Any, input_ids: Tensor, attention_mask: Tensor, width: int) -> HeadScores:
        base = self._base_model(model)
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
        if "logits_to_keep" in self.trainer.model_kwarg_keys:
            given["logits_to_keep"] = width + 1
        with _bypassed(base.get_output_embeddings()) as caught:
            model(**given)
        hidden = rearrange(caught[-1][:, :-1][:, -width:], "b t h -> (b t) h")
        head = OutputHead.of(base, self.trainer.temperature)
        return head.scores(hidden, self.trainer.accelerator.mixed_precision)

    def _base_model(self, model: Any) -> Any:
        unwrapped = self.trainer.accelerator.unwrap_model(model)
        return unwrapped.get_base_model() if is_peft_model(unwrapped) else unwrapped

    @torch.no_grad()
    def _check_head(self, model: Any, input_ids: Tensor, attention_mask: Tensor) -> None:
        """Compare one position with the model's own logits, once: architectures may do anything to theirs."""
        unwrapped = self.trainer.accelerator.unwrap_model(model)
        head = self._base_model(model).get_output_embeddings()
        if type(head) is not torch.nn.Linear:
            raise ConfigError(
                f"chunk_size computes logits from the output head's weight, but the head of this model is a "
                f"{type(head).__name__}. Leave lm_head out of LoRA's target_modules and modules_to_save, or set "
                "chunk_size=None."
            )
        was_training = unwrapped.training
        unwrapped.eval()
        try:
            own = self.trainer._forward_logits(unwrapped, input_ids[:1], attention_mask[:1], 1)[0].float()
            ours = self._hidden_scores(unwrapped, input_ids[:1], attention_mask[:1], 1).at(slice(None)).float()
        finally:
            unwrapped.train(was_training)
        # A constant per position changes no probability.
        gap = (own - own.mean()) - (ours - ours.mean())
        if gap.abs().max() > 2e-2 * own.abs().max().clamp(min=1.0):
            raise ConfigError(
                f"chunk_size computes logits from the output head's weight, but for {type(unwrapped).__name__} they "
                "differ from the model's own: it changes its logits after the head in a way that is not known here. "
                "Set chunk_size=None."
            )


@contextmanager
def _bypassed(head: torch.nn.Module) -> Iterator[list[Tensor]]:
    """While it lasts, the head hands its input out instead of computing logits."""
    caught: list[Tensor] = []

    def catch(hidden: Tensor) -> Tensor:
        caught.append(hidden)
        # One column, so that the output depends on the head: DDP looks for parameters that it does not depend on, takes
        # them for unused, and fails when their gradients arrive after all.
        weight: Any = head.weight
        bias: Any = getattr(head, "bias", None)
        return F.linear(hidden, weight[:1], None if bias is None else bias[:1])

    had_own = "forward" in head.__dict__
    before = head.forward
    head.forward = catch  # type: ignore[method-assign]
    try:
        yield caught
    finally:
        if had_own:
            head.forward = before  # type: ignore[method-assign]
        else:
            del head.forward


def _refuse_sharded(trainer: Any) -> None:
    if has_sharded_weights(trainer):
        raise ConfigError(
            "chunk_size needs the output head's weight outside of the model's forward pass, where FSDP and DeepSpeed "
            "ZeRO-3 keep only a shard of it. Use DDP or ZeRO-2 (with LoRA if memory is short), or set chunk_size=None."
        )
