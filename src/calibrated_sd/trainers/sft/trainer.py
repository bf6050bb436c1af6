"""SFT that keeps its uncertainty: the trainer to be swapped for TRL's by changing one import.

TRL's loss is computed by TRL. A hook keeps what its fused output head returns for each token, still in the graph, and the
terms of this trainer are made from that: no second pass of the student.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from trl import SFTTrainer
from trl.trainer.utils import FusedCausalLMOutput

from calibrated_sd.calibrators import build_schedule
from calibrated_sd.errors import CompatError, ConfigError, DataError
from calibrated_sd.markers import MarkerSet
from calibrated_sd.trainers.calibrated import default_arguments
from calibrated_sd.trainers.checks import check_vocabulary
from calibrated_sd.trainers.model_card import ModelCardMixin
from calibrated_sd.trainers.non_finite import GuardedSteps
from calibrated_sd.trainers.sft.config import CalibratedSFTConfig, SFTCalibrationFields
from calibrated_sd.trainers.sft.metrics import TokenClassSums, class_sums, figures
from calibrated_sd.trainers.sft.reference import MarkerReference, Seen, inner_model
from calibrated_sd.trainers.sft.terms import LabelClasses
from calibrated_sd.trainers.trl_contract import FUSED_OUTPUT_FIELDS, SFT_METHODS, check_methods, check_version

check_version()
check_methods(SFTTrainer, SFT_METHODS)
for _name in FUSED_OUTPUT_FIELDS:
    if _name not in FusedCausalLMOutput.__dataclass_fields__:
        raise CompatError(f"TRL changed: FusedCausalLMOutput has no field {_name!r} any more. Update calibrated-sd.")


class CalibratedSFTTrainer(ModelCardMixin, GuardedSteps, SFTTrainer):  # type: ignore[misc]
    """
    TRL's `SFTTrainer` with weights for token classes and a divergence from the initial model around markers.

    With the default settings losses, gradient norms and weights are TRL's, bit for bit. Works with packing, padding-free
    batches, completion-only and assistant-only loss, PEFT and gradient accumulation: every term is summed over label
    tokens and divided by what TRL divides by.

    Args:
        model: name or path of a model, or a model. The reference is this model as it was when the trainer was made;
            under PEFT it is the model with its adapter off.
        args: a `CalibratedSFTConfig`; TRL's own `SFTConfig` means all calibration settings at their defaults; None
            means a default config.
        data_collator, train_dataset, eval_dataset, processing_class, compute_loss_func, compute_metrics: as in TRL.
        callbacks, optimizers, optimizer_cls_and_kwargs, preprocess_logits_for_metrics: as in TRL.
        quantization_config, peft_config, formatting_func: as in TRL.

    Raises:
        ConfigError: settings that cannot act together, or a tokenizer with tokens that the model does not know.
        DataError: an empty data set.
        CompatError: a TRL release with another interface.

    Example:

    ```python
    from calibrated_sd import SFTConfig, SFTTrainer  # was: from trl import SFTConfig, SFTTrainer

    args = SFTConfig(output_dir="out", calibration_kl="full", calibration_strength=5.0)
    trainer = SFTTrainer("Qwen/Qwen3-1.7B", args=args, train_dataset=dataset)
    trainer.train()
    ```
    """

    config_cls = CalibratedSFTConfig
    _tag_names: ClassVar[list[str]] = [*SFTTrainer._tag_names, "calibrated-sd"]  # type: ignore[misc]

    def __init__(
        self,
        model,
        args=None,
        data_collator=None,
        train_dataset=None,
        eval_dataset=None,
        processing_class=None,
        compute_loss_func=None,
        compute_metrics=None,
        callbacks=None,
        optimizers=(None, None),
        optimizer_cls_and_kwargs=None,
        preprocess_logits_for_metrics=None,
        quantization_config=None,
        peft_config=None,
        formatting_func=None,
    ):
        if args is None:
            args = default_arguments(CalibratedSFTConfig, model, "SFT")
        if hasattr(train_dataset, "__len__") and len(train_dataset) == 0:
            raise DataError("train_dataset is empty. Give it at least one row, e.g. with `prompt` and `completion`.")
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_loss_func=compute_loss_func,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
            quantization_config=quantization_config,
            peft_config=peft_config,
            formatting_func=formatting_func,
        )
        self._setup_calibration(args if isinstance(args, SFTCalibrationFields) else SFTCalibrationFields())

    def _setup_calibration(self, settings: SFTCalibrationFields) -> None:
        check_vocabulary(self.model, self._tokenizer)
        self.calibration = settings
        self._open_guard(settings)
        self.token_weights = settings.class_weights()
        self._weighs = any(weight != 1.0 for weight in self.token_weights.values())
        self._measures = settings.calibration_metrics != "off"
        self._schedule = build_schedule(settings.calibration_schedule, settings.calibration_strength)
        self._sums = TokenClassSums()
        self._markers = MarkerSet.load(settings.calibration_markers)
        self._held_out_markers = MarkerSet.load("held_out")
        if self._weighs or settings.is_calibrated:
            self._check_reach()
        self.reference = MarkerReference(self, settings, self._markers) if settings.is_calibrated else None
        self._seen: Seen | None = None
        inner = inner_model(self.model)
        inner.register_forward_hook(self._keep_output)
        if self.reference is not None and self.reference.is_full:
            inner.base_model.register_forward_hook(self._keep_hidden)

    def _check_reach(self) -> None:
        """Refuse settings under which the terms could not reach the loss."""
        args: Any = self.args
        settings, parallel = self.calibration, self.accelerator.parallelism_config
        zero_stage = self.accelerator.state.deepspeed_plugin.zero_stage if self.is_deepspeed_enabled else 0
        blockers = {
            "a compute_loss_func, which replaces the loss": self.compute_loss_func is not None,
            f"label_smoothing_factor={args.label_smoothing_factor}, whose loss needs all logits": (
                args.label_smoothing_factor > 0 and args.loss_type == "nll"
            ),
            "context or sequence parallelism, which cuts rows into pieces": (
                parallel is not None and (parallel.cp_enabled or parallel.sp_enabled)
            ),
            "weights sharded by FSDP or ZeRO-3 under calibration_kl='full' ('k3' can)": (
                settings.is_calibrated
                and settings.calibration_kl == "full"
                and (self.is_fsdp_enabled or zero_stage == 3)
            ),
        }
        asked = f"calibration_strength={settings.calibration_strength:g}"
        if not settings.is_calibrated:
            asked = f"token_weights={self.token_weights}"
        for blocker, is_present in blockers.items():
            if is_present:
                raise ConfigError(
                    f"{asked} cannot act together with {blocker}. Remove one of the two; with calibration_strength=0 "
                    "and no token weights the trainer is TRL's own."
                )

    def current_strength(self) -> float:
        """λ at the present optimizer step."""
        return self._schedule.strength(self.state.global_step, max(1, self.state.max_steps))

    @property
    def _mode(self) -> str:
        model: Any = self.model
        return "train" if model.training else "eval"

    # ---- hooks ---------------------------------------------------------------------------------------------------

    def _keep_output(self, module, args, output) -> None:
        if self._seen is not None and isinstance(output, FusedCausalLMOutput):
            self._seen.output = output

    def _keep_hidden(self, module, args, output) -> None:
        if self._seen is not None:
            self._seen.hidden = output.last_hidden_state

    def training_step(self, *args, **kwargs):
        return self._guarded(super().training_step(*args, **kwargs))

    # ---- loss ----------------------------------------------------------------------------------------------------

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self._seen = seen = Seen()
        try:
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        finally:
            self._seen = None
        if seen.output is None or not (self._measures or self._weighs or self.reference is not None):
            return result
        classes = LabelClasses.of(self._tokenizer, inputs, self._markers, self._held_out_markers)
        terms, sums = self._terms(model, inputs, seen, classes)
        if self._measures:
            self._sums.add(self._mode, sums)
        if terms is None:
            return result
        terms = terms / self._denominator(seen.output.label_mask, num_items_in_batch)
        if return_outputs:
            return result[0] + terms, result[1]
        return result + terms

    def _denominator(self, label_mask: Any, num_items_in_batch: Tensor | int | None) -> Tensor:
        """What TRL divides the sum over tokens by, its factor for several processes included."""
        if num_items_in_batch is None:
            return label_mask.sum().clamp(min=1)
        count = torch.as_tensor(num_items_in_batch).clamp(min=1)
        if self.args.average_tokens_across_devices:
            count = count / (self.accelerator.num_processes // self.get_tp_size())
        return count

    def _terms(
        self, model: Any, inputs: dict[str, Any], seen: Seen, classes: LabelClasses
    ) -> tuple[Tensor | None, dict[str, Tensor | float]]:
        """The terms of one micro-batch, summed over label tokens (None: nothing is added), and its figures."""
        args: Any = self.args
        assert seen.output is not None
        assert seen.output.log_probs is not None
        # Prompt learning puts virtual tokens in front, which have no label.
        logps = seen.output.log_probs[:, -classes.counted.shape[1] :]
        nll = -logps
        sums = class_sums(nll.detach(), classes)
        terms = []
        if self._weighs:
            per_token = nll * logps.exp().detach() if args.loss_type == "dft" else nll
            terms.append(((classes.weights(self.token_weights) - 1) * per_token).sum())
        strength = self.current_strength() if self.reference is not None else 0.0
        if self.reference is not None and strength > 0:
            penalty, found = self.reference.penalty(model, inputs, seen, classes)
            terms.append(strength * penalty)
            sums |= found | {"penalty": strength * penalty.detach()}
        total = torch.stack(terms).sum() if terms else None
        return total, sums | {"strength": strength, "n_batches": 1.0}

    # ---- figures -------------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self._measures:
            for name, value in figures(self._sums.pop(self._mode, self.accelerator)).items():
                self._metrics[self._mode][name].append(value)
        super().log(logs, start_time)


__all__ = ["CalibratedSFTConfig", "CalibratedSFTTrainer", "SFTCalibrationFields"]
