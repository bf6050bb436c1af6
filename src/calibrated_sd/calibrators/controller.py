"""E11: a controller that turns the dial until a wanted share of the doubt is kept. Plain numbers, no tensors.

After every optimizer step, with the running mean ρ̂ of what was observed,

    λ ← clip(λ + gain·(target − ρ̂), 0, max_strength)

so that λ rises while too little doubt is kept and falls while more than enough is: dual ascent on the constraint
ρ ≥ target. λ itself is the only integrator and it is clipped, so nothing winds up while it sits at a bound.

What is observed: ``density``, the rate of markers in the completions against the rate of the first batches;
``retention``, Σm_S/Σm_R over the visited prefixes; ``both``, the smaller of the two. Retention can stay near 1 while the
completions reach ever fewer prefixes at which one would doubt, hence density as the default.

Source: ours for markers. Precedents that hold an entropy in this way: Haarnoja et al. 2018, arXiv:1812.05905, section 5.
"""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Mapping
from typing import Any

from calibrated_sd.calibrators.hysteresis import Baseline, read_state
from calibrated_sd.errors import ConfigError, shortened, unknown_name

OBSERVATIONS = ("density", "retention", "both")
PINNED_UPDATES = 20
"""After so many updates in a row at `max_strength` the target counts as out of reach."""

_KEYS = {"density": ("markers", "completion_tokens"), "retention": ("m_student", "m_reference")}
_HOW = 'Write "density:0.8", or give the fields as in {"target": 0.8, "observe": "both", "gain": 0.5}.'


