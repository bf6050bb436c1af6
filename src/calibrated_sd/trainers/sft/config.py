"""The settings that calibration adds to TRL's SFTConfig, and every check that needs no model and no data."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trl import SFTConfig

from calibrated_sd.calibrators import build_schedule
from calibrated_sd.errors import ConfigError, unknown_name
from calibrated_sd.trainers.json_settings import as_mapping, check_types
from calibrated_sd.trainers.non_finite import NonFiniteFields

TOKEN_CLASSES = ("markers", "held_out", "other")
"""What a data token can be: part of a marker of `calibration_markers`, else of the set `held_out`, else anything."""

KL_FORMS = ("k3", "full")
FIGURES = ("auto", "off")


@dataclass
class SFTCalibrationFields(NonFiniteFields):
    """
    Settings of the calibrated SFT trainer. With the defaults nothing is added: the trainer is TRL's own.

    Parameters:
        calibration_strength (`float`, *optional*, defaults to `0.0`):
            λ, the weight of the divergence from the initial model around markers; `0.0` is off.
        calibration_schedule (`str`, *optional*, defaults to `"constant"`):
            How λ changes over the run, e.g. `"linear:0->1@10%"`. See `calibrators.schedule`.
        calibration_markers (`str`, *optional*, defaults to `"lexical"`):
            Marker set: `"lexical"`, `"legacy"`, or the path of a YAML file.
        calibration_kl (`str`, *optional*, defaults to `"k3"`):
            `"k3"` looks at the data's tokens only: p_R(y)/p_S(y) − 1 − log(p_R(y)/p_S(y)). `"full"` is KL(p_R‖p_S)
            over the vocabulary, computed in chunks.
        calibration_dilation (`int`, *optional*, defaults to `1`):
            How many tokens on each side of a marker join it.
        calibration_theta (`float`, *optional*, defaults to `0.02`):
            `"full"` only: positions where the initial model gives markers more than this count, too, whatever the data
            say there. `1.0` or more: markers in the data only.
        calibration_metrics (`str`, *optional*, defaults to `"auto"`):
            `"auto"` logs the share of marker tokens and the losses of each class; `"off"` logs nothing beyond TRL.
        marker_weight (`float`, *optional*, defaults to `1.0`):
            Factor on the loss of marker tokens; short for `token_weights={"markers": ...}`.
        token_weights (`dict` or `str`, *optional*):
            Factors on the loss of `"markers"`, `"held_out"` and `"other"` tokens; what is left out has 1.
        chunk_size (`int`, *optional*, defaults to `256`):
            `"full"` only: positions whose logits are held at a time.
        on_non_finite (`str`, *optional*, defaults to `"raise"`):
            What happens when a loss or a gradient is NaN or infinite: `"raise"` ends training before the weights
            are touched, `"skip"` leaves out the optimizer step and counts it, `"ignore"` is TRL's.
    """

    calibration_strength: float = field(
        default=0.0,
        metadata={
            "help": "Lambda, the weight of the divergence from the initial model around markers. 0 is off: without "
            "token weights the trainer is then TRL's own, bit for bit."
        },
    )
    calibration_schedule: str = field(
        default="constant",
        metadata={"help": "Lambda over the run: 'constant', 'linear:0->1@100', 'cosine:1->0@50-200', joined by ';'."},
    )
    calibration_markers: str = field(
        default="lexical",
        metadata={"help": "Marker set that is protected: 'lexical', 'legacy', or the path of a YAML file."},
    )
    calibration_kl: str = field(
        default="k3",
        metadata={
            "help": "'k3' compares with the initial model on the data's tokens, 'full' over the whole vocabulary.",
            "choices": list(KL_FORMS),
        },
    )
    calibration_dilation: int = field(
        default=1, metadata={"help": "How many tokens on each side of a marker are treated like it."}
    )
    calibration_theta: float = field(
        default=0.02,
        metadata={
            "help": "With calibration_kl='full', positions where the initial model gives markers more than this count "
            "as well. 1 or more: only markers that stand in the data."
        },
    )
    calibration_metrics: str = field(
        default="auto", metadata={"help": "'auto' logs losses by token class, 'off' nothing.", "choices": list(FIGURES)}
    )
    marker_weight: float = field(
        default=1.0, metadata={"help": "Factor on the loss of marker tokens; short for token_weights."}
    )
    token_weights: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Factors on the loss of token classes, a mapping or a JSON object, e.g. '{\"markers\": 2.0}'. "
            "Classes: markers, held_out, other; what is left out has 1."
        },
    )
    chunk_size: int = field(
        default=256, metadata={"help": "With calibration_kl='full', positions whose logits are held at a time."}
    )

    @property
    def is_calibrated(self) -> bool:
        """True if the divergence from the initial model is added."""
        return self.calibration_strength > 0

    def class_weights(self) -> dict[str, float]:
        """The factor of each class in `TOKEN_CLASSES`.

        Raises:
            ConfigError: an unknown class, a factor that is no number or is negative, only zeros, or `marker_weight`
                beside another factor for markers.
        """
        given = as_mapping(self.token_weights, "token_weights", "token classes to factors", '{"markers": 2.0}')
        for name, weight in given.items():
            if name not in TOKEN_CLASSES:
                raise unknown_name("token class in `token_weights`", name, TOKEN_CLASSES)
            _check_number(f"token_weights[{name!r}]", weight)
        _check_number("marker_weight", self.marker_weight)
        if self.marker_weight != 1.0 and given.get("markers", self.marker_weight) != self.marker_weight:
            raise ConfigError(
                f"marker_weight={self.marker_weight:g} and token_weights={given!r} give marker tokens two different "
                "factors. Leave marker_weight out and write the factor into token_weights."
            )
        weights = {"markers": float(self.marker_weight), "held_out": 1.0, "other": 1.0}
        weights |= {name: float(weight) for name, weight in given.items()}
        if not any(weights.values()):
            raise ConfigError(
                f"token_weights={given!r} gives every token the factor 0, so that nothing would be learnt. Give at "
                "least one of markers, held_out and other a factor above 0."
            )
        return weights


def check_sft_calibration(args: SFTCalibrationFields) -> None:
    """Check the settings of a finished config. Raises ConfigError."""
    for name, choices in (("calibration_kl", KL_FORMS), ("calibration_metrics", FIGURES)):
        if getattr(args, name) not in choices:
            raise unknown_name(name, getattr(args, name), choices)
    args.check_on_non_finite()
    _check_number("calibration_strength", args.calibration_strength)
    _check_number("calibration_theta", args.calibration_theta)
    build_schedule(args.calibration_schedule, args.calibration_strength)
    for name, least in (("calibration_dilation", 0), ("chunk_size", 1)):
        value = getattr(args, name)
        if value < least:
            raise ConfigError(f"{name} must be a whole number, {least} or more, got {value!r}.")
    args.class_weights()


def _check_number(name: str, value: object) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:  # type: ignore[arg-type, operator]
        raise ConfigError(f"{name} must be a number, 0 or more, got {value!r}. Try 1.")


@dataclass
class CalibratedSFTConfig(SFTCalibrationFields, SFTConfig):
    __doc__ = f"""
    Configuration of the [`CalibratedSFTTrainer`]: every field of TRL's `SFTConfig`, and those below.
    {SFTCalibrationFields.__doc__}"""

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*SFTConfig._VALID_DICT_FIELDS, "token_weights"]  # type: ignore[misc]

    def __post_init__(self):
        super().__post_init__()
        check_types(self, CalibratedSFTConfig, SFTConfig)
        check_sft_calibration(self)
