"""Keep a moving teacher across checkpoints.

TRL's checkpoints hold the student only. After a resume a fully fine-tuned EMA teacher starts again from the initial
weights without a word, and a LoRA one crashes because its adapter is created twice.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from calibrated_sd.trainers._trl import PEFTAdapterEMACallback

TEACHER_FILE = "ema_teacher.safetensors"


def _adapter_callback(trainer: Any) -> PEFTAdapterEMACallback | None:
    if not trainer._use_peft_ema_teacher_adapter():
        return None
    found = [c for c in trainer.callback_handler.callbacks if isinstance(c, PEFTAdapterEMACallback)]
    return found[0] if found else None


def _has_full_ema_teacher(trainer: Any) -> bool:
    return trainer.args.teacher_model_kind == "ema" and trainer.teacher_model is not trainer.model


def create_adapter_teacher(trainer: Any) -> None:
    """Create the LoRA teacher's adapter now, and not when training begins.

    A resumed run then loads into it, and `evaluate()` works before `train()`.
    """
    callback = _adapter_callback(trainer)
    if callback is not None:
        callback._initialize_teacher_adapter()


def save_teacher(trainer: Any, trial: Any) -> None:
    """Write the EMA teacher into the checkpoint that was just saved. Every process must call it.

    Full fine-tuning: `ema_teacher.safetensors`. LoRA: nothing to do, PEFT writes the adapter `teacher/` itself.
    """
    if not _has_full_ema_teacher(trainer):
        return
    folder = os.path.join(trainer._get_output_dir(trial=trial), f"checkpoint-{trainer.state.global_step}")
    state = trainer.accelerator.get_state_dict(trainer.teacher_model)
    if trainer.args.should_save:
        # Tied weights share memory, which the format does not allow: write each tensor on its own.
        save_file({name: value.detach().cpu().clone() for name, value in state.items()}, f"{folder}/{TEACHER_FILE}")


def load_teacher(trainer: Any, checkpoint: str | None) -> None:
    """Restore the EMA teacher from a checkpoint; warns if it was written without one."""
    if checkpoint is None:
        return
    callback = _adapter_callback(trainer)
    if callback is not None:
        _refill_shadow(trainer, callback)
    elif _has_full_ema_teacher(trainer):
        path = os.path.join(checkpoint, TEACHER_FILE)
        if not os.path.exists(path):
            warnings.warn(
                f"{checkpoint} holds no {TEACHER_FILE} (TRL's own trainer writes none): the EMA teacher starts again "
                "from the initial weights.",
                stacklevel=2,
            )
            return
        teacher = trainer.accelerator.unwrap_model(trainer.teacher_model)
        teacher.load_state_dict(load_file(path, device=str(trainer.accelerator.device)))


def _refill_shadow(trainer: Any, callback: PEFTAdapterEMACallback) -> None:
    """The callback averages a shadow of the adapter; PEFT has loaded the adapter, so copy it back."""
    from peft import get_peft_model_state_dict

    model = trainer.accelerator.unwrap_model(trainer.model)
    with torch.no_grad():
        loaded = get_peft_model_state_dict(model, adapter_name=callback.teacher_adapter_name)
        callback.shadow_weights = {name: value.detach().clone() for name, value in loaded.items()}
