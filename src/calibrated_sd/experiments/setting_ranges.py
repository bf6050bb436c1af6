"""Numbers of a training run that could not mean anything, and that no library asks about before the run has started."""

from __future__ import annotations

import math
from typing import Any

from calibrated_sd.errors import ConfigError, shortened

COUNTS = (
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
    *("num_generations", "num_generations_eval", "num_iterations", "steps_per_generation", "generation_batch_size"),
    *("max_completion_length", "max_prompt_length", "max_length", "distillation_topk", "teacher_sync_steps"),
)
"""Whole numbers from 1; None where a setting has that."""
NOT_NEGATIVE = (
    *("learning_rate", "weight_decay", "max_grad_norm", "warmup_steps", "epsilon", "epsilon_high", "beta"),
    *("seed", "data_seed", "adam_epsilon", "dataloader_num_workers"),
)
POSITIVE = ("temperature", "num_train_epochs", "logging_steps", "repetition_penalty", "lora_alpha")
SHARES = (
    "distillation_alpha",
    "top_p",
    "teacher_update_rate",
    "vllm_gpu_memory_utilization",
    "adam_beta1",
    "adam_beta2",
)
IDLE = {
    "logging_steps": lambda settings: getattr(settings, "logging_strategy", None) != "steps",
    "num_train_epochs": lambda settings: getattr(settings, "max_steps", -1) > 0,
}
"""Numbers that nothing reads under these settings."""
MAY_BE_INFINITE = ("max_grad_norm",)


def check_ranges(settings: Any, where: str) -> None:
    """Check the numbers of a finished config.

    Args:
        settings: a config of any trainer; fields that it does not have are passed over.
        where: for the message, e.g. the recipe's path.

    Raises:
        ConfigError: a number outside of what can be meant.
    """
    for name, value in vars(settings).items():
        if isinstance(value, float) and math.isnan(value):
            raise _refused(name, where, "a number", value)
    for name in COUNTS:
        _check(settings, name, where, "a whole number from 1", lambda n: n >= 1)
    for name in NOT_NEGATIVE:
        _check(settings, name, where, "a number from 0", lambda x: x >= 0)
    for name in POSITIVE:
        if name in IDLE and IDLE[name](settings):
            continue
        _check(settings, name, where, "a number above 0", lambda x: x > 0)
    for name in SHARES:
        _check(settings, name, where, "a number from 0 to 1", lambda x: 0 <= x <= 1)
    for name in ("seed", "data_seed"):
        _check(settings, name, where, "a whole number below 2^32", lambda n: n < 2**32)
    if getattr(settings, "scale_rewards", "none") not in ("group", "batch", "none"):  # TRL would take it for "group"
        raise _refused(
            "scale_rewards", where, "group, batch or none (true and false are group and none)", settings.scale_rewards
        )
    if getattr(settings, "report_to", None) == [None]:
        raise ConfigError(f"report_to in {where} is null. Write none to report nowhere, or leave the line out.")
    _check(settings, "max_steps", where, "a whole number from 1, or -1 for whole epochs", lambda n: n >= 1 or n == -1)


def _check(settings: Any, name: str, where: str, wanted: str, right: Any) -> None:
    value = getattr(settings, name, None)
    if isinstance(value, (int, float)) and not (right(value) and (math.isfinite(value) or name in MAY_BE_INFINITE)):
        raise _refused(name, where, wanted, value)


def _refused(name: str, where: str, wanted: str, value: Any) -> ConfigError:
    return ConfigError(f"{name} in {where} must be {wanted}, got {shortened(value)}.")
