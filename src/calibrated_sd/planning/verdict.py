"""Whether a plan fits, and which setting would make it fit, found by trying changes in the planner."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from calibrated_sd.errors import CalibratedSDError
from calibrated_sd.planning.memory import GIB, amount
from calibrated_sd.planning.training_state import sharding

Peak = Callable[[Any, Any], int]
"""Bytes at the peak, from a run and its settings."""


@dataclass(frozen=True)
class Change:
    """One thing to try.

    Attributes:
        text: as it would stand in the recipe.
        fields: new values of the trainer's settings.
        run_fields: new values of the run's arguments.
    """

    text: str
    fields: dict[str, Any]
    run_fields: dict[str, Any]

    def apply(self, run: Any, settings: Any) -> tuple[Any, Any]:
        """Copies with the change; the config's own checks are not run again."""
        changed = copy.copy(settings)
        for name, value in self.fields.items():
            setattr(changed, name, value)
        other = copy.copy(run)
        for name, value in self.run_fields.items():
            setattr(other, name, value)
        return other, changed


def candidates(run: Any, settings: Any) -> Iterator[Change]:
    """Changes worth trying, those that leave the run's results alone first."""

    def change(text: str, run_fields: dict[str, Any] | None = None, **fields: Any) -> Change:
        return Change(text, fields, run_fields or {})

    kind = sharding(settings)
    if not settings.gradient_checkpointing:
        yield change("gradient_checkpointing: true", gradient_checkpointing=True)
    chunks = hasattr(settings, "chunk_size") and kind not in ("zero3", "fsdp") and run.trainer != "sft"
    if chunks and settings.chunk_size is None and getattr(settings, "distillation_weight", 1.0) > 0:
        yield change("chunk_size: 256", chunk_size=256)
    rows, accumulation = settings.per_device_train_batch_size, settings.gradient_accumulation_steps
    if rows > 1:
        fields: dict[str, Any] = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": accumulation * rows}
        if getattr(settings, "steps_per_generation", None):
            fields["steps_per_generation"] = settings.steps_per_generation * rows
        text = ", ".join(f"{name}: {value}" for name, value in fields.items())
        yield change(text, **fields)
    if getattr(settings, "use_vllm", False) and settings.vllm_mode == "colocate":
        if not settings.vllm_enable_sleep_mode:
            yield change("vllm_enable_sleep_mode: true", vllm_enable_sleep_mode=True)
        if settings.vllm_gpu_memory_utilization > 0.2:
            yield change("vllm_gpu_memory_utilization: 0.2", vllm_gpu_memory_utilization=0.2)
    elif hasattr(settings, "use_vllm"):
        yield change("use_vllm: true, vllm_mode: server", use_vllm=True, vllm_mode="server")
    if run.gpus > 1 and kind == "ddp":
        yield change("a DeepSpeed configuration with ZeRO stage 2", deepspeed={"zero_optimization": {"stage": 2}})
        if getattr(settings, "chunk_size", None) is None:
            yield change("a DeepSpeed configuration with ZeRO stage 3", deepspeed={"zero_optimization": {"stage": 3}})
    if not run.lora_r:
        yield change("lora_r: 64", {"lora_r": 64})
    if run.gpus < 8:
        many = {"deepspeed": {"zero_optimization": {"stage": 2}}}
        yield change("gpus: 8 with ZeRO stage 2", {"gpus": 8}, **many)
    longest = getattr(settings, "max_completion_length", None)
    if longest and longest > 2048:
        yield change(f"max_completion_length: {longest // 2}", max_completion_length=longest // 2)


def advice(run: Any, settings: Any, peak: Peak, limit: int) -> str:
    """One sentence with the change that fits with the fewest settings, and what it would give."""
    before = peak(run, settings)
    options = list(candidates(run, settings))
    best: tuple[int, str] | None = None
    for n in (1, 2, 3):
        for chosen in itertools.combinations(options, n):
            after = _try(run, settings, chosen, peak)
            if after is None:
                continue
            text = " and ".join(change.text for change in chosen)
            if after <= limit:
                return f"Set {text}: {before / GIB:.1f} → {after / GIB:.1f} GiB."
            if best is None or after < best[0]:
                best = after, text
    if best is None:
        return "No change that the planner knows makes it smaller."
    return (
        f"No change that the planner knows makes it fit; the smallest found is {best[0] / GIB:.1f} GiB with {best[1]}. "
        "Take a smaller model or larger GPUs."
    )


def _try(run: Any, settings: Any, chosen: tuple[Change, ...], peak: Peak) -> int | None:
    names = [name for change in chosen for name in (*change.fields, *change.run_fields)]
    if len(names) != len(set(names)):
        return None  # two changes of the same setting
    for change in chosen:
        run, settings = change.apply(run, settings)
    if getattr(settings, "chunk_size", None) is not None and sharding(settings) in ("zero3", "fsdp"):
        return None  # the chunked loss cannot reach a sharded head
    try:
        return peak(run, settings)
    except CalibratedSDError:
        return None


def judge(run: Any, settings: Any, peak: Peak) -> tuple[bool | None, str]:
    """(fits, paragraph): None and an explanation where `gpu_memory_gib` was not given."""
    needed = peak(run, settings)
    one = "1 GPU" if run.gpus == 1 else f"each of {run.gpus} GPUs"
    if run.gpu_memory_gib is None:
        return None, f"About {amount(needed)} on {one}. Give gpu_memory_gib to have it judged."
    limit = int(run.gpu_memory_gib * GIB)
    where = f"{one} of {run.gpu_memory_gib:g} GiB"
    if needed <= limit:
        tight = " That is close: the estimate may be 20 % off." if needed > 0.8 * limit else ""
        return True, f"It fits: about {amount(needed)} on {where}.{tight}"
    return False, (
        f"This run does not fit: it needs about {amount(needed)} on {where}. {advice(run, settings, peak, limit)}"
    )
