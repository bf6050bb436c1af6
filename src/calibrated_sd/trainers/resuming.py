"""Training from a checkpoint, also from that of the last step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerState

from calibrated_sd.trainers.callbacks import JsonlLogCallback
from calibrated_sd.trainers.finished import STATE


def train_from(trainer: Any, checkpoint: Path | None) -> None:
    """`trainer.train` from a checkpoint, or from the beginning. A run that has done all its steps is loaded only.

    transformers looks whether `max_steps` is reached after a step and not before it: a run that was killed between its
    last checkpoint and the saving of its model would do one step too many, unless the checkpoint ends an epoch. Sharded
    runs (DeepSpeed, FSDP) are loaded by the loop itself, so that step remains with them.
    """
    if checkpoint is None:
        trainer.train()
        return
    state = TrainerState.load_from_json(str(checkpoint / STATE))
    sharded = trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled
    if sharded or not 0 < trainer.args.max_steps <= state.global_step:
        trainer.train(resume_from_checkpoint=str(checkpoint))
        return
    trainer._load_from_checkpoint(str(checkpoint))
    state.is_world_process_zero = trainer.is_world_process_zero()
    state.max_steps = trainer.args.max_steps
    trainer.state = state
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, JsonlLogCallback):  # drops a line that was cut off
            callback.on_train_begin(trainer.args, state, trainer.control)
