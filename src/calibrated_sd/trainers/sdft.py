"""SDFT that keeps its uncertainty: the trainer and its config, to be swapped for TRL's by changing one import."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from calibrated_sd.errors import DataError
from calibrated_sd.trainers._trl import SDFTConfig, SDFTTrainer
from calibrated_sd.trainers.calibrated import default_arguments
from calibrated_sd.trainers.checks import check_data, check_prompt_lengths, check_tokenizer, load_processing_class
from calibrated_sd.trainers.config import JSON_FIELDS, CalibrationFields, check_calibration, check_without_rewards
from calibrated_sd.trainers.json_settings import check_types, metadata_of
from calibrated_sd.trainers.mixin import CalibrationMixin
from calibrated_sd.trainers.model_card import ModelCardMixin
from calibrated_sd.trainers.teacher_context.config import ContextFields, ContextPlan
from calibrated_sd.trainers.teacher_context.regenerate import ensure_regenerated
from calibrated_sd.trainers.teacher_context.sdft_builder import SDFTLevelContextBuilder, check_sdft_columns, sdft_plan


@dataclass
class CalibratedSDFTConfig(CalibrationFields, SDFTConfig):
    __doc__ = f"""
    Configuration of the [`CalibratedSDFTTrainer`]: every field of TRL's `SDFTConfig`, and those below.
    {CalibrationFields.__doc__}
    {ContextFields.__doc__}"""

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*SDFTConfig._VALID_DICT_FIELDS, *JSON_FIELDS]  # type: ignore[misc]

    # TRL types these as mappings only, so that a JSON object on the command line is refused.
    model_init_kwargs: dict[str, Any] | str | None = field(  # type: ignore[assignment]
        default=None, metadata=metadata_of(SDFTConfig, "model_init_kwargs")
    )
    generation_kwargs: dict[str, Any] | str | None = field(  # type: ignore[assignment]
        default=None, metadata=metadata_of(SDFTConfig, "generation_kwargs")
    )
    chat_template_kwargs: dict[str, Any] | str | None = field(  # type: ignore[assignment]
        default=None, metadata=metadata_of(SDFTConfig, "chat_template_kwargs")
    )

    def __post_init__(self):
        super().__post_init__()
        check_types(self, CalibratedSDFTConfig, SDFTConfig)
        check_calibration(self)
        check_without_rewards(self, "SDFT")


class CalibratedSDFTTrainer(ModelCardMixin, CalibrationMixin, SDFTTrainer):  # type: ignore[misc]
    """
    TRL's `SDFTTrainer` with a calibrator. Same constructor, same methods, still an instance of TRL's class.

    The teacher reads each row's `privileged_context`, or, with `context_levels`, what they say. With
    `calibration_strength=0.0`, the default, losses, gradient norms and weights are TRL's, bit for bit (one process,
    fp32); what differs even then is listed in `docs/explanation/footguns.md`.

    Args:
        model: name or path of a model, or a model.
        args: a `CalibratedSDFTConfig`; TRL's own `SDFTConfig` means all calibration settings at their defaults; None
            means a default config.
        train_dataset: rows with a `prompt`, and a `privileged_context` or a `solution` if a context level reads it.
        eval_dataset, processing_class, callbacks, optimizers, peft_config: as in TRL.

    Raises:
        ConfigError: a model without a tokenizer, a tokenizer that does not fit the model or the prompts, or settings
            that cannot act together.
        DataError: an empty data set, one too small for a generation batch, or one without a column that is needed.
        ContextError: a prompt that does not fit into the model's context together with its completion.
        CompatError: a TRL release with another interface.

    Example:

    ```python
    from calibrated_sd import SDFTConfig, SDFTTrainer  # was: from trl.experimental.sdft import ...

    args = SDFTConfig(output_dir="out", calibration_method="mix_to_floor", calibration_strength=1.0)
    trainer = SDFTTrainer("Qwen/Qwen3-1.7B", args=args, train_dataset=dataset)
    trainer.train()
    ```
    """

    config_cls = CalibratedSDFTConfig
    upstream_masks_rows = False
    _tag_names: ClassVar[list[str]] = [*SDFTTrainer._tag_names, "calibrated-sd"]  # type: ignore[misc]

    def __init__(
        self,
        model,
        args=None,
        train_dataset=None,
        eval_dataset=None,
        processing_class=None,
        callbacks=None,
        optimizers=(None, None),
        peft_config=None,
    ):
        if args is None:
            args = default_arguments(CalibratedSDFTConfig, model, "SDFT")
        settings = args if isinstance(args, CalibrationFields) else CalibrationFields()
        calibrator = settings.make_calibrator()
        plan = settings.context_plan(context_only=settings.is_calibrated and calibrator.needs_context_only)
        plan = None if plan is None else sdft_plan(plan)
        check_data(args, train_dataset, None)
        check_sdft_data(train_dataset, plan)
        if processing_class is None:
            processing_class = load_processing_class(model, args)
        check_tokenizer(processing_class, args, train_dataset)
        self.model_was_given = not isinstance(model, str)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            peft_config=peft_config,
        )
        self._setup_calibration(settings, plan)
        if plan is not None:
            self.teacher_context_builder = SDFTLevelContextBuilder(self, plan)
            ensure_regenerated(self)  # now, while the weights are the initial ones
        check_prompt_lengths(self)

    def _prepare_training_batch(self, inputs):
        mode = "train" if self.model.training else "eval"
        batch = super()._prepare_training_batch(inputs)
        for name, value in getattr(self.teacher_context_builder, "last_metrics", {}).items():
            self._metrics[mode][name].append(value)
        return batch


def check_sdft_data(dataset: Any, plan: ContextPlan | None) -> None:
    """Check that the rows hold what the teacher is to read.

    Raises:
        DataError: no `privileged_context` and no context levels that could do without, or a column that a level reads.
    """
    columns = list(getattr(dataset, "column_names", None) or [])
    if not columns:
        return
    if plan is not None:
        check_sdft_columns(plan, columns)
    elif "privileged_context" not in columns:
        raise DataError(
            f"train_dataset has no column 'privileged_context'; its columns are {', '.join(columns)}. TRL's SDFT shows "
            "it to the teacher. Rename the column that holds the demonstration, or set context_levels='solution' to "
            "read the column 'solution'."
        )
