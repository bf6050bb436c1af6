"""The overrides that turn a TRL self-distillation trainer into a calibrated one.

Each override calls `super()` and changes its result only where a knob is turned, so that with all knobs at their
defaults every number is TRL's. Two rules hold throughout: a target is edited where the logits are made, everything else
happens where the loss is made; and no collective is called under a condition that depends on data.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import set_seed
from torch import Tensor

from calibrated_sd.calibrators import (
    Calibrator,
    Penalty,
    Target,
    Views,
    Weight,
    build_calibrator,
    build_schedule,
)
from calibrated_sd.errors import ConfigError
from calibrated_sd.markers import MarkerSet, count_markers, marker_token_ids
from calibrated_sd.objectives import reduce_loss
from calibrated_sd.shapes import Logps, MarkerIds, PerToken, Scalar
from calibrated_sd.trainers import checkpoint as teacher_checkpoint
from calibrated_sd.trainers._trl import (
    DistillationLogits,
    SDPOTrainer,
    apply_importance_sampling_clipping,
    compute_full_logit_self_distillation_loss,
    compute_sampled_token_self_distillation_loss,
    compute_topk_self_distillation_loss,
    selective_log_softmax,
)
from calibrated_sd.trainers.checks import check_prompt_lengths
from calibrated_sd.trainers.config import LOSS_REDUCTIONS, CalibrationFields, ContextPlan, as_mapping
from calibrated_sd.trainers.context_builder import LevelContextBuilder, level_inputs
from calibrated_sd.trainers.level_mixture import combine_levels
from calibrated_sd.trainers.metrics import TokenSums, distribution_sums, figures
from calibrated_sd.trainers.reference import ContextFreeReference

# For the type checker the mixin is what it will be mixed into; at run time it has no base of its own.
Host: Any = SDPOTrainer if TYPE_CHECKING else object


@dataclass
class CalibratedLogits(DistillationLogits):
    """TRL's logits and what a calibrator made of them. `teacher_logits` is what the student imitates.

    Attributes:
        penalty: to be added to the loss of each token, already multiplied by the strength, (B, T); or None.
        weights: factors on the loss of each token, (B, T); or None.
    """

    penalty: PerToken | None = None
    weights: PerToken | None = None


class CalibrationMixin(Host):
    """Put it before a TRL trainer in the bases, and call `_setup_calibration` at the end of the constructor."""

    def _setup_calibration(self, settings: CalibrationFields, plan: ContextPlan | None) -> None:
        """Make everything that needs a finished trainer: marker ids, reference, context builder, per-process seed."""
        self.calibration = settings
        self.calibrator: Calibrator = build_calibrator(
            settings.calibration_method, as_mapping(settings.calibration_kwargs)
        )
        self._schedule = build_schedule(settings.calibration_schedule, settings.calibration_strength)
        self._reduction = LOSS_REDUCTIONS[settings.loss_reduction]
        self._sums = TokenSums()
        self._markers = MarkerSet.load(settings.calibration_markers)
        self._held_out_markers = MarkerSet.load("held_out")
        self._plan = plan
        self.marker_ids = self._find_marker_ids()
        if plan is not None:
            self.teacher_context_builder = LevelContextBuilder(self, plan)
        check_prompt_lengths(self)
        self._measures_distributions = settings.calibration_metrics != "off" and self.marker_ids is not None
        runs_reference = (settings.is_calibrated and self.calibrator.needs_reference) or (
            settings.calibration_metrics == "full" and self._measures_distributions
        )
        distils = self.args.distillation_weight > 0 and not self.use_teacher_server
        self.reference = ContextFreeReference(self) if runs_reference and distils else None
        if self.accelerator.num_processes > 1:
            # TRL seeds all processes alike, so that groups which straddle two of them hold the same completions twice.
            # One process keeps TRL's random numbers.
            set_seed(self.args.seed, device_specific=True)

    def _find_marker_ids(self) -> MarkerIds | None:
        """The markers' ids in this tokenizer; None, with a warning, if it has none and nothing depends on them."""
        try:
            return marker_token_ids(self._tokenizer, self._markers).to(self.accelerator.device)
        except ConfigError as error:
            mixes_to_floor = self._plan is not None and self._plan.mixing == "mix_to_floor"
            if self.calibration.is_calibrated or mixes_to_floor:
                raise
            if self.calibration.calibration_metrics != "off":
                warnings.warn(f"{error} The figures under `calibration/` are left out.", stacklevel=2)
            return None

    def current_strength(self) -> float:
        """The strength at the present optimizer step."""
        # Before train() the length of the run is not known; at step 0 it does not matter.
        return self._schedule.strength(self.state.global_step, max(1, self.state.max_steps))

    # ---- teacher -----------------------------------------------------------------------------------------------

    def _setup_teacher_model(self) -> None:
        super()._setup_teacher_model()
        teacher_checkpoint.create_adapter_teacher(self)

    def _compute_teacher_student_logits(self, model, teacher_model, inputs) -> CalibratedLogits:
        logits = super()._compute_teacher_student_logits(model, teacher_model, inputs)
        logits = CalibratedLogits(**{field.name: getattr(logits, field.name) for field in fields(logits)})
        free_logps = None
        if self._plan is not None and self._plan.forwards_all:
            logits.teacher_logits, free_logps = self._mix_context_levels(self._plan, teacher_model, inputs, logits)
        reference = None
        if self.reference is not None:
            # The frozen initial weights on the student's own prompt: a level `none` of a base teacher is just that.
            shared = self.args.teacher_model_kind == "base" and free_logps is not None
            reference = free_logps if shared else self.reference.logits(inputs)
        if self.calibration.is_calibrated or self._measures_distributions:
            mode = "train" if model.training else "eval"
            self._calibrate(mode, logits, reference)
        return logits

    def _calibrate(self, mode: str, logits: CalibratedLogits, reference: Tensor | None) -> None:
        """Let the calibrator act on `logits`, and measure. Nothing of vocabulary size is kept beyond this call."""
        calibrator = self.calibrator if self.calibration.is_calibrated else None
        strength = self.current_strength() if calibrator else 0.0
        context_logits = logits.teacher_logits
        if isinstance(calibrator, Target):
            with torch.no_grad():
                # Log-probabilities are logits too, and the temperature is in them already.
                logits.teacher_logits = calibrator.edit_teacher(self._views(logits, reference), strength)
        elif isinstance(calibrator, Penalty):
            student = torch.log_softmax(logits.student_logits.float(), dim=-1)
            logits.penalty = strength * calibrator.penalty(self._views(logits, reference, student), strength)
        elif isinstance(calibrator, Weight):
            logits.weights = calibrator.weights(self._views(logits, reference), logits.completion_ids, strength)
        if self._measures_distributions and self.marker_ids is not None:
            sums = distribution_sums(logits, context_logits, reference, self.marker_ids)
            self._sums.add(mode, sums | {"strength": strength, "n_batches": 1.0})

    def _mix_context_levels(
        self, plan: ContextPlan, teacher_model, inputs, logits: CalibratedLogits
    ) -> tuple[Logps, Logps | None]:
        """One teacher forward per level, whatever the rows hold, then the mixture that `context_mixing` names.

        Returns:
            the mixture, and the log-probabilities under the level `none` if there is such a level.
        """
        by_level: dict[str, Logps] = {}
        for name, given in level_inputs(inputs, plan).items():
            if given is None:  # the level of `teacher_input_ids`, which TRL has run already
                level_logits = logits.teacher_logits
            else:
                with torch.no_grad(), self._get_teacher_context_for_self_distillation():
                    level_logits = self._forward_logits(
                        model=teacher_model,
                        input_ids=given[0],
                        attention_mask=given[1],
                        logits_to_keep=inputs["completion_ids"].size(1),
                    )
            by_level[name] = torch.log_softmax(level_logits.float(), dim=-1)
        return combine_levels(by_level, plan, inputs["context_available"], self.marker_ids), by_level.get("none")

    def _views(self, logits: CalibratedLogits, reference: Tensor | None, student: Logps | None = None) -> Views:
        """What calibrators see, as float32 log-probabilities. Only a `student` that is given carries a gradient."""
        assert self.marker_ids is not None  # without any the trainer does not calibrate
        with torch.no_grad():
            return Views(
                student=torch.log_softmax(logits.student_logits.float(), dim=-1) if student is None else student,
                teacher=torch.log_softmax(logits.teacher_logits.float(), dim=-1),
                reference=None if reference is None else torch.log_softmax(reference.float(), dim=-1),
                marker_ids=self.marker_ids,
                completion_ids=logits.completion_ids,
                completion_mask=logits.completion_mask,
            )

    # ---- loss --------------------------------------------------------------------------------------------------

    def _compute_self_distillation_loss(self, model, inputs, distillation_logits: CalibratedLogits) -> Scalar:
        penalty, weights = distillation_logits.penalty, distillation_logits.weights
        if penalty is None and weights is None and self.calibration.loss_reduction == "upstream":
            return self._upstream_loss(model, inputs, distillation_logits)

        mask = distillation_logits.loss_mask
        per_token_loss = self._per_token_distillation_loss(inputs, distillation_logits)
        if weights is not None:
            # The denominator stays the number of tokens: weighted down means weighing less, not the same again.
            per_token_loss = per_token_loss * weights
        loss = reduce_loss(per_token_loss, mask, self._reduction)
        if penalty is not None:
            loss = loss + reduce_loss(penalty, mask, self._reduction)
        mean = (per_token_loss.detach() * mask).sum() / mask.sum().clamp(min=1.0)
        mode = "train" if model.training else "eval"
        self._log_self_distillation_metric(mode, self.accelerator.gather(mean).mean().item())
        return loss

    def _upstream_loss(self, model, inputs, logits: CalibratedLogits) -> Scalar:
        """TRL's loss, except that a process without any active token still takes part in the gather.

        TRL returns before it, and the other processes wait there for ever.
        """
        if logits.loss_mask.sum() > 0:
            return super()._compute_self_distillation_loss(model, inputs, logits)
        zero = torch.zeros((), dtype=logits.loss_mask.dtype, device=logits.loss_mask.device)
        mode = "train" if model.training else "eval"
        self._log_self_distillation_metric(mode, self.accelerator.gather(zero).mean().item())
        return logits.student_logits.sum() * 0.0

    def _per_token_distillation_loss(self, inputs, logits: CalibratedLogits) -> PerToken:
        """TRL's loss of each token, before it is reduced; TRL computes it inside the method that reduces it."""
        mode, student, teacher = self.args.distillation_mode, logits.student_logits, logits.teacher_logits
        if mode == "topk_logits":
            per_token_loss = compute_topk_self_distillation_loss(
                student,
                teacher,
                distillation_topk=self.args.distillation_topk,
                distillation_alpha=self.args.distillation_alpha,
                distillation_add_tail=self.args.distillation_add_tail,
            )
        elif mode == "full_logits":
            per_token_loss = compute_full_logit_self_distillation_loss(
                student, teacher, distillation_alpha=self.args.distillation_alpha
            )
        else:
            per_token_loss = compute_sampled_token_self_distillation_loss(
                student, teacher, logits.completion_ids, distillation_alpha=self.args.distillation_alpha
            )
        old_per_token_logps = inputs.get("old_per_token_logps")
        if self.args.distillation_is_clip is not None and old_per_token_logps is not None:
            per_token_loss = apply_importance_sampling_clipping(
                per_token_loss,
                selective_log_softmax(student, logits.completion_ids),
                old_per_token_logps,
                self.args.distillation_is_clip,
            )
        return per_token_loss

    # ---- figures -----------------------------------------------------------------------------------------------

    def _prepare_training_batch(self, inputs):
        if self._plan is not None:
            self.teacher_context_builder.examples = inputs
        mode = "train" if self.model.training else "eval"
        batch = super()._prepare_training_batch(inputs)
        if self.calibration.calibration_metrics != "off":
            self._record_text(mode, batch)
        return batch

    def _record_text(self, mode: str, batch) -> None:
        texts = self.processing_class.batch_decode(batch["completion_ids"], skip_special_tokens=True)
        self._sums.add(
            mode,
            {
                "markers": sum(sum(count_markers(text, self._markers).values()) for text in texts),
                "held_out_markers": sum(sum(count_markers(text, self._held_out_markers).values()) for text in texts),
                "completion_tokens": batch["raw_completion_lengths"].sum(),
                "responses": len(texts),
            },
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.calibration.calibration_metrics != "off":
            mode = "train" if self.model.training else "eval"
            for name, value in figures(self._sums.pop(mode, self.accelerator)).items():
                self._metrics[mode][name].append(value)
        super().log(logs, start_time)

    # ---- checkpoints -------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model, trial) -> None:
        super()._save_checkpoint(model, trial)
        teacher_checkpoint.save_teacher(self, trial)

    def _load_optimizer_and_scheduler(self, checkpoint) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        teacher_checkpoint.load_teacher(self, checkpoint)
