"""The plan of one training run: steps, memory and verdict together."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from calibrated_sd.planning.memory import GIB, Memory, estimate_memory
from calibrated_sd.planning.model_shape import ModelShape
from calibrated_sd.planning.steps import Steps, count_steps
from calibrated_sd.planning.verdict import judge


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    Attributes:
        shape: the model's sizes.
        steps: its length.
        memory: of one GPU.
        fits: False where it exceeds `gpu_memory_gib`; None where that was not given.
        verdict: one paragraph.
    """

    shape: ModelShape
    steps: Steps
    memory: Memory
    fits: bool | None
    verdict: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file; sizes in bytes, the peak also in GiB."""
        phases = self.memory.phases
        return {
            **asdict(self),
            "n_parameters": self.shape.n_parameters,
            "phases": phases,
            "peak_gib": round(self.memory.peak / GIB, 2),
        }


def plan_run(
    run: Any,
    settings: Any,
    model_shape: ModelShape,
    *,
    n_rows: int | None = None,
    prompt_tokens: int | None = None,
    stated: Collection[str] = (),
) -> Plan:
    """Plan a run without loading anything.

    Args:
        run: `RunArguments` of the recipe.
        settings: the trainer's finished config.
        model_shape: from `model_shape`.
        n_rows: rows of the training data; None if they are not at hand.
        prompt_tokens: the longest prompt in tokens; None to assume the recipe's limit.
        stated: keys that the recipe states itself, see `count_steps`.

    Raises:
        ConfigError, DataError: a run that would be refused, or would train 0 steps.
    """

    def memory_of(run: Any, settings: Any) -> Memory:
        steps = count_steps(run, settings, n_rows, stated)
        return estimate_memory(run, settings, model_shape, steps, prompt_tokens)

    fits, verdict = judge(run, settings, lambda run, settings: memory_of(run, settings).peak)
    return Plan(model_shape, count_steps(run, settings, n_rows, stated), memory_of(run, settings), fits, verdict)
