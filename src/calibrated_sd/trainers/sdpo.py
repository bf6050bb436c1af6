"""SDPO that keeps its uncertainty: the trainer and its config, to be swapped for TRL's by changing one import."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from calibrated_sd.calibrators import Advantage
from calibrated_sd.trainers._trl import SDPOConfig, SDPOTrainer
from calibrated_sd.trainers.calibrated import default_arguments
from calibrated_sd.trainers.checks import check_data, check_prompt_lengths, check_tokenizer, load_processing_class
from calibrated_sd.trainers.config import JSON_FIELDS, CalibrationFields, check_calibration
from calibrated_sd.trainers.json_settings import check_types, metadata_of
from calibrated_sd.trainers.micro_batch import MicroBatch
from calibrated_sd.trainers.mixin import CalibrationMixin
from calibrated_sd.trainers.model_card import ModelCardMixin
from calibrated_sd.trainers.policy import shaped_advantages
from calibrated_sd.trainers.rollouts import fill_unscorable, hide_unscorable
from calibrated_sd.trainers.teacher_context.builder import LevelContextBuilder
from calibrated_sd.trainers.teacher_context.config import ContextFields
from calibrated_sd.trainers.teacher_context.regenerate import ensure_regenerated


@dataclass
class CalibratedSDPOConfig(CalibrationFields, SDPOConfig):
    __doc__ = f"""
    Configuration of the [`CalibratedSDPOTrainer`]: every field of TRL's `SDPOConfig`, and those below.
    {CalibrationFields.__doc__}
    {ContextFields.__doc__}"""

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*SDPOConfig._VALID_DICT_FIELDS, *JSON_FIELDS]  # type: ignore[misc]

    # TRL types these as mappings only, so that a JSON object on the command line is refused.
    model_init_kwargs: dict[str, Any] | str | None = field(  # type: ignore[assignment]
        default=None, metadata=metadata_of(SDPOConfig, "model_init_kwargs")
    )
    generation_kwargs: dict[str, Any] | str | None = field(  # type: ignore[assignment]
        default=None, metadata=metadata_of(SDPOConfig, "generation_kwargs")
    )
    chat_template_kwargs: dict[str, Any] | str | None = field(  # type: ignore[assignment]
        default=None, metadata=metadata_of(SDPOConfig, "chat_template_kwargs")
    )

    def __post_init__(self):
        super().__post_init__()
        check_types(self, CalibratedSDPOConfig, SDPOConfig)
        check_calibration(self)


class CalibratedSDPOTrainer(ModelCardMixin, CalibrationMixin, SDPOTrainer):  # type: ignore[misc]
    """
    TRL's `SDPOTrainer` with a calibrator. Same constructor, same methods, still an instance of TRL's class.

    With `calibration_strength=0.0`, the default, losses, gradient norms and weights are TRL's, bit for bit (one
    process, fp32). What differs even then are repairs of things that make TRL crash, hang or forget: see
    `docs/explanation/footguns.md`.

    Args:
        model: name or path of a model, or a model. The context-free reference is this model as it was when the trainer
            was made.
        reward_funcs: as in TRL.
        args: a `CalibratedSDPOConfig`; TRL's own `SDPOConfig` means all calibration settings at their defaults; None
            means a default config.
        train_dataset: rows with a `prompt`, and a `solution` if a context level reads it.
        eval_dataset, processing_class, reward_processing_classes, callbacks, optimizers, peft_config: as in TRL.

    Raises:
        ConfigError: a model without a tokenizer, a tokenizer that does not fit the model or the prompts, or settings
            that cannot act together.
        DataError: an empty data set, one too small for a generation batch, or one without a column that is needed.
        ContextError: a prompt that does not fit into the model's context together with its completion.
        CompatError: a TRL release with another interface.

    Example:

    ```python
    from calibrated_sd import SDPOConfig, SDPOTrainer  # was: from trl.experimental.sdpo import ...

    args = SDPOConfig(output_dir="out", calibration_method="projection", calibration_strength=1.0)
    trainer = SDPOTrainer("Qwen/Qwen3-1.7B", reward_funcs=reward, args=args, train_dataset=dataset)
    trainer.train()
    ```
    """

    config_cls = CalibratedSDPOConfig
    _tag_names: ClassVar[list[str]] = [*SDPOTrainer._tag_names, "calibrated-sd"]  # type: ignore[misc]

    def __init__(
        self,
        model,
        reward_funcs=None,
        args=None,
        train_dataset=None,
        eval_dataset=None,
        processing_class=None,
        reward_processing_classes=None,
        callbacks=None,
        optimizers=(None, None),
        peft_config=None,
    ):
        if args is None:
            args = default_arguments(CalibratedSDPOConfig, model, "SDPO")
        settings = args if isinstance(args, CalibrationFields) else CalibrationFields()
        calibrator = settings.make_calibrator()
        plan = settings.context_plan(
            getattr(args, "remove_thinking_from_demonstration", False),
            context_only=settings.is_calibrated and calibrator.needs_context_only,
        )
        check_data(args, train_dataset, plan)
        if processing_class is None:
            processing_class = load_processing_class(model, args)
        check_tokenizer(processing_class, args, train_dataset)
        self.model_was_given = not isinstance(model, str)
        super().__init__(
            model=model,
            reward_funcs=reward_funcs,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            reward_processing_classes=reward_processing_classes,
            callbacks=callbacks,
            optimizers=optimizers,
            peft_config=peft_config,
        )
        self._setup_calibration(settings, plan)
        if plan is not None:
            self.teacher_context_builder = LevelContextBuilder(self, plan)
            ensure_regenerated(self)  # now, while the weights are the initial ones
        hide_unscorable(self)
        check_prompt_lengths(self)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards_per_func = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self.guard is not None:
            rewards_per_func = self.guard.rewards(rewards_per_func, self.reward_func_names)
        group = self.num_generations if self.model.training else self.num_generations_eval
        filled, self.unscorable = fill_unscorable(rewards_per_func, self.reward_weights.to(rewards_per_func), group)
        return filled

    def _compute_policy_loss(self, inputs, student_logits):
        if isinstance(student_logits, MicroBatch):
            inputs = student_logits.inputs
        if isinstance(self.calibrator, Advantage) and self.calibration.is_calibrated:
            inputs = dict(inputs, advantages=shaped_advantages(self, inputs, student_logits))
        if isinstance(student_logits, MicroBatch):
            inputs, student_logits = student_logits.policy_inputs(inputs)
        return super()._compute_policy_loss(inputs, student_logits)
