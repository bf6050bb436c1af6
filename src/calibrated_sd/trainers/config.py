"""The settings that calibration adds to a TRL config, and every check that needs no model and no data.

All fields have defaults under which the trainer is TRL's own. They work from Python, from YAML and as overrides on the
command line through `TrlParser`. What the teacher sees is set in `context_config`.
"""

import warnings
from dataclasses import dataclass, field
from typing import Any

from calibrated_sd.calibrators import (
    Advantage,
    Calibrator,
    Divergence,
    build_calibrator,
    build_controller,
    build_schedule,
)
from calibrated_sd.calibrators.base import ROW_STATS
from calibrated_sd.contexts import parse_levels
from calibrated_sd.errors import ConfigError, unknown_name
from calibrated_sd.markers import MarkerSet
from calibrated_sd.trainers.json_settings import as_mapping
from calibrated_sd.trainers.non_finite import NonFiniteFields
from calibrated_sd.trainers.teacher_context.config import ContextFields, check_contexts

METRIC_LEVELS = ("auto", "full", "off")
TEACHER_KINDS = ("base", "ema", "live")
DISTILLATION_MODES = ("full_logits", "sampled_token", "topk_logits")
LOSS_REDUCTIONS = {"upstream": "sequence_mean", "token_mean": "token_mean", "active_rows": "active_rows"}
"""Names of `loss_reduction` and the function in `calibrated_sd.objectives` that each one means."""

JSON_FIELDS = (
    *("model_init_kwargs", "generation_kwargs", "chat_template_kwargs", "teacher_chat_template_kwargs"),
    *("calibration_kwargs", "calibration_controller", "context_levels"),
)
"""Fields that take a mapping, on the command line a JSON object; TRL refuses one for the first three."""


