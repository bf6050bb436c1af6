"""The settings that calibration adds to a TRL config, and every check that needs no model and no data.

All fields have defaults under which the trainer is TRL's own. They work from Python, from YAML and as overrides on the
command line through `TrlParser`.
"""

import json
import warnings
from dataclasses import dataclass, field
from typing import Any

from calibrated_sd.calibrators import build_calibrator, build_schedule
from calibrated_sd.contexts import CONTEXTS, parse_levels
from calibrated_sd.errors import ConfigError, unknown_name

CONTEXT_MIXINGS = ("per_sample", "arith", "geo", "mix_to_floor")
DEMO_SOURCES = ("rollout", "solution")
DEMO_CHOICES = ("first", "random", "shortest", "longest")
METRIC_LEVELS = ("auto", "full", "off")
TEACHER_KINDS = ("base", "ema", "live")
LOSS_REDUCTIONS = {"upstream": "sequence_mean", "token_mean": "token_mean", "active_rows": "active_rows"}
"""Names of `loss_reduction` and the function in `calibrated_sd.objectives` that each one means."""


@dataclass(frozen=True)
class ContextPlan:
    """What the context builder is to build, once the settings have been read.

    Attributes:
        levels: weight of each context level; the weights sum to 1.
        mixing: one of `CONTEXT_MIXINGS`.
        demo: whose thinking the level `stripped` removes, one of `DEMO_SOURCES`.
        choice: which successful sibling is shown, one of `DEMO_CHOICES`.
    """

    levels: dict[str, float]
    mixing: str = "per_sample"
    demo: str = "rollout"
    choice: str = "first"

    @property
    def forwards_all(self) -> bool:
        """True if the teacher reads every level of every row, not one drawn level."""
        return self.mixing != "per_sample" and len(self.levels) > 1

    @property
    def needs_solution(self) -> bool:
        """True if a level reads the data set's `solution` column."""
        return any(CONTEXTS[name].needs_solution(self.demo) for name in self.levels)


