"""How many steps, rollouts and tokens a run is, counted as TRL and transformers count them."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from calibrated_sd.errors import ConfigError, DataError

GROUPED = ("sdpo", "sdft", "grpo")
"""Trainers that sample `num_generations` completions of each prompt."""


@dataclass(frozen=True)
class Steps:
    """The length of a run.

    Attributes:
        optimizer_steps: updates of the weights; None where the run lasts epochs of data that are not at hand, and then so
            are `generation_batches`, `rollouts` and `completion_tokens_at_most`.
        generation_batches: how often new completions are sampled; 0 for SFT.
        prompts_per_generation: different prompts in one of them.
        rollouts_per_generation: completions in one of them, over all GPUs.
        rollouts: completions of the whole run.
        sequences_per_step: sequences in one update, over all GPUs.
        rows_per_gpu: sequences in one forward pass on one GPU.
        generated_rows_per_gpu: completions sampled at a time on one GPU.
        micro_batches_per_step: forward and backward passes per update on one GPU.
        completion_tokens_at_most: longest completion times the number of rollouts, or for SFT rows times their length.
        epochs: how often each problem is used; None where the data are not at hand.
        has_old_logps: whether rollouts outlive an update, so that their old log-probabilities are computed as well.
    """

    optimizer_steps: int | None
    generation_batches: int | None
    prompts_per_generation: int
    rollouts_per_generation: int
    rollouts: int | None
    sequences_per_step: int
    rows_per_gpu: int
    generated_rows_per_gpu: int
    micro_batches_per_step: int
    completion_tokens_at_most: int | None
    epochs: float | None
    has_old_logps: bool


def count_steps(run: Any, settings: Any, n_rows: int | None, stated: Collection[str] = ()) -> Steps:
    """Count the steps of a run.

    With groups, an epoch has ⌊rows / prompts per generation⌋ · num_iterations · steps_per_generation micro-batches on each
    GPU (TRL's `RepeatSampler` drops the rest), and an update takes `gradient_accumulation_steps` of them.

    Args:
        run: `RunArguments`: its ``trainer`` and ``gpus``.
        settings: the trainer's finished config, made on any machine.
        n_rows: rows of the training data; None if they are not at hand.
        stated: keys that the recipe states itself. The config fills `steps_per_generation` and `generation_batch_size`
            from one another for the number of processes on *this* machine, so it matters which of them was given.

    Raises:
        ConfigError: batch sizes that do not divide.
        DataError: fewer prompts than one generation batch takes: TRL would train 0 steps without a word.
    """
    rows, accumulation, gpus = settings.per_device_train_batch_size, settings.gradient_accumulation_steps, run.gpus
    per_step = rows * accumulation * gpus
    if run.trainer not in GROUPED:
        return _without_groups(run, settings, n_rows, per_step)
    group = settings.num_generations
    inner = settings.steps_per_generation
    if "generation_batch_size" in stated and gpus > 1:
        if settings.generation_batch_size % (rows * gpus):
            raise ConfigError(
                f"generation_batch_size ({settings.generation_batch_size}) must be divisible by "
                f"per_device_train_batch_size · gpus ({rows} · {gpus} = {rows * gpus}). Change one of the three."
            )
        inner = settings.generation_batch_size // (rows * gpus)
    batch = rows * gpus * inner
    if batch % group:
        raise ConfigError(
            f"One generation batch has {batch} completions (per_device_train_batch_size {rows} · gpus {gpus} · "
            f"steps_per_generation {inner}), which is not divisible by num_generations {group}. Change one of them."
        )
    prompts = batch // group
    if n_rows is not None and n_rows < prompts:
        raise DataError(
            f"The run has {n_rows} problems, but one generation batch takes {prompts} different ones (generation batch "
            f"{batch} / num_generations {group}); TRL would train 0 steps. Add `repeat_problems: true`, or use more "
            "problems or a smaller steps_per_generation."
        )
    iterations = settings.num_iterations
    per_epoch = None if n_rows is None else math.ceil(n_rows // prompts * iterations * inner / accumulation)
    steps = _steps(settings, per_epoch)
    batches = None if steps is None else math.ceil(steps * accumulation / (inner * iterations))
    rollouts = None if batches is None else batches * batch
    return Steps(
        optimizer_steps=steps,
        generation_batches=batches,
        prompts_per_generation=prompts,
        rollouts_per_generation=batch,
        rollouts=rollouts,
        sequences_per_step=per_step,
        rows_per_gpu=rows,
        generated_rows_per_gpu=rows * inner,
        micro_batches_per_step=accumulation,
        completion_tokens_at_most=_times(rollouts, settings.max_completion_length),
        epochs=None if n_rows is None or batches is None else round(batches * prompts / n_rows, 2),
        has_old_logps=accumulation % (inner * iterations) != 0,
    )


def _without_groups(run: Any, settings: Any, n_rows: int | None, per_step: int) -> Steps:
    """SFT takes each row once an epoch; the distillation trainer samples one completion of each prompt for each update."""
    rows, accumulation = settings.per_device_train_batch_size, settings.gradient_accumulation_steps
    samples = run.trainer == "distillation"
    if n_rows is not None and samples and n_rows < per_step:
        raise DataError(
            f"The run has {n_rows} problems, but one update takes {per_step} different ones "
            f"(per_device_train_batch_size {rows} · gradient_accumulation_steps {accumulation} · gpus {run.gpus}); TRL "
            "would train 0 steps. Add `repeat_problems: true`, or use more problems or a smaller batch."
        )
    per_epoch = None
    if n_rows is not None:
        per_epoch = n_rows // per_step if samples else math.ceil(math.ceil(n_rows / (rows * run.gpus)) / accumulation)
    steps = _steps(settings, per_epoch)
    length = settings.max_completion_length if samples else settings.max_length
    sequences = _times(steps, per_step)
    return Steps(
        optimizer_steps=steps,
        generation_batches=steps if samples else 0,
        prompts_per_generation=per_step if samples else 0,
        rollouts_per_generation=per_step if samples else 0,
        rollouts=sequences if samples else 0,
        sequences_per_step=per_step,
        rows_per_gpu=rows,
        generated_rows_per_gpu=rows * accumulation if samples else 0,
        micro_batches_per_step=accumulation,
        completion_tokens_at_most=_times(sequences, length),
        epochs=None if n_rows is None or sequences is None else round(sequences / n_rows, 2),
        has_old_logps=False,
    )


def _steps(settings: Any, per_epoch: int | None) -> int | None:
    if settings.max_steps > 0:
        return settings.max_steps
    return None if per_epoch is None else math.ceil(settings.num_train_epochs * max(1, per_epoch))


def _times(count: int | None, factor: int | None) -> int | None:
    return None if count is None else count * (factor or 0)
