"""Teachers that TRL builds wrongly or cannot build: of a model in memory, and moving ones in half precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import is_peft_model
from torch import Tensor
from trl.trainer.utils import disable_dropout_in_model

from calibrated_sd.trainers._trl import (
    ADAPTER_CALLBACKS,
    SYNC_CALLBACKS,
    PEFTAdapterEMACallback,
    SyncTeacherModelCallback,
)
from calibrated_sd.trainers.frozen import FrozenWeights

HALF = (torch.float16, torch.bfloat16)


def setup_in_memory_teacher(trainer: Any) -> bool:
    """Make a `base` or `ema` teacher from the model that the trainer was given, not from the path it came from.

    TRL reads the weights from `config._name_or_path` again. A model that was changed after loading then gets a teacher
    with other weights, and one that was never saved none at all.

    Returns:
        False if TRL's way is right: a `live` teacher, PEFT, or sharded weights.
    """
    if trainer.args.teacher_model_kind == "live" or is_peft_model(trainer.model) or trainer.is_deepspeed_enabled:
        return False
    frozen = FrozenWeights(trainer)
    frozen.prepare()
    trainer.teacher_model = frozen.model
    if trainer.args.teacher_model_kind == "ema":
        trainer.add_callback(
            SyncTeacherModelCallback(teacher_model=trainer.teacher_model, accelerator=trainer.accelerator)
        )
    return True


def repair_moving_teacher(trainer: Any) -> None:
    """Switch off the dropout of a LoRA teacher, and let a half-precision teacher move.

    TRL switches dropout off before the teacher's adapter exists. And in bf16 an increment of 0.05·(student − teacher) is
    below half a unit in the last place, so that the average never changes; it is kept in float32 instead.
    """
    callback = adapter_callback(trainer)
    if callback is not None:
        callback._initialize_teacher_adapter()
        if trainer.args.disable_dropout:
            disable_dropout_in_model(trainer.model)
        if callback.shadow_weights:
            callback.shadow_weights = {
                name: value.float() if value.dtype in HALF else value for name, value in callback.shadow_weights.items()
            }
        return
    sync = [c for c in trainer.callback_handler.callbacks if type(c) in SYNC_CALLBACKS]
    if sync and trainer.model.dtype in HALF and not has_sharded_weights(trainer):
        trainer.remove_callback(sync[0])
        # DeepSpeed is for models whose float32 average would not fit beside them on the GPU.
        device = torch.device("cpu") if trainer.is_deepspeed_enabled else None
        trainer.add_callback(WideEmaCallback(trainer.teacher_model, trainer.accelerator, device))


class WideEmaCallback(SyncTeacherModelCallback):
    """An exponential moving average that is kept in float32 and copied into a half-precision teacher.

    Args:
        teacher_model: what it is copied into.
        accelerator: the trainer's.
        device: where the average is kept; None for where each parameter is.

    Attributes:
        average: name and float32 value of each of the teacher's parameters. Costs four bytes for each of them.
    """

    def __init__(self, teacher_model: Any, accelerator: Any, device: torch.device | None = None):
        super().__init__(teacher_model=teacher_model, accelerator=accelerator)
        self.accelerator: Any = accelerator
        self.device = device
        self.keep(dict(accelerator.unwrap_model(teacher_model).named_parameters()))

    def keep(self, values: Mapping[str, Tensor]) -> None:
        """Take these values as the average; copies."""
        self.average = {
            name: value.detach().to(device=self.device, dtype=torch.float32, copy=True)
            for name, value in values.items()
        }

    @torch.no_grad()
    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Average, then round into the teacher."""
        if state.global_step % args.teacher_sync_steps != 0:
            return
        student = self.accelerator.unwrap_model(kwargs["model"])
        for name, value in student.named_parameters():
            average = self.average[name]
            average.lerp_(value.detach().to(average), args.teacher_update_rate)
        self.write()

    @torch.no_grad()
    def write(self) -> None:
        """Copy the average into the teacher."""
        for name, value in self.accelerator.unwrap_model(self.ref_model).named_parameters():
            value.copy_(self.average[name])


def has_sharded_weights(trainer: Any) -> bool:
    """Whether a process holds only a part of each weight: FSDP and DeepSpeed ZeRO-3."""
    stage = trainer.accelerator.state.deepspeed_plugin.zero_stage if trainer.is_deepspeed_enabled else 0
    return bool(trainer.is_fsdp_enabled or stage == 3)


def adapter_callback(trainer: Any) -> PEFTAdapterEMACallback | None:
    """The callback that keeps a LoRA teacher, or None."""
    return _callback(trainer, ADAPTER_CALLBACKS) if trainer._use_peft_ema_teacher_adapter() else None


def wide_callback(trainer: Any) -> WideEmaCallback | None:
    """The callback that keeps a float32 average, or None."""
    return _callback(trainer, WideEmaCallback)


def _callback(trainer: Any, cls: type | tuple[type, ...]) -> Any:
    return next((c for c in trainer.callback_handler.callbacks if isinstance(c, cls)), None)
