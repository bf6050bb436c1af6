"""The settings of the privileged self-teacher on TRL's stable trainer, and every check that needs no model and no data."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from trl import DistillationConfig

from calibrated_sd.calibrators import Advantage
from calibrated_sd.errors import ConfigError, DataError, unknown_name
from calibrated_sd.trainers.config import METRIC_LEVELS, CalibrationFields, check_dials, check_without_rewards
from calibrated_sd.trainers.json_settings import check_types
from calibrated_sd.trainers.teacher_context.config import ContextFields, ContextPlan, check_contexts
from calibrated_sd.trainers.teacher_context.rows import SOLUTION_COLUMNS

"""Where a demonstration may stand; the first that is there counts."""

WITHOUT_ROLLOUTS = ("rollout", "regenerated")
"""Levels that this trainer cannot show: it grades nothing, and samples each prompt once."""


@dataclass
class CalibratedDistillationConfig(CalibrationFields, DistillationConfig):
    __doc__ = f"""
    Configuration of the [`CalibratedDistillationTrainer`]: every field of TRL's `DistillationConfig`, and those below.
    {CalibrationFields.__doc__}
    {ContextFields.__doc__}
        teacher_prompt_template (`str`, *optional*, defaults to `"{{prompt}}\\n\\n{{privileged_context}}"`):
            How question and demonstration become the teacher's user turn, as in TRL's SDFT.
        max_reprompt_len (`int`, *optional*):
            Longest teacher prompt in tokens; a longer demonstration is shortened, never the question. `None`: what the
            model's context leaves room for.

    > [!NOTE]
    > Differing defaults: `chunk_size` is 256 (this trainer never holds all logits), and `context_levels=None` means the
    > level `solution` for a self-teacher. `loss_reduction` is TRL's here: all tokens of the global batch weigh alike.
    """

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [  # type: ignore[misc]
        *DistillationConfig._VALID_DICT_FIELDS,
        *("calibration_kwargs", "calibration_controller", "context_levels", "teacher_chat_template_kwargs"),
    ]

    chunk_size: int | None = field(
        default=256, metadata={"help": "Positions of a completion whose logits exist at the same time."}
    )
    teacher_prompt_template: str = field(
        default="{prompt}\n\n{privileged_context}",
        metadata={"help": "How question and demonstration become the teacher's user turn."},
    )
    max_reprompt_len: int | None = field(
        default=None,
        metadata={"help": "Longest teacher prompt in tokens; the demonstration is shortened to fit. None: what fits."},
    )

    # The self-teacher is always the frozen initial model.
    teacher_model_kind: ClassVar[str] = "base"

    def __post_init__(self):
        super().__post_init__()
        check_types(self, CalibratedDistillationConfig, DistillationConfig)
        check_distillation(self)

    def self_teacher_plan(self) -> ContextPlan:
        """What the self-teacher reads."""
        given = self if self.context_levels is not None else replace_levels(self, "solution")
        calibrator = self.make_calibrator()
        plan = given.context_plan(context_only=self.is_calibrated and calibrator.needs_context_only)
        assert plan is not None  # there are levels
        return replace(plan, demo="solution")


def replace_levels(args: CalibrationFields, levels: str) -> CalibrationFields:
    """The context settings of a config with other levels."""
    fields = CalibrationFields()
    fields.context_levels = levels
    fields.teacher_chat_template_kwargs = args.teacher_chat_template_kwargs
    return fields


def check_distillation(args: Any) -> None:
    """Check the settings of a finished config. Raises ConfigError."""
    if args.calibration_metrics not in METRIC_LEVELS:
        raise unknown_name("calibration_metrics", args.calibration_metrics, METRIC_LEVELS)
    calibrator = args.make_calibrator()
    check_dials(args, calibrator)
    check_contexts(args)
    if args.chunk_size is None or args.chunk_size < 1:
        raise ConfigError(f"chunk_size is a number of positions, at least 1, got {args.chunk_size!r}. Try 256.")
    if args.loss_reduction not in ("upstream", "token_mean"):
        raise ConfigError(
            f"loss_reduction={args.loss_reduction!r} is not for this trainer: as in TRL's, all tokens of the global batch "
            "weigh alike. Leave it at 'upstream'."
        )
    if args.topk_markers:
        raise ConfigError(
            "topk_markers=True adds markers to a top-k support, but this trainer always compares the whole vocabulary. "
            "Leave it at False."
        )
    for name in ("{prompt}", "{privileged_context}"):
        if name not in args.teacher_prompt_template:
            raise ConfigError(
                f"teacher_prompt_template={args.teacher_prompt_template!r} has no place for {name}. Write e.g. "
                "'{prompt}\\n\\n{privileged_context}'."
            )
    _refuse_rewards(args, calibrator)


def _refuse_rewards(args: Any, calibrator: Any) -> None:
    """Refuse what needs rewards or several rollouts of a prompt."""
    if args.is_calibrated and isinstance(calibrator, Advantage):
        raise ConfigError(
            f"calibration_method={calibrator.name!r} shapes the advantages of a policy gradient, and distillation has "
            "none. Use SDPO with distillation_weight below 1, or choose another method."
        )
    check_without_rewards(args, "distillation", WITHOUT_ROLLOUTS)
    if args.demo_choice != "first":
        raise ConfigError(
            f"demo_choice={args.demo_choice!r} chooses among successful siblings, but distillation has no rewards that "
            "could tell which rollouts succeed. Leave it at 'first'."
        )


def check_columns(plan: ContextPlan, columns: Iterable[str]) -> None:
    """Check that the data set has what the levels read; `privileged_context` serves as a solution. Raises DataError."""
    columns = list(columns)
    if "prompt" not in columns:
        raise DataError(
            f"train_dataset has no column 'prompt'; its columns are {', '.join(columns)}. Rename the column that holds "
            "the question."
        )
    if plan.needs_solution and not set(SOLUTION_COLUMNS) & set(columns):
        raise DataError(
            f"train_dataset has neither a column 'solution' nor a column 'privileged_context'; its columns are "
            f"{', '.join(columns)}. The self-teacher reads one of them (context_levels: {', '.join(plan.levels)}); "
            "rename the column that holds it."
        )
    plan.check_columns([*columns, "solution"] if "privileged_context" in columns else columns)


def check_dataset(args: Any, dataset: Any, plan: ContextPlan | None) -> None:
    """Raise DataError for a data set that is empty, too small, or lacks a column."""
    if dataset is None or not hasattr(dataset, "__len__"):
        return  # TRL has its own words for the first, and streams are read row by row
    if len(dataset) == 0:
        raise DataError("train_dataset is empty. Give it at least one row with a `prompt`.")
    columns = getattr(dataset, "column_names", None)
    if columns and plan is not None:
        check_columns(plan, columns)
    needed = args.per_device_train_batch_size * args.world_size * args.gradient_accumulation_steps
    if len(dataset) < needed:
        raise DataError(
            f"train_dataset has {len(dataset)} rows, but one generation batch takes {needed} (per_device_train_batch_size "
            "x processes x gradient_accumulation_steps); TRL would train 0 steps. Use more rows, or a smaller "
            "per_device_train_batch_size."
        )
