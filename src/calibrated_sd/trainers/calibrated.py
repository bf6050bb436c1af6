"""What all trainers with a calibrator have in common, whatever TRL class they extend.

Settings and what follows from them, the dials, and figures that are kept as sums. Where the loss is made differs.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch

from calibrated_sd.calibrators import Calibrator
from calibrated_sd.errors import ConfigError
from calibrated_sd.markers import MarkerSet, marker_token_ids
from calibrated_sd.shapes import MarkerIds
from calibrated_sd.trainers.checks import check_vocabulary
from calibrated_sd.trainers.config import CalibrationFields
from calibrated_sd.trainers.data_order import ResumableOrder
from calibrated_sd.trainers.dials import DialCallback, Dials
from calibrated_sd.trainers.metrics import TokenSums, figures
from calibrated_sd.trainers.monitoring.low_density import BaseDensity
from calibrated_sd.trainers.non_finite import GuardedSteps
from calibrated_sd.trainers.teacher_context.config import ContextPlan


class Calibrated(GuardedSteps):
    """Put it before a TRL trainer in the bases, and call `_open_calibration` at the end of the constructor."""

    def _open_calibration(self, settings: CalibrationFields, plan: ContextPlan | None) -> None:
        """Make what depends on the settings and the tokenizer alone."""
        check_vocabulary(self.model, self._tokenizer)
        self.calibration = settings
        self.calibrator: Calibrator = settings.make_calibrator()
        self.context_plan = plan
        self.dials = Dials(settings, self.calibrator, plan)
        self._sums = TokenSums()
        self.step_sums = TokenSums()
        """Sums of the present optimizer step, for the dials."""
        self.markers = MarkerSet.load(settings.calibration_markers)
        self.held_out_markers = MarkerSet.load("held_out")
        self.base_density = BaseDensity(self.markers.name, warns=self.accelerator.is_main_process)
        self.marker_ids = self._find_marker_ids()
        wanted = settings.calibration_metrics != "off" or self.dials.observes_mass
        self.measures_distributions = wanted and self.marker_ids is not None
        self.add_callback(DialCallback(self))
        self._open_guard(settings)

    def _find_marker_ids(self) -> MarkerIds | None:
        """The markers' ids in this tokenizer; None, with a warning, if it has none and nothing depends on them."""
        try:
            return marker_token_ids(self._tokenizer, self.markers).to(self.accelerator.device)
        except ConfigError as error:
            mixes_to_floor = self.context_plan is not None and self.context_plan.mixing == "mix_to_floor"
            acts = self.calibration.is_calibrated and self.calibrator.needs_markers
            if acts or mixes_to_floor or self.calibration.topk_markers:
                raise
            if self.calibration.calibration_metrics != "off":
                warnings.warn(f"{error} The figures under `calibration/` are left out.", stacklevel=2)
            return None

    def _needs_reference(self) -> bool:
        """True if the calibrator, the figures or the controller need the context-free initial model."""
        settings, calibrator = self.calibration, self.calibrator
        return (
            (settings.is_calibrated and (calibrator.needs_reference or calibrator.needs_context_only))
            or (settings.calibration_metrics == "full" and self.measures_distributions)
            or self.dials.observes_mass
        )

    @property
    def mode(self) -> str:
        """``"train"`` or ``"eval"``."""
        model: Any = self.model
        return "train" if model.training else "eval"

    def current_strength(self) -> float:
        """The strength at the present optimizer step."""
        if not self.calibration.is_calibrated:
            return 0.0
        # Before train() the length of the run is not known; at step 0 it does not matter.
        return self.dials.strength(self.state.global_step, max(1, self.state.max_steps))

    def context_weights(self) -> dict[str, float]:
        """Weight of each context level at the present optimizer step."""
        assert self.context_plan is not None
        return self.dials.context_weights(self.context_plan, self.state.global_step, max(1, self.state.max_steps))

    def add_sums(self, mode: str, sums: dict[str, Any]) -> None:
        """Add to the figures that are logged, and to those that the dials look at."""
        self._sums.add(mode, sums)
        if mode == "train" and self.dials.has_memory:
            self.step_sums.add(mode, sums)

    def add_text_sums(self, mode: str, sums: dict[str, Any]) -> None:
        """The same for what was counted in fresh completions; the first of them tell how much the model doubts by itself."""
        self.base_density.observe(sums, self.state.global_step, mode)
        self.add_sums(mode, sums)

    def training_step(self, model, inputs, num_items_in_batch=None):
        return self._guarded(super().training_step(model, inputs, num_items_in_batch))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.calibration.calibration_metrics != "off":
            for name, value in figures(self._sums.pop(self.mode, self.accelerator)).items():
                self._metrics[self.mode][name].append(value)
        super().log(logs, start_time)

    def _get_train_sampler(self, dataset=None):
        return ResumableOrder(super()._get_train_sampler(dataset), self)


def default_arguments(config: type, model: Any, method: str) -> Any:
    """What `args=None` means: TRL's defaults, and a folder named after the model and the method."""
    name = model if isinstance(model, str) else getattr(model.config, "_name_or_path", "") or "model"
    # TRL's default of bf16 needs an accelerator, or to be told that there is none.
    no_accelerator = not torch.accelerator.is_available()
    return config(f"{name.rstrip('/').split('/')[-1]}-{method}", use_cpu=no_accelerator)
