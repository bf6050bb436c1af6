"""The overrides that turn a TRL self-distillation trainer into a calibrated one.

Each override calls `super()` and changes its result only where a knob is turned, so that with all knobs at their
defaults every number is TRL's. With a knob turned, `MicroBatch` does the forward passes and the loss. One rule holds
throughout: no collective is called under a condition that depends on data.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor

from calibrated_sd.calibrators import Advantage, Calibrator
from calibrated_sd.calibrators.token_loss import LossSettings
from calibrated_sd.shapes import Scalar
from calibrated_sd.trainers.calibrated import Calibrated
from calibrated_sd.trainers.checkpoint import load_progress, load_trained_adapter, save_progress
from calibrated_sd.trainers.config import LOSS_REDUCTIONS, CalibrationFields
from calibrated_sd.trainers.micro_batch import MicroBatch
from calibrated_sd.trainers.non_finite import describe_scores
from calibrated_sd.trainers.reference import ContextFreeReference
from calibrated_sd.trainers.rollouts import describe_rollouts, text_sums, truncated
from calibrated_sd.trainers.scores import ScoreReader
from calibrated_sd.trainers.teacher import repair_moving_teacher, setup_in_memory_teacher
from calibrated_sd.trainers.teacher_context.config import ContextPlan
from calibrated_sd.trainers.teacher_context.thinking_guard import ThinkingGuard
from calibrated_sd.trainers.upstream import measure_upstream


class CalibrationMixin(Calibrated):
    """Put it before a TRL trainer in the bases, and call `_setup_calibration` at the end of the constructor."""

    model_was_given = False
    """True if the constructor got a model and not a path; set before TRL's constructor runs."""

    teacher_scores: Tensor | None = None
    """The teacher's logits (B, T, V) between TRL's forward pass and its policy loss; None at any other time."""

    upstream_masks_rows = True
    """True if TRL's own loss leaves out rows whose `self_distillation_mask` is 0."""

    def _setup_calibration(self, settings: CalibrationFields, plan: ContextPlan | None) -> None:
        """Make everything that needs a finished trainer: marker ids, reference, dials, per-process seed."""
        self._open_calibration(settings, plan)
        self.loss_reduction = LOSS_REDUCTIONS[settings.loss_reduction]
        self.loss_settings = LossSettings(
            mode=self.args.distillation_mode,
            alpha=self.args.distillation_alpha,
            topk=self.args.distillation_topk,
            add_tail=self.args.distillation_add_tail,
            topk_markers=settings.topk_markers,
            is_clip=self.args.distillation_is_clip,
        )
        self.scores = ScoreReader(self, chunked=settings.chunk_size is not None)
        self.reference = ContextFreeReference(self) if self._needs_reference() else None
        self.thinking_guard = ThinkingGuard(self.accelerator)
        if settings.calibration_metrics != "off":
            self.thinking_guard.check_templates(self)
        if self.accelerator.num_processes > 1:
            # TRL seeds all processes alike, so that groups which straddle two of them hold the same completions twice.
            # One process keeps TRL's random numbers.
            set_seed(self.args.seed, device_specific=True)

    def _needs_reference(self) -> bool:
        return self.distillation_weight > 0 and not self.use_teacher_server and super()._needs_reference()

    # ---- what the settings come to -----------------------------------------------------------------------------

    @property
    def distillation_weight(self) -> float:
        """Weight of the distillation loss beside the policy gradient; 1 where TRL's trainer has no other loss."""
        return getattr(self.args, "distillation_weight", 1.0)

    @property
    def needs_policy_gradient(self) -> bool:
        """True if the student is needed also on rows without a teacher context."""
        return self.distillation_weight < 1

    @property
    def distillation_calibrator(self) -> Calibrator | None:
        """The method, if it acts on the distillation loss."""
        acts = self.calibration.is_calibrated and not isinstance(self.calibrator, Advantage)
        return self.calibrator if acts else None

    @property
    def follows_upstream(self) -> bool:
        """True if TRL's own forward passes and loss do all that is asked."""
        settings, plan = self.calibration, self.context_plan
        return (
            self.distillation_calibrator is None
            and settings.loss_reduction == "upstream"
            and settings.chunk_size is None
            and not settings.topk_markers
            and (plan is None or (self.upstream_masks_rows and not plan.forwards_all))
        )

    def loss_mask(self, inputs: dict[str, Any]) -> Tensor:
        """Which completion tokens the distillation loss counts, (B, T), as TRL has it."""
        mask = inputs["completion_mask"]
        if inputs.get("self_distillation_mask") is not None:
            mask = mask * inputs["self_distillation_mask"].unsqueeze(1)
        skipped = getattr(self, "num_loss_tokens_to_skip", 0)
        if skipped > 0:
            mask = mask * (torch.arange(mask.size(1), device=mask.device) >= skipped).unsqueeze(0)
        return mask

    # ---- teacher -----------------------------------------------------------------------------------------------

    def _setup_teacher_model(self) -> None:
        if not (self.model_was_given and setup_in_memory_teacher(self)):
            super()._setup_teacher_model()
        repair_moving_teacher(self)

    # ---- loss --------------------------------------------------------------------------------------------------

    def _compute_teacher_student_logits(self, model, teacher_model, inputs):
        mode = self.mode
        if not self.follows_upstream:
            self.teacher_scores = None
            return MicroBatch(self, model, teacher_model, inputs, self.distillation_calibrator, self.current_strength())
        logits = super()._compute_teacher_student_logits(model, teacher_model, inputs)
        self.add_sums(mode, measure_upstream(self, inputs, logits))
        # The policy loss comes next and may want the teacher, too; it lets go of it.
        shapes_policy = isinstance(self.calibrator, Advantage) and self.calibration.is_calibrated
        self.teacher_scores = logits.teacher_logits if shapes_policy else None
        return logits

    def _compute_self_distillation_loss(self, model, inputs, distillation_logits) -> Scalar:
        mode = self.mode
        if isinstance(distillation_logits, MicroBatch):
            loss, mean, sums = distillation_logits.loss()
            self._name_non_finite(loss, distillation_logits.raw_scores)
            self.add_sums(mode, sums)
        elif distillation_logits.loss_mask.sum() > 0:
            loss = super()._compute_self_distillation_loss(model, inputs, distillation_logits)
            scores = {name: getattr(distillation_logits, f"{name}_logits") for name in ("student", "teacher")}
            self._name_non_finite(loss, lambda: scores)
            return loss
        else:
            # TRL returns before the gather below, and processes with an active token wait there for ever.
            loss = distillation_logits.student_logits.sum() * 0.0
            mean = torch.zeros((), dtype=torch.float32, device=loss.device)
        self._log_self_distillation_metric(mode, self.accelerator.gather(mean).mean().item())
        return loss

    def _name_non_finite(self, loss: Scalar, scores: Callable[[], dict[str, Tensor | None]]) -> None:
        """If the loss is NaN or infinite, note whose logits are; a loss that is not is looked at and nothing else."""
        if self.guard is not None and not bool(torch.isfinite(loss.detach())):
            for cause in describe_scores(scores()):
                self.guard.note(cause)

    def _compute_rollout_logps(self, prompt_ids, prompt_mask, completion_ids, completion_mask):
        if self.calibration.chunk_size is None:
            return super()._compute_rollout_logps(prompt_ids, prompt_mask, completion_ids, completion_mask)
        if self.args.gradient_accumulation_steps % (self.args.steps_per_generation * self.num_iterations) == 0:
            return None  # every step has fresh rollouts
        ids = torch.cat([prompt_ids, completion_ids], dim=1)
        mask = torch.cat([prompt_mask, completion_mask], dim=1)
        return self.scores.rollout_logps(self.model, ids, mask, completion_ids)

    # ---- rollouts and figures ----------------------------------------------------------------------------------

    def _prepare_training_batch(self, inputs):
        mode = self.mode
        if self.context_plan is not None:
            self.teacher_context_builder.examples = inputs
        batch = super()._prepare_training_batch(inputs)
        batch.update(getattr(self.teacher_context_builder, "last_extra", None) or {})
        batch.update(describe_rollouts(self, batch))
        if self.calibration.calibration_metrics != "off" or self.dials.has_memory:
            texts = self.processing_class.batch_decode(batch["completion_ids"], skip_special_tokens=True)
            self.add_text_sums(mode, text_sums(self, batch, texts))
            ended = self.thinking_guard.check_batch(texts, truncated(self, batch), mode)
            for name, value in ended.items():
                self._metrics[mode][name].append(value)
        self._dispatch_self_distillation_callback("on_rollouts", batch=batch, mode=mode)
        return batch

    # ---- checkpoints -------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model, trial) -> None:
        save_progress(self, trial)  # first: a checkpoint is finished when TRL has written its state
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_trained_adapter(self, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        load_progress(self, checkpoint)
