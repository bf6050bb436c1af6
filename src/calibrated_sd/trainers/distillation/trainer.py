"""A privileged self-teacher on TRL's stable `DistillationTrainer`, with the calibrators of this package.

The student samples; the teacher is the same model as it was at the start, and reads the question together with what
only it may see (arXiv:2601.18734, arXiv:2601.19897). TRL leaves `teacher_model=None` to subclasses: two overrides put the
teacher's prompts into the batch and the calibrated divergence into the loss. Nothing of `trl.experimental` is overridden.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from trl import DistillationTrainer

from calibrated_sd.calibrators.token_loss import LossSettings
from calibrated_sd.errors import ConfigError
from calibrated_sd.trainers.calibrated import Calibrated, default_arguments
from calibrated_sd.trainers.config import CalibrationFields
from calibrated_sd.trainers.dials import checkpoint_folder, load_dials, save_dials
from calibrated_sd.trainers.distillation.config import CalibratedDistillationConfig, check_dataset
from calibrated_sd.trainers.distillation.contexts import PrivilegedContexts
from calibrated_sd.trainers.distillation.hidden_scores import HiddenScores
from calibrated_sd.trainers.frozen import FrozenWeights
from calibrated_sd.trainers.micro_batch import MicroBatch
from calibrated_sd.trainers.model_card import ModelCardMixin
from calibrated_sd.trainers.rollouts import describe_rollouts, text_sums
from calibrated_sd.trainers.teacher_context.config import ContextPlan
from calibrated_sd.trainers.trl_contract import DISTILLATION_METHODS, check_methods, check_version

check_version()
check_methods(DistillationTrainer, DISTILLATION_METHODS)


class CalibratedDistillationTrainer(ModelCardMixin, Calibrated, DistillationTrainer):  # type: ignore[misc]
    """
    TRL's `DistillationTrainer` with a privileged self-teacher and a calibrator. Same constructor, same methods.

    Without a `teacher_model` the teacher is the model as it was when the trainer was made (under PEFT: with its adapter
    off), and reads each row's `solution` or `privileged_context`, or what `context_levels` say. With a `teacher_model`
    the teacher sees what the student sees, as in TRL; at `calibration_strength=0.0` the trainer is then TRL's own.

    Args:
        model: name or path of a model, or a model.
        teacher_model: as in TRL, or None for a self-teacher.
        args: a `CalibratedDistillationConfig`; TRL's own `DistillationConfig` means all calibration settings at their
            defaults; None means a default config.
        train_dataset: rows with a `prompt`, and for a self-teacher a `solution` or a `privileged_context`.
        eval_dataset, processing_class, callbacks, optimizers, quantization_config, peft_config, tools: as in TRL.

    Raises:
        ConfigError: settings that cannot act together.
        DataError: an empty data set, one too small for a generation batch, or one without a column that is needed.
        CompatError: a TRL release with another interface.

    Example:

    ```python
    from calibrated_sd import CalibratedDistillationConfig, CalibratedDistillationTrainer

    args = CalibratedDistillationConfig("out", beta=0.5, calibration_method="mix_to_floor", calibration_strength=1.0)
    trainer = CalibratedDistillationTrainer("Qwen/Qwen3-1.7B", args=args, train_dataset=dataset)
    trainer.train()
    ```
    """

    config_cls = CalibratedDistillationConfig
    _tag_names: ClassVar[list[str]] = [*DistillationTrainer._tag_names, "calibrated-sd"]  # type: ignore[misc]

    def __init__(
        self,
        model,
        teacher_model=None,
        args=None,
        train_dataset=None,
        eval_dataset=None,
        processing_class=None,
        callbacks=None,
        optimizers=(None, None),
        quantization_config=None,
        peft_config=None,
        tools=None,
    ):
        if args is None:
            args = default_arguments(CalibratedDistillationConfig, model, "Distillation")
        settings = args if isinstance(args, CalibratedDistillationConfig) else CalibrationFields()
        if teacher_model is not None and settings.context_levels is not None:
            raise ConfigError(
                f"context_levels={settings.context_levels!r} say what a self-teacher reads, but teacher_model was given, "
                "too, which reads what the student reads. Leave one of the two out."
            )
        plan = None
        if teacher_model is None:
            if not isinstance(settings, CalibratedDistillationConfig):
                raise ConfigError(
                    f"A self-teacher's prompts are set in a CalibratedDistillationConfig, but args is a "
                    f"{type(args).__name__}. Use ours, which takes the same settings, or pass a teacher_model."
                )
            plan = settings.self_teacher_plan()
        check_dataset(args, train_dataset, plan)
        super().__init__(
            model=model,
            teacher_model=teacher_model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            quantization_config=quantization_config,
            peft_config=peft_config,
            tools=tools,
        )
        self._setup_calibration(settings, plan)

    def _setup_calibration(self, settings: CalibrationFields, plan: ContextPlan | None) -> None:
        self._open_calibration(settings, plan)
        self.contexts = None if plan is None else PrivilegedContexts(self, plan)
        self.loss_settings = LossSettings(mode="full_logits", alpha=self.beta)
        self.loss_reduction = "token_mean"
        self.scores = HiddenScores(self)
        runs_reference = self._needs_reference()
        self.initial = FrozenWeights(self) if runs_reference or plan is not None else None
        if self.initial is not None:
            self.initial.prepare()
        self.reference = self.initial if runs_reference else None

    # ---- what the settings come to -----------------------------------------------------------------------------

    needs_policy_gradient = False

    @property
    def follows_upstream(self) -> bool:
        """True if TRL's own loss does all that is asked: a given teacher, no calibrator, no extra figures."""
        return self.contexts is None and not self.calibration.is_calibrated and self.reference is None

    def loss_mask(self, inputs: dict[str, Any]) -> Tensor:
        """Which completion tokens count, (B, T): the student's own, in rows whose teacher has something to read."""
        mask = inputs["completion_mask"]
        if "tool_mask" in inputs:
            mask = mask * inputs["tool_mask"]
        if "self_distillation_mask" in inputs:
            mask = mask * inputs["self_distillation_mask"].to(mask.dtype).unsqueeze(1)
        return mask

    # ---- batches -----------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        mode = self.mode
        if self.contexts is not None:
            tensors, found = self.contexts.build(inputs, output)
            output.update(tensors)
            for name, value in found.items():
                self._metrics[mode][name].append(value)
            # TRL has counted the tokens of rows that have no teacher, too.
            output["num_items_in_batch"] = self.accelerator.gather(self.loss_mask(output).sum()).sum()
        output.update(describe_rollouts(self, output))
        if self.calibration.calibration_metrics != "off" or self.dials.has_memory:
            lengths = output["completion_mask"].sum(dim=1)
            self.add_text_sums(mode, text_sums(self, {**output, "raw_completion_lengths": lengths}))
        return output

    # ---- loss --------------------------------------------------------------------------------------------------

    def _compute_loss(self, unwrapped_student, inputs, num_items_in_batch):
        if self.follows_upstream:
            return super()._compute_loss(unwrapped_student, inputs, num_items_in_batch)
        if "teacher_input_ids" not in inputs:
            inputs = {**inputs, **_student_prompt(inputs)}
        calibrator = self.calibrator if self.calibration.is_calibrated else None
        teacher = self.teacher_model if self.initial is None or self.contexts is None else self.initial.model
        if self.contexts is not None and self.initial is not None and self.initial.source == "adapter_off":
            teacher = unwrapped_student
        batch = MicroBatch(self, unwrapped_student, teacher, inputs, calibrator, self.current_strength())
        loss, _, sums = batch.loss()
        self.add_sums(self.mode, sums)
        counted = self.loss_mask(inputs).sum()
        if num_items_in_batch is not None:
            # From the mean over this micro-batch to its share in the mean over the global one.
            loss = loss * counted / torch.as_tensor(num_items_in_batch, device=loss.device)
        return loss, self._entropy_sum(batch, sums, counted), counted

    @contextmanager
    def _get_teacher_context_for_self_distillation(self) -> Iterator[None]:
        """Whatever has to be switched while the teacher is run."""
        if self.contexts is not None and self.initial is not None:
            with self.initial.running():
                yield
        else:
            self.teacher_model.eval()
            with torch.no_grad():
                yield

    def _entropy_sum(self, batch: MicroBatch, sums: dict[str, Any], counted: Tensor) -> Tensor:
        """Entropy of the student summed over tokens, for TRL's figure; from the measured ones if any are."""
        measured = sums.get("n_tokens")
        if measured is not None and measured > 0:
            return (sums["student_entropy"] / measured * counted).detach().float()
        return batch.token_stats(frozenset({"student_entropy"})).student_entropy.sum()  # type: ignore[union-attr]

    # ---- checkpoints -------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model, trial) -> None:
        save_dials(self, checkpoint_folder(self, trial))  # first, see last_finished_checkpoint
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        load_dials(self, checkpoint)


def _student_prompt(inputs: dict[str, Any]) -> dict[str, Tensor]:
    return {
        "teacher_input_ids": torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
        "teacher_attention_mask": torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
    }
