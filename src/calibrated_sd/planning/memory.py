"""Memory of one GPU, part by part and phase by phase. A plan for people, not an allocator: the docs state its error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from calibrated_sd.planning.loss_memory import (
    FRAGMENT,
    activation_parts,
    generation_parts,
    loss_parts,
    old_logps_parts,
)
from calibrated_sd.planning.model_shape import ModelShape
from calibrated_sd.planning.steps import Steps
from calibrated_sd.planning.training_state import Part, sharding, state_parts

ALWAYS = "always"
GIB = 2**30
MIB = 2**20
DEFAULT_PROMPT = 512
"""Tokens of a prompt where neither the data nor the recipe say; TRL's default for its longest."""


def amount(size: int) -> str:
    """Bytes for people."""
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / MIB:.1f} MiB"


@dataclass(frozen=True)
class Memory:
    """Estimated memory of one GPU.

    Attributes:
        parts: every part, each in one phase.
        prompt_tokens, teacher_prompt_tokens, completion_tokens: lengths that were assumed: the longest.
    """

    parts: tuple[Part, ...]
    prompt_tokens: int
    teacher_prompt_tokens: int
    completion_tokens: int

    @property
    def phases(self) -> dict[str, int]:
        """Bytes in each phase, what is always there included."""
        always = sum(part.size for part in self.parts if part.phase == ALWAYS)
        names = dict.fromkeys(part.phase for part in self.parts if part.phase != ALWAYS)
        return {n: always + sum(p.size for p in self.parts if p.phase == n) for n in names} or {ALWAYS: always}

    @property
    def peak(self) -> int:
        """Bytes in the largest phase."""
        return max(self.phases.values())

    @property
    def peak_phase(self) -> str:
        """The largest phase."""
        return max(self.phases, key=lambda name: self.phases[name])


def estimate_memory(run: Any, settings: Any, shape: ModelShape, steps: Steps, prompt_tokens: int | None) -> Memory:
    """Estimate the memory of one GPU.

    Args:
        run: `RunArguments`.
        settings: the trainer's config.
        shape: of the model.
        steps: from `count_steps`.
        prompt_tokens: the longest prompt; None where it is not known.
    """
    prompt, teacher, completion = _lengths(run, settings, prompt_tokens)
    rows = steps.rows_per_gpu
    teaches = run.trainer in ("sdpo", "sdft", "distillation") and getattr(settings, "distillation_weight", 1.0) > 0
    parts = [
        *state_parts(run, settings, shape),
        Part("CUDA context, allocator", 0 if settings.use_cpu else FRAGMENT, note="assumed"),
        *_gathered(settings, shape),
        *generation_parts(run, settings, shape, steps, prompt, completion),
        *old_logps_parts(settings, shape, steps, completion),
        *activation_parts(
            settings, shape, rows * (prompt + completion), rows * (teacher + completion) if teaches else 0
        ),
        *loss_parts(run, settings, shape, rows, completion),
    ]
    return Memory(tuple(part for part in parts if part.size), prompt, teacher, completion)


def _gathered(settings: Any, shape: ModelShape) -> list[Part]:
    """Sharded weights are gathered a block at a time; the embedding and the head are blocks of their own."""
    if sharding(settings) not in ("zero3", "fsdp"):
        return []
    block = max(shape.layer_parameters, shape.head_parameters)
    return [Part("gathered blocks", 2 * 2 * block, note="two at a time, half precision")]


def _lengths(run: Any, settings: Any, known: int | None) -> tuple[int, int, int]:
    """Prompt, teacher's prompt and completion in tokens, each at its longest."""
    if run.trainer == "sft":
        length = settings.max_length or 0
        return 0, 0, length or (known or DEFAULT_PROMPT) * 2
    completion = settings.max_completion_length or 0
    limit = getattr(settings, "max_prompt_length", None)
    prompt = known if known is not None else limit or DEFAULT_PROMPT
    if limit is not None:
        prompt = min(prompt, limit)
    if run.trainer == "grpo":
        return prompt, 0, completion
    # A demonstration is at most a completion long; the frame around it takes some tokens.
    teacher = prompt + completion + 64
    longest = getattr(settings, "max_reprompt_len", None)
    return prompt, min(teacher, longest) if longest else teacher, completion