@dataclass
class CalibrationFields:
    """
    Settings shared by all calibrated trainers. With the defaults nothing is calibrated: the trainer is TRL's own.

    Parameters:
        calibration_method (`str`, *optional*, defaults to `"projection"`):
            The calibrator, a key of `calibrated_sd.calibrators.CALIBRATORS`.
        calibration_strength (`float`, *optional*, defaults to `0.0`):
            The one dial. What it means depends on the method (κ of the projection, λ of the floor, w₀ of the mixture);
            `0.0` is always off.
        calibration_schedule (`str`, *optional*, defaults to `"constant"`):
            How the strength changes over the run, e.g. `"linear:0->1@10%"`. See `calibrators.schedule`.
        calibration_markers (`str`, *optional*, defaults to `"lexical"`):
            Marker set: `"lexical"`, `"legacy"`, or the path of a YAML file.
        calibration_kwargs (`dict` or `str`, *optional*):
            The method's own settings; on the command line a JSON object.
        calibration_metrics (`str`, *optional*, defaults to `"auto"`):
            `"auto"` logs everything that costs no extra forward pass; marker retention and suppression need the
            context-free reference and appear when the calibrator computes it anyway. `"full"` always computes it.
            `"off"` logs nothing beyond TRL.
        context_levels (`dict` or `str`, *optional*):
            What the teacher sees, e.g. `"solution:0.7,none:0.3"`. `None` leaves TRL's context builder in place.
        context_mixing (`str`, *optional*, defaults to `"per_sample"`):
            How several levels combine: `"per_sample"` draws one for each row; `"arith"`, `"geo"` and `"mix_to_floor"`
            run the teacher on all of them.
        context_demo (`str`, *optional*, defaults to `"rollout"`):
            Which demonstration the level `stripped` shortens: the successful sibling (`"rollout"`) or the data set's
            `"solution"`.
        demo_choice (`str`, *optional*, defaults to `"first"`):
            Which successful sibling is shown: `"first"` (TRL's), `"random"`, `"shortest"` or `"longest"`.
        loss_reduction (`str`, *optional*, defaults to `"upstream"`):
            `"upstream"` is TRL's mean over all rows of the row's mean; `"active_rows"` leaves out rows without a
            teacher context; `"token_mean"` weighs all tokens alike, as the paper's code does.
    """

    calibration_method: str = field(
        default="projection",
        metadata={
            "help": "Calibrator that preserves uncertainty: projection, floor, mixture, mix_to_floor or anchor. Acts "
            "only if calibration_strength is above 0."
        },
    )
    calibration_strength: float = field(
        default=0.0,
        metadata={
            "help": "The one dial of the calibrator (kappa, lambda or w0, depending on the method). 0 is off: the "
            "trainer is then TRL's own, bit for bit."
        },
    )
    calibration_schedule: str = field(
        default="constant",
        metadata={
            "help": "Strength over the run: 'constant', 'linear:0->1@100' (warm-up over 100 steps), "
            "'cosine:1->0@50-200' (decay), several joined by ';'. Factors on calibration_strength."
        },
    )
    calibration_markers: str = field(
        default="lexical",
        metadata={"help": "Marker set that calibrators protect: 'lexical', 'legacy', or the path of a YAML file."},
    )
    calibration_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Settings of the calibrator itself, a mapping or a JSON object, e.g. '{\"kappa\": 0.8}'."},
    )
    calibration_metrics: str = field(
        default="auto",
        metadata={
            "help": "'auto' logs what needs no extra forward pass, 'full' also runs the context-free reference for "
            "retention and suppression when no calibrator does, 'off' logs nothing beyond TRL."
        },
    )
    context_levels: dict[str, float] | str | None = field(
        default=None,
        metadata={
            "help": "Context levels of the teacher and their weights, e.g. 'solution:0.7,none:0.3'. Levels: none, "
            "stripped, solution, rollout. None keeps TRL's own context builder."
        },
    )
    context_mixing: str = field(
        default="per_sample",
        metadata={
            "help": "How several context levels combine: 'per_sample' draws one for each row, 'arith' and 'geo' mix "
            "the teacher's distributions under all levels, 'mix_to_floor' mixes in the level none only as far as its "
            "weight times the marker mass needs."
        },
    )
    context_demo: str = field(
        default="rollout",
        metadata={"help": "Demonstration that the level 'stripped' shortens: 'rollout' or 'solution'."},
    )
    demo_choice: str = field(
        default="first",
        metadata={"help": "Successful sibling shown to the teacher: 'first', 'random', 'shortest' or 'longest'."},
    )
    loss_reduction: str = field(
        default="upstream",
        metadata={
            "help": "'upstream' averages over all rows as TRL does, 'active_rows' over rows with a teacher context, "
            "'token_mean' over tokens."
        },
    )

    @property
    def is_calibrated(self) -> bool:
        """True if a calibrator acts at all."""
        return self.calibration_strength > 0

    def context_plan(self, remove_thinking: bool = False) -> ContextPlan | None:
        """What our context builder is to build, or None if TRL's own builder does all that is asked.

        Args:
            remove_thinking: TRL's `remove_thinking_from_demonstration`; our builder takes it over, because TRL's keeps
                the whole thinking where the chat template opens the tag.
        """
        if self.context_levels is not None:
            return ContextPlan(
                parse_levels(self.context_levels), self.context_mixing, self.context_demo, self.demo_choice
            )
        if remove_thinking or self.demo_choice != "first":
            return ContextPlan({"stripped" if remove_thinking else "rollout": 1.0}, choice=self.demo_choice)
        return None


def check_choice(name: str, given: object, choices: tuple[str, ...]) -> None:
    """Raise ConfigError, with the nearest choice, unless `given` is one of `choices`."""
    if given not in choices:
        raise unknown_name(name, given, choices)