@dataclass
class CalibrationFields(NonFiniteFields, ContextFields):
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
        calibration_controller (`dict` or `str`, *optional*):
            Turns the strength by itself until a share of the doubt is kept, e.g. `"density:0.8"`; `calibration_strength`
            is then where it starts. See `calibrators.controller`.
        calibration_markers (`str`, *optional*, defaults to `"lexical"`):
            Marker set: `"lexical"`, `"legacy"`, or the path of a YAML file.
        calibration_kwargs (`dict` or `str`, *optional*):
            The method's own settings; on the command line a JSON object.
        calibration_metrics (`str`, *optional*, defaults to `"auto"`):
            `"auto"` logs everything that costs no extra forward pass; marker retention and suppression need the
            context-free reference and appear when the calibrator computes it anyway. `"full"` always computes it.
            `"off"` logs nothing beyond TRL.
        loss_reduction (`str`, *optional*, defaults to `"upstream"`):
            `"upstream"` is TRL's mean over all rows of the row's mean; `"active_rows"` leaves out rows without a
            teacher context; `"token_mean"` weighs all tokens alike, as the paper's code does.
        chunk_size (`int`, *optional*):
            Positions of a completion whose logits exist at the same time. `None` holds the logits of all of them, as
            TRL does; a few hundred make long completions and large vocabularies fit.
        topk_markers (`bool`, *optional*, defaults to `False`):
            With `distillation_mode="topk_logits"`: add all markers to the student's top k.
        on_non_finite (`str`, *optional*, defaults to `"raise"`):
            What happens when a loss, a gradient or a reward is NaN or infinite: `"raise"` ends training before the weights
            are touched, `"skip"` leaves out the optimizer step (or the rollout) and counts it, `"ignore"` is TRL's.
    """

    calibration_method: str = field(
        default="projection",
        metadata={
            "help": "Calibrator that preserves uncertainty, e.g. projection, floor, mixture, mix_to_floor, anchor, "
            "neutral; all in docs/reference/calibrators. Acts only if calibration_strength is above 0."
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
    calibration_controller: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Turn the strength until a share of the initial doubt is kept: 'density:0.8', 'retention:0.8', "
            "'both:0.8', or a JSON object of the controller's fields. None: the strength follows its schedule."
        },
    )
    calibration_markers: str = field(
        default="lexical",
        metadata={"help": "Marker set that calibrators protect: 'lexical', 'legacy', or the path of a YAML file."},
    )
    calibration_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Settings of the calibrator itself, a mapping or a JSON object, e.g. '{\"dilation\": 1}' for anchor."
        },
    )
    calibration_metrics: str = field(
        default="auto",
        metadata={
            "help": "'auto' logs what needs no extra forward pass, 'full' also runs the context-free reference for "
            "retention and suppression when no calibrator does, 'off' logs nothing beyond TRL."
        },
    )
    loss_reduction: str = field(
        default="upstream",
        metadata={
            "help": "'upstream' averages over all rows as TRL does, 'active_rows' over rows with a teacher context, "
            "'token_mean' over tokens."
        },
    )
    chunk_size: int | None = field(
        default=None,
        metadata={
            "help": "Positions whose logits exist at the same time, e.g. 256: memory no longer grows with the length of "
            "completions times the vocabulary. None holds all logits, as TRL does."
        },
    )
    topk_markers: bool = field(
        default=False,
        metadata={"help": "With distillation_mode='topk_logits': add all markers to the student's top k."},
    )

    @property
    def is_calibrated(self) -> bool:
        """True if a calibrator acts at all."""
        return self.calibration_strength > 0 or bool(self.calibration_controller)

    def make_calibrator(self) -> Calibrator:
        """The method, with its settings. Raises ConfigError."""
        return build_calibrator(self.calibration_method, as_mapping(self.calibration_kwargs))


def check_choice(name: str, given: object, choices: tuple[str, ...]) -> None:
    """Raise ConfigError, with the nearest choice, unless `given` is one of `choices`."""
    if given not in choices:
        raise unknown_name(name, given, choices)


def check_calibration(args: Any) -> None:
    """Check the settings of a finished config. Raises ConfigError; warns where TRL ignores a setting in silence."""
    check_choice("calibration_metrics", args.calibration_metrics, METRIC_LEVELS)
    check_choice("loss_reduction", args.loss_reduction, tuple(LOSS_REDUCTIONS))
    check_choice("teacher_model_kind", args.teacher_model_kind, TEACHER_KINDS)
    check_choice("distillation_mode", args.distillation_mode, DISTILLATION_MODES)
    MarkerSet.load(args.calibration_markers)
    calibrator = args.make_calibrator()
    check_dials(args, calibrator)
    size = args.chunk_size
    if size is not None and size < 1:
        raise ConfigError(f"chunk_size is a whole number of positions, at least 1, got {size!r}. Try 256, or None.")
    _warn_of_idle_settings(args)
    check_contexts(args)
    _check_reach(args, calibrator)
    if args.distillation_mode == "topk_logits" and args.distillation_topk is None:
        raise ConfigError(
            "distillation_mode='topk_logits' needs distillation_topk, which is None. The paper's setting is 100, with "
            "distillation_add_tail=True."
        )
    if args.topk_markers and args.distillation_mode != "topk_logits":
        raise ConfigError(
            f"topk_markers=True adds the markers to a top-k support, but distillation_mode={args.distillation_mode!r} "
            "has none. Set distillation_mode='topk_logits', or topk_markers=False."
        )
    if getattr(args, "beta", 0.0) != 0:
        warnings.warn(
            f"beta={args.beta} has no effect: TRL's SDPO stores it but adds no KL term. Calibrators bring their own "
            "reference; use calibration_method and calibration_strength.",
            stacklevel=2,
        )


def check_dials(args: Any, calibrator: Calibrator) -> None:
    """Check what turns the strength. Raises ConfigError."""
    calibrator.check_strength(args.calibration_strength)
    args.check_on_non_finite()
    build_schedule(args.calibration_schedule, args.calibration_strength)
    build_controller(args.calibration_controller, args.calibration_strength, calibrator.strength_range)
    if args.calibration_controller and args.calibration_schedule != "constant":
        raise ConfigError(
            f"calibration_controller={args.calibration_controller!r} and calibration_schedule="
            f"{args.calibration_schedule!r} would both turn the strength. Keep one of them."
        )


def _warn_of_idle_settings(args: Any) -> None:
    """Settings that are allowed, because sweeps pass through them, and that do nothing."""
    if not args.is_calibrated and (args.calibration_method != "projection" or args.calibration_schedule != "constant"):
        warnings.warn(
            f"calibration_method={args.calibration_method!r} with calibration_schedule={args.calibration_schedule!r} "
            "does nothing: calibration_strength is 0. Set it to the value that the method's page suggests.",
            stacklevel=3,
        )
    if args.chunk_size is not None and getattr(args, "distillation_weight", 1.0) == 0:
        warnings.warn(
            f"chunk_size={args.chunk_size} saves nothing in the loss with distillation_weight=0: TRL's policy gradient "
            "holds all logits. Only old log-probabilities are computed in pieces.",
            stacklevel=3,
        )


def _check_reach(args: Any, calibrator: Calibrator) -> None:
    """Refuse settings under which a calibrator, a mixture or a reduction would be skipped without a word."""
    shapes_policy = args.is_calibrated and isinstance(calibrator, Advantage)
    asked = [f"calibration_method={calibrator.name!r}"] if args.is_calibrated and not shapes_policy else []
    if args.context_mixing != "per_sample":
        asked.append(f"context_mixing={args.context_mixing!r}")
    for name, default in (("loss_reduction", "upstream"), ("topk_markers", False)):
        if getattr(args, name) != default:
            asked.append(f"{name}={getattr(args, name)!r}")
    server = getattr(args, "use_teacher_server", False)
    weight = getattr(args, "distillation_weight", 1.0)
    if server and (asked or shapes_policy or args.chunk_size is not None):
        what = asked[0] if asked else "chunk_size" if not shapes_policy else f"calibration_method={calibrator.name!r}"
        raise ConfigError(
            f"{what} cannot act with use_teacher_server=True: the server returns single log-probabilities, not the "
            "distribution that has to be changed. Set use_teacher_server=False, or go back to the default."
        )
    if asked and weight == 0:
        raise ConfigError(
            f"{asked[0]} cannot act with distillation_weight=0: the loss is then the policy gradient alone and no "
            "teacher is run. Give distillation_weight a value above 0, or go back to the default."
        )
    if shapes_policy and weight == 1:
        raise ConfigError(
            f"calibration_method={calibrator.name!r} shapes the advantages of the policy gradient, but "
            "distillation_weight=1 leaves no policy gradient. Set distillation_weight below 1 (SDPO only), or choose "
            "another method."
        )
    if (
        args.is_calibrated
        and "divergence_to_student" in calibrator.needs_stats
        and args.distillation_mode == "sampled_token"
    ):
        raise ConfigError(
            f"calibration_method={calibrator.name!r} reads the divergence of each token, but with distillation_mode="
            "'sampled_token' the loss is a surrogate that may be negative. Set distillation_mode to 'full_logits' or "
            "'topk_logits', or choose another method."
        )
    if args.is_calibrated and isinstance(calibrator, Divergence) and args.distillation_mode != "full_logits":
        raise ConfigError(
            f"calibration_method={calibrator.name!r} takes the place of the divergence over the whole vocabulary, but "
            f"distillation_mode={args.distillation_mode!r}. Set distillation_mode='full_logits' (chunk_size keeps its "
            "memory small), or choose another method."
        )


def check_without_rewards(args: Any, who: str, missing_levels: tuple[str, ...] = ("rollout",)) -> None:
    """Refuse what needs rewards or sibling rollouts in a trainer that has neither. Raises ConfigError.

    Args:
        args: a finished config.
        who: the trainer, as the message calls it.
        missing_levels: context levels that it cannot build.
    """
    calibrator = args.make_calibrator()
    rewarded = sorted(calibrator.needs_stats & set(ROW_STATS))
    if args.is_calibrated and rewarded:
        raise ConfigError(
            f"calibration_method={calibrator.name!r} reads the {', '.join(rewarded)} of each rollout, but {who} has no "
            "rewards. Use SDPO, or choose another method or setting of it."
        )
    levels = {} if args.context_levels is None else parse_levels(args.context_levels, keep_zero=True)
    for level in missing_levels:
        if level in levels:
            raise ConfigError(
                f"context_levels={args.context_levels!r} holds the level {level!r}, which needs rollouts that {who} does "
                "not make or cannot grade. Use 'solution', which reads the column solution or privileged_context."
            )