@dataclasses.dataclass
class StrengthController:
    """Holds a share of the doubt by turning the strength.

    Args:
        target: the share ρ* that should be kept, over 0 and at most 1.
        gain: how far λ moves per update and unit of error, over 0.
        decay: of the running mean, at least 0 and below 1. The mean is bias-corrected: after the first observation it
            is that observation, and early ones weigh no more than `decay` gives them.
        start: λ until there is something to observe. It matters most: from 0 a student loses much before λ has risen.
        max_strength: upper end of λ, over 0.
        observe: "density", "retention" or "both".
        baseline_batches: how many updates at the start measure the density that counts as 1. During them the density
            says nothing, so λ stays where it is (or follows retention alone, with "both"). Fewer if a run is so fast
            that the student changes within them: the baseline would then be too low.

    Raises:
        ConfigError: a value outside its range.
    """

    target: float | int = 0.8
    gain: float | int = 0.5
    decay: float | int = 0.9
    start: float | int = 1.0
    max_strength: float | int = 100.0
    observe: str = "density"
    baseline_batches: int = 5

    def __post_init__(self) -> None:
        if self.observe not in OBSERVATIONS:
            raise unknown_name("observation of `calibration_controller`", self.observe, OBSERVATIONS)
        self._expect("target", lambda x: 0 < x <= 1, "over 0 and at most 1")
        self._expect("gain", lambda x: x > 0, "over 0")
        self._expect("decay", lambda x: 0 <= x < 1, "at least 0 and below 1")
        self._expect("max_strength", lambda x: x > 0, "over 0")
        self._expect("start", lambda x: 0 <= x <= self.max_strength, f"between 0 and {self.max_strength:g}")
        self._expect("baseline_batches", lambda x: x == int(x) and x >= 1, "a whole number of at least 1")
        self._strength = float(self.start)
        self._baseline = Baseline(int(self.baseline_batches))
        self._sum = self._weight = 0.0
        self._pinned = 0
        self._warned = False

    def _expect(self, name: str, allowed: Any, wanted: str) -> None:
        value = getattr(self, name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not allowed(value):
            raise ConfigError(f"`{name}` of `calibration_controller` must be {wanted}, got {value!r}. {_HOW}")

    @property
    def strength(self) -> float:
        """λ for the next step, in [0, max_strength]."""
        return self._strength

    @property
    def observed(self) -> float | None:
        """ρ̂, the running mean of what was observed; None before the first observation."""
        return self._sum / self._weight if self._weight > 0 else None

    @property
    def saturated(self) -> bool:
        """Whether λ has been at `max_strength` for 20 updates in a row: the target is out of reach."""
        return self._pinned >= PINNED_UPDATES

    def update(self, numbers: Mapping[str, float | int]) -> float:
        """Take in one optimizer step and return the strength for the next.

        Args:
            numbers: sums over all processes and micro-batches of the step: ``markers`` and ``completion_tokens`` for the
                density, ``m_student`` and ``m_reference`` (marker mass) for retention. Others are ignored. A sum that
                says nothing (no tokens, no mass, NaN) leaves the strength as it is.

        Raises:
            ConfigError: a number that `observe` needs is missing.
        """
        seen = [ratio for ratio in self._ratios(numbers) if ratio is not None and math.isfinite(ratio)]
        if seen:
            self._sum = self.decay * self._sum + (1 - self.decay) * min(seen)
            self._weight = self.decay * self._weight + (1 - self.decay)
            wanted = self._strength + self.gain * (self.target - self._sum / self._weight)
            self._strength = min(float(self.max_strength), max(0.0, wanted))
            self._pinned = self._pinned + 1 if wanted >= self.max_strength else 0
            self._warn_once()
        return self._strength

    def _ratios(self, numbers: Mapping[str, float | int]) -> list[float | None]:
        """The observed ratios; None for one that says nothing at this step."""
        found: list[float | None] = []
        for kind in ("density", "retention") if self.observe == "both" else (self.observe,):
            missing = [key for key in _KEYS[kind] if key not in numbers]
            if missing:
                raise ConfigError(
                    f"A controller that observes {self.observe!r} needs the sums {', '.join(_KEYS[kind])} of each step, "
                    f"but {', '.join(missing)} is missing from {sorted(numbers)}. "
                    "Pass them to `update`; marker mass needs `calibration_metrics='full'` or a method that compares "
                    "with the context-free reference."
                )
            above, below = (float(numbers[key]) for key in _KEYS[kind])
            if kind == "density" and not self._baseline.is_frozen:
                self._baseline.update(above, below)
                self._warn_of_nothing()
                continue
            ratio = above / below if below > 0 else None
            if kind == "density" and ratio is not None:
                ratio = ratio / self._baseline.value if self._baseline.value else None
            found.append(ratio)
        return found

    def _warn_of_nothing(self) -> None:
        if self._baseline.is_frozen and not self._baseline.value:
            warnings.warn(
                f"The completions of the first {self.baseline_batches} optimizer steps hold no marker at all, so there is "
                "no density to keep and the strength stays where it is. Look at `epistemic/per_1k`, choose other "
                "`calibration_markers`, or observe 'retention'.",
                stacklevel=4,
            )

    def _warn_once(self) -> None:
        if self.saturated and not self._warned:
            self._warned = True
            warnings.warn(
                f"The controller has held the strength at its upper end, {self.max_strength:g}, for {PINNED_UPDATES} "
                f"optimizer steps and still observes {self.observed:.3f} of the doubt instead of {self.target:g}. The "
                "target is out of reach of this method: lower it, raise `max_strength`, start higher, or use another "
                "`calibration_method`.",
                stacklevel=3,
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes; can be written as JSON without loss. The settings are not part of it."""
        return {
            "strength": self._strength,
            "sum": self._sum,
            "weight": self._weight,
            "pinned": self._pinned,
            "warned": self._warned,
            "baseline": self._baseline.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state; a strength beyond a `max_strength` that has been lowered since is cut to it.

        Raises:
            DataError: it is not what `state_dict` returned.
        """
        strength, total, weight, pinned, warned, baseline = read_state(
            state, "controller", "strength", "sum", "weight", "pinned", "warned", "baseline"
        )
        self._baseline.load_state_dict(baseline)
        self._strength = min(float(strength), float(self.max_strength))
        self._sum, self._weight = float(total), float(weight)
        self._pinned, self._warned = int(pinned), bool(warned)


def build_controller(
    spec: str | Mapping[str, Any] | None,
    base_strength: float | int,
    strength_range: tuple[float | int, float | int] = (0.0, math.inf),
) -> StrengthController | None:
    """Read `calibration_controller`.

    Args:
        spec: "density:0.8" or just "density"; a JSON object or a mapping of `StrengthController`'s fields; None or an
            empty text for no controller.
        base_strength: `calibration_strength`, where λ starts unless the spec says `start`.
        strength_range: that of the method. Its upper end is the default of `max_strength`; 100 if it is infinite.

    Raises:
        ConfigError: not a spec, no such field or observation (each suggests the nearest), or a value out of range.
    """
    if spec is None or (isinstance(spec, str) and not spec.strip()):
        return None
    fields = _fields_of(spec)
    known = [field.name for field in dataclasses.fields(StrengthController)]
    for key in fields:
        if key not in known:
            raise unknown_name("field of `calibration_controller`", key, known)
    upper = strength_range[1]
    fields.setdefault("max_strength", float(upper) if math.isfinite(upper) else 100.0)
    fields.setdefault("start", float(base_strength))
    try:
        too_high = fields["max_strength"] > upper
    except TypeError:
        too_high = False  # not a number: the controller says so
    if too_high:
        raise ConfigError(
            f"`max_strength` of `calibration_controller` is {fields['max_strength']!r}, but the strength of this method "
            f"must not exceed {upper:g}. Lower it, or leave it out to use {upper:g}."
        )
    return StrengthController(**fields)


def _fields_of(spec: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(spec, Mapping):
        return dict(spec)
    if not isinstance(spec, str):
        raise ConfigError(f"`calibration_controller` is neither text nor a mapping, got {spec!r}. {_HOW}")
    text = spec.strip()
    if text.startswith("{"):
        try:
            return dict(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"`calibration_controller` is not a JSON object ({error}), got {shortened(spec)}. {_HOW}"
            ) from None
    observe, colon, target = (part.strip() for part in text.partition(":"))
    if observe not in OBSERVATIONS:
        raise unknown_name("observation of `calibration_controller`", observe, OBSERVATIONS)
    if not colon:
        return {"observe": observe}
    try:
        return {"observe": observe, "target": float(target)}
    except ValueError:
        raise ConfigError(f"`calibration_controller` has a target that is no number, got {spec!r}. {_HOW}") from None