def check_calibration(args: Any) -> None:
    """Check the settings of a finished config. Raises ConfigError; warns where TRL ignores a setting in silence."""
    check_choice("calibration_metrics", args.calibration_metrics, METRIC_LEVELS)
    check_choice("context_mixing", args.context_mixing, CONTEXT_MIXINGS)
    check_choice("context_demo", args.context_demo, DEMO_SOURCES)
    check_choice("demo_choice", args.demo_choice, DEMO_CHOICES)
    check_choice("loss_reduction", args.loss_reduction, tuple(LOSS_REDUCTIONS))
    check_choice("teacher_model_kind", args.teacher_model_kind, TEACHER_KINDS)
    calibrator = build_calibrator(args.calibration_method, as_mapping(args.calibration_kwargs))
    calibrator.check_strength(args.calibration_strength)
    build_schedule(args.calibration_schedule, args.calibration_strength)
    _check_contexts(args)
    _check_reach(args)
    if args.distillation_mode == "topk_logits" and args.distillation_topk is None:
        raise ConfigError(
            "distillation_mode='topk_logits' needs distillation_topk, which is None. The paper's setting is 100, with "
            "distillation_add_tail=True."
        )
    if args.beta != 0:
        warnings.warn(
            f"beta={args.beta} has no effect: TRL's SDPO stores it but adds no KL term. Calibrators bring their own "
            "reference; use calibration_method and calibration_strength.",
            stacklevel=2,
        )


def as_mapping(kwargs: dict[str, Any] | str | None) -> dict[str, Any]:
    """Read `calibration_kwargs`: a mapping, a JSON object, or None for no settings. Raises ConfigError."""
    if isinstance(kwargs, str):
        try:
            kwargs = json.loads(kwargs)
        except json.JSONDecodeError as error:
            raise ConfigError(
                f"calibration_kwargs={kwargs!r} is no JSON object: {error}. Write it like '{{\"kappa\": 0.8}}'."
            ) from error
    if kwargs is not None and not isinstance(kwargs, dict):
        raise ConfigError(f"calibration_kwargs must be a mapping of settings to values, got {kwargs!r}.")
    return kwargs or {}


def _check_contexts(args: Any) -> None:
    levels = None if args.context_levels is None else parse_levels(args.context_levels)
    if levels is None:
        for name, given, default in (
            ("context_mixing", args.context_mixing, "per_sample"),
            ("context_demo", args.context_demo, "rollout"),
        ):
            if given != default:
                raise ConfigError(
                    f"{name}={given!r} needs context_levels, which is None (TRL's own context builder). Set "
                    "context_levels, e.g. 'rollout:0.7,none:0.3', or leave the other at its default."
                )
        return
    if args.remove_thinking_from_demonstration:
        raise ConfigError(
            "remove_thinking_from_demonstration=True and context_levels were both given, and both say what the teacher "
            "sees. Keep context_levels and write the level 'stripped' for a demonstration without its thinking."
        )
    if args.context_demo != "rollout" and "stripped" not in levels:
        raise ConfigError(
            f"context_demo={args.context_demo!r} says what the level 'stripped' shortens, but context_levels="
            f"{args.context_levels!r} has no such level. Add 'stripped', or leave context_demo at 'rollout'."
        )
    if args.context_mixing == "mix_to_floor" and ("none" not in levels or len(levels) < 2):
        raise ConfigError(
            f"context_mixing='mix_to_floor' mixes richer levels with the level 'none', but context_levels="
            f"{args.context_levels!r} does not hold both. Write e.g. 'rollout:0.7,none:0.3'."
        )


def _check_reach(args: Any) -> None:
    """Refuse settings under which a calibrator, a mixture or a reduction would be skipped without a word."""
    asked = [f"calibration_strength={args.calibration_strength:g}"] if args.is_calibrated else []
    if args.context_mixing != "per_sample":
        asked.append(f"context_mixing={args.context_mixing!r}")
    if args.loss_reduction != "upstream":
        asked.append(f"loss_reduction={args.loss_reduction!r}")
    if not asked:
        return
    if args.use_teacher_server:
        raise ConfigError(
            f"{asked[0]} cannot act with use_teacher_server=True: the server returns single log-probabilities, not the "
            "distribution that has to be changed. Set use_teacher_server=False, or go back to the default."
        )
    if args.distillation_weight == 0:
        raise ConfigError(
            f"{asked[0]} cannot act with distillation_weight=0: the loss is then the policy gradient alone and no "
            "teacher is run. Give distillation_weight a value above 0, or go back to the default."
        )
