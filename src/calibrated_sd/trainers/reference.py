"""p_R: the frozen initial weights without any context, the yardstick for how much doubt is left.

The reference reads the student's own token ids (never an empty template, which would change the prompt), and its logits
are divided by the same temperature. Its weights are the initial ones whatever the teacher does: with a live or a moving
teacher a floor tied to the teacher would follow the student down.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate.utils import is_peft_model

from calibrated_sd.shapes import Logps
from calibrated_sd.trainers._trl import (
    create_model_from_path,
    get_config_model_id,
    prepare_deepspeed,
    prepare_fsdp,
    use_adapter,
)


class ContextFreeReference:
    """Runs the reference. Where its weights come from, cheapest first:

    ``"adapter_off"``  PEFT: the student with its adapter disabled; no weights of its own.
    ``"teacher"``      `teacher_model_kind="base"`: the teacher's weights are the initial ones; no weights of its own.
    ``"copy"``         `live` and `ema` with full fine-tuning: one frozen copy, made now, also of a model that was never
                       on disk.

    Args:
        trainer: a TRL trainer after its constructor, before training.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer
        if is_peft_model(trainer.model):
            self.source = "adapter_off"
            self.model = trainer.model
        elif trainer.args.teacher_model_kind == "base":
            self.source = "teacher"
            self.model = trainer.teacher_model
        else:
            self.source = "copy"
            self.model = self._frozen_copy()

    def _frozen_copy(self) -> Any:
        trainer = self.trainer
        if trainer.is_deepspeed_enabled:
            # Under ZeRO-3 the weights are sharded already and a copy would hold empty shards: load them again.
            kwargs = dict(trainer.args.model_init_kwargs or {}, device_map=None)
            kwargs.setdefault("trust_remote_code", trainer.args.trust_remote_code)
            kwargs.setdefault("dtype", trainer.model.dtype)
            model = create_model_from_path(get_config_model_id(trainer.model.config), **kwargs)
        else:
            model = copy.deepcopy(trainer.accelerator.unwrap_model(trainer.model))
        model.requires_grad_(False)
        model.eval()
        if trainer.is_deepspeed_enabled:
            return prepare_deepspeed(model, trainer.accelerator)
        if trainer.is_fsdp_enabled:
            return prepare_fsdp(model, trainer.accelerator)
        return trainer.accelerator.prepare_model(model, evaluation_mode=True)

    def _weights(self) -> AbstractContextManager:
        if self.source == "adapter_off":
            return use_adapter(self.trainer.accelerator.unwrap_model(self.model), adapter_name=None)
        return nullcontext()

    def logits(self, inputs: dict[str, Any]) -> Logps:
        """Logits (B, T, V) at the completion positions, divided by the temperature, without gradient.

        Args:
            inputs: a training batch of TRL's: `prompt_ids`, `prompt_mask`, `completion_ids`, `completion_mask`.
        """
        completion_ids = inputs["completion_ids"]
        with torch.no_grad(), self._weights():
            return self.trainer._forward_logits(
                model=self.model,
                input_ids=torch.cat([inputs["prompt_ids"], completion_ids], dim=1),
                attention_mask=torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
                logits_to_keep=completion_ids.size(1),
            )
