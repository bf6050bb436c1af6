"""Keep across checkpoints what TRL forgets: a moving teacher, the dials, and rollouts that are not used up.

TRL's checkpoints hold the student only. After a resume a fully fine-tuned EMA teacher starts again from the initial
weights without a word, and a LoRA one crashes because its adapter is created twice. A checkpoint between two steps of
the same rollouts resumes with new ones.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from calibrated_sd.errors import DataError
from calibrated_sd.trainers.dials import DIALS_FILE, checkpoint_folder, load_dials, save_dials
from calibrated_sd.trainers.teacher import adapter_callback, wide_callback

TEACHER_FILE = "ema_teacher.safetensors"


def save_progress(trainer: Any, trial: Any) -> None:
    """Write our part of the checkpoint that is about to be saved. Every process must call it."""
    folder = checkpoint_folder(trainer, trial)
    folder.mkdir(parents=True, exist_ok=True)
    _save_teacher(trainer, folder)
    save_dials(trainer, folder)
    _save_rollouts(trainer, folder)


def load_progress(trainer: Any, checkpoint: str | None) -> None:
    """Restore what `save_progress` wrote; warns if the checkpoint was written without it."""
    if checkpoint is None:
        return
    folder = Path(checkpoint)
    _load_teacher(trainer, folder)
    load_dials(trainer, folder)
    _load_rollouts(trainer, folder)


def load_trained_adapter(trainer: Any, folder: Path) -> None:
    """Load the student's adapter where the teacher's lies in a subfolder: transformers 5.17 then loads subfolders only.

    The student would start again from its first weights without a word. Later releases load both, and nothing changes.
    """
    from peft import set_peft_model_state_dict
    from peft.utils import SAFETENSORS_WEIGHTS_NAME

    path = folder / SAFETENSORS_WEIGHTS_NAME
    if adapter_callback(trainer) is None or trainer.is_fsdp_enabled or not path.is_file():
        return
    set_peft_model_state_dict(trainer.accelerator.unwrap_model(trainer.model), load_file(path), adapter_name="default")


# ---- teacher -------------------------------------------------------------------------------------------------------


def _has_full_ema_teacher(trainer: Any) -> bool:
    return trainer.args.teacher_model_kind == "ema" and trainer.teacher_model is not trainer.model


def _save_teacher(trainer: Any, folder: Path) -> None:
    """Full fine-tuning: the teacher's weights, or their float32 average. LoRA: the average of the factors."""
    adapter, wide = adapter_callback(trainer), wide_callback(trainer)
    if adapter is not None:
        state: dict[str, Tensor] = dict(adapter.shadow_weights or {})
    elif wide is not None:
        state = wide.average
    elif _has_full_ema_teacher(trainer):
        state = trainer.accelerator.get_state_dict(trainer.teacher_model)
    else:
        return
    if trainer.args.should_save:
        _save_tensors(state, folder / TEACHER_FILE)


def _load_teacher(trainer: Any, folder: Path) -> None:
    adapter, wide = adapter_callback(trainer), wide_callback(trainer)
    if adapter is None and not _has_full_ema_teacher(trainer):
        return
    path = folder / TEACHER_FILE
    if not path.exists() and (folder / DIALS_FILE).exists():  # both are written, or neither
        raise DataError(
            f"{folder} lacks {TEACHER_FILE}, the moving teacher, so a run that went on from it would be another one. Delete "
            "that folder to go on from the checkpoint before it, or put the file back from a copy."
        )
    if not path.exists():
        if adapter is not None:
            _refill_shadow(trainer, adapter)  # PEFT has loaded the adapter itself
            return
        warnings.warn(
            f"{folder} holds no {TEACHER_FILE} (TRL's own trainer writes none): the EMA teacher starts again from the "
            "initial weights.",
            stacklevel=2,
        )
        return
    state = _load_tensors(path, trainer.accelerator.device)
    if adapter is not None:
        adapter.shadow_weights = state
        _write_adapter(trainer, adapter)
    elif wide is not None:
        wide.keep(state)
        wide.write()
    else:
        trainer.accelerator.unwrap_model(trainer.teacher_model).load_state_dict(state)


def _refill_shadow(trainer: Any, callback: Any) -> None:
    from peft import get_peft_model_state_dict

    model = trainer.accelerator.unwrap_model(trainer.model)
    with torch.no_grad():
        loaded = get_peft_model_state_dict(model, adapter_name=callback.teacher_adapter_name)
        callback.shadow_weights = {name: value.detach().clone().float() for name, value in loaded.items()}


def _write_adapter(trainer: Any, callback: Any) -> None:
    from peft import set_peft_model_state_dict

    model = trainer.accelerator.unwrap_model(trainer.model)
    set_peft_model_state_dict(model, callback.shadow_weights, adapter_name=callback.teacher_adapter_name)


# ---- rollouts ------------------------------------------------------------------------------------------------------


def _rollout_file(trainer: Any, folder: Path) -> Path:
    return folder / f"rollouts_{trainer.accelerator.process_index}.safetensors"


def _generate_every(trainer: Any) -> int:
    return trainer.args.steps_per_generation * trainer.num_iterations


def _save_rollouts(trainer: Any, folder: Path) -> None:
    """Each process its own rollouts, if some steps with them are still to come."""
    if trainer._buffered_inputs is None or trainer._step % _generate_every(trainer) == 0:
        return
    tensors = {
        f"{index}/{key}": value
        for index, part in enumerate(trainer._buffered_inputs)
        for key, value in part.items()
        if isinstance(value, Tensor)
    }
    _save_tensors(tensors, _rollout_file(trainer, folder), _rollout_settings(trainer))


def _rollout_settings(trainer: Any) -> dict[str, str]:
    """What has to be the same for saved rollouts to be of use."""
    return {
        "processes": str(trainer.accelerator.num_processes),
        "rows": str(trainer.args.per_device_train_batch_size),
        "steps_per_generation": str(trainer.args.steps_per_generation),
    }


def _load_rollouts(trainer: Any, folder: Path) -> None:
    steps = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME)).global_step
    trainer._step = steps * trainer.args.gradient_accumulation_steps
    path = _rollout_file(trainer, folder)
    if trainer._step % _generate_every(trainer) == 0:
        return
    usable = torch.tensor(float(_can_use(path, trainer)), device=trainer.accelerator.device)
    # All processes or none: one that samples anew waits for the others' rewards.
    if trainer.accelerator.reduce(usable, reduction="sum").item() < trainer.accelerator.num_processes:
        warnings.warn(
            f"{folder} lies between two steps of the same rollouts and holds none that fit this run (saved by another "
            "trainer, or with another number of processes or other batch sizes): the run goes on with new rollouts.",
            stacklevel=2,
        )
        return
    parts: dict[int, dict[str, Tensor]] = {}
    for name, value in _load_tensors(path, trainer.accelerator.device).items():
        index, key = name.split("/", 1)
        parts.setdefault(int(index), {})[key] = value
    trainer._buffered_inputs = [parts[index] for index in sorted(parts)]


def _can_use(path: Path, trainer: Any) -> bool:
    if not path.exists():
        return False
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}) == _rollout_settings(trainer)


def _load_tensors(path: Path, device: torch.device) -> dict[str, Tensor]:
    # Processes on one CPU call it "cpu:0", "cpu:1", …, which the format's own loader does not know.
    return {name: value.to(device) for name, value in load_file(path).items()}


def _save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    # Tied weights and slices share memory, which the format does not allow: write each tensor on its own.
    alone = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    temporary = path.with_suffix(".tmp")
    save_file(alone, temporary, metadata)
    os.replace(temporary, path)
