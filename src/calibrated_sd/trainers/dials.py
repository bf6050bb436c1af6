"""Everything that turns over a run: the strength, the weights of the context levels, a gate. And how it is remembered.

A schedule depends on the step alone. A controller, a gate and a triggered schedule look at what happened, so they have a
memory. It is updated once for each optimizer step, from sums over all processes, and it goes into the checkpoint.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from calibrated_sd.calibrators import Calibrator, build_controller, build_schedule
from calibrated_sd.calibrators.context_schedule import build_context_schedule
from calibrated_sd.errors import DataError
from calibrated_sd.records import write_json
from calibrated_sd.trainers.config import CalibrationFields
from calibrated_sd.trainers.teacher_context.config import ContextPlan

DIALS_FILE = "calibration_state.json"
"""What the dials remember, in a checkpoint."""


class Dials:
    """The dials of one run.

    Args:
        settings: the config's calibration fields.
        calibrator: the method whose strength is turned.
        plan: the context levels, or None.
    """

    def __init__(self, settings: CalibrationFields, calibrator: Calibrator, plan: ContextPlan | None):
        self._schedule = build_schedule(settings.calibration_schedule, settings.calibration_strength)
        self.controller = build_controller(
            settings.calibration_controller, settings.calibration_strength, calibrator.strength_range
        )
        build_gate = getattr(calibrator, "build_gate", None)
        self.gate = build_gate() if build_gate is not None and settings.is_calibrated else None
        self._contexts = None
        if plan is not None and plan.schedule is not None:
            self._contexts = build_context_schedule(plan.schedule, plan.levels)

    @property
    def has_memory(self) -> bool:
        """True if something has to be told what happened; a matter of settings, the same on every process."""
        has_triggered = self._contexts is not None and bool(self._contexts.state_dict())
        return self.controller is not None or self.gate is not None or has_triggered

    @property
    def observes_mass(self) -> bool:
        """True if the controller looks at marker masses, which somebody then has to measure."""
        return self.controller is not None and self.controller.observe != "density"

    def strength(self, step: int, total_steps: int) -> float:
        """The strength at an optimizer step, counted from 0."""
        if self.gate is not None and not self.gate.is_open:
            return 0.0
        if self.controller is not None:
            return self.controller.strength
        return self._schedule.strength(step, total_steps)

    def context_weights(self, plan: ContextPlan, step: int, total_steps: int) -> dict[str, float]:
        """Weight of each context level at an optimizer step; all of the plan's levels, zeros included."""
        return plan.levels if self._contexts is None else self._contexts.weights(step, total_steps)

    def advance(self, sums: Mapping[str, float]) -> None:
        """Look at one optimizer step.

        Args:
            sums: those of `metrics.SUMS`, added over all processes and micro-batches of the step. A step without new
                rollouts has no markers to count and says nothing about their rate.
        """
        is_shut = self.gate is not None and not self.gate.is_open  # nothing acts, so there is nothing to control
        if (
            self.controller is not None
            and not is_shut
            and (sums["completion_tokens"] > 0 or self.controller.observe == "retention")
        ):
            self.controller.update(sums)
        if self.gate is not None and sums["n_entropy"] > 0:
            self.gate.update(sums["gate_entropy"] / sums["n_entropy"])
        if self._contexts is not None and sums["completion_tokens"] > 0:
            self._contexts.update(sums["markers"], sums["completion_tokens"])

    def state_dict(self) -> dict[str, Any]:
        """Everything that is remembered; can be written as JSON."""
        parts = {"controller": self.controller, "gate": self.gate, "contexts": self._contexts}
        return {name: part.state_dict() for name, part in parts.items() if part is not None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`; a part that the state lacks starts anew."""
        parts = {"controller": self.controller, "gate": self.gate, "contexts": self._contexts}
        for name, part in parts.items():
            if part is not None and name in state:
                part.load_state_dict(state[name])


class DialCallback(TrainerCallback):
    """Turns the dials after each optimizer step, before the checkpoint of that step is written.

    Args:
        trainer: a calibrated trainer; every process makes one.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """One collective, whatever the data were."""
        trainer = self.trainer
        if trainer.dials.has_memory:
            trainer.dials.advance(trainer.step_sums.pop("train", trainer.accelerator))


def checkpoint_folder(trainer: Any, trial: Any) -> Path:
    """Where the checkpoint of the present step lies."""
    return Path(trainer._get_output_dir(trial=trial)) / f"checkpoint-{trainer.state.global_step}"


def save_dials(trainer: Any, folder: Path) -> None:
    """Write what the dials remember into a checkpoint; the main process alone does."""
    if trainer.args.should_save:
        write_json(folder / DIALS_FILE, trainer.dials.state_dict())


def load_dials(trainer: Any, checkpoint: str | Path | None) -> None:
    """Continue from what `save_dials` wrote; warns if there is nothing where there should be.

    Raises:
        DataError: the file is broken.
    """
    if checkpoint is None:
        return
    path = Path(checkpoint) / DIALS_FILE
    if path.exists():
        try:
            trainer.dials.load_state_dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} cannot be read: {error}. Resume from another checkpoint.") from error
    elif trainer.dials.has_memory:
        warnings.warn(
            f"{checkpoint} holds no {DIALS_FILE}: controller, gate and triggered schedule start anew.", stacklevel=2
        )
