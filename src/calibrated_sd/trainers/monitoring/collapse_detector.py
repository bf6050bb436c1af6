"""When does a run lose its doubt? Smoothed, relative to its own beginning, with a memory. Plain numbers, no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from calibrated_sd.calibrators.hysteresis import Baseline, SchmittGate
from calibrated_sd.errors import ConfigError, unknown_name


@dataclass(frozen=True)
class Signal:
    """One logged quantity whose fall is bad news.

    Attributes:
        keys: names under which it may be logged; the first one that is found is used for the whole run.
        low: alarm if the smoothed quantity falls below this share of its baseline.
        high: the alarm ends once it is back at this share.
        complement: watch 1 − x instead of x: for a share whose *rise* is bad news.
    """

    keys: tuple[str, ...]
    low: float = 0.5
    high: float = 0.7
    complement: bool = False


SIGNALS: dict[str, Signal] = {
    "density": Signal(("epistemic/per_1k",)),
    "marker_mass": Signal(("monitor/marker_mass",)),
    "retention": Signal(("calibration/retention", "monitor/retention"), low=0.9, high=1.0),
    "length": Signal(("completions/mean_length", "monitor/mean_length")),
    "truncated": Signal(("completions/clipped_ratio", "monitor/clipped_ratio"), complement=True),
    "entropy": Signal(("calibration/student_entropy", "monitor/entropy", "entropy"), low=0.8, high=1.0),
}
"""What is watched by default. `retention` and `entropy` were chosen on one half of a study's arms and tested on the other
(docs/results/study.md, part E); there the rest, at half of their baseline, changed nothing. `marker_mass` was not logged in it."""

TEXT_SIGNALS = ("density", "length", "truncated")
"""Signals of the texts themselves: where those are given and not sampled, they say nothing about the model."""

BASELINE, SMOOTHING, PATIENCE = 3, 0.5, 1
"""Defaults of `CollapseDetector` and `CollapseMonitor`, chosen in the same way."""


@dataclass(frozen=True)
class Alarm:
    """A signal has collapsed.

    Attributes:
        step: the optimizer step at which it was noticed.
        signal: name of the signal.
        value: the smoothed quantity, in its own unit.
        baseline: its mean over the first logs.
        threshold: the value that it has passed.
        message: all this in a paragraph.
    """

    step: int
    signal: str
    value: float
    baseline: float
    threshold: float
    message: str


def read_signals(changes: Mapping[str, Any] | None, defaults: Mapping[str, Signal] = SIGNALS) -> dict[str, Signal]:
    """The signals to watch: the defaults with some of them changed, added, or (None) dropped.

    Args:
        changes: name -> `Signal`, mapping with some of its fields, or None.
        defaults: what is watched where `changes` says nothing.

    Raises:
        ConfigError: an unknown field, a new signal without keys, thresholds out of order.
    """
    signals = dict(defaults)
    names = [field.name for field in fields(Signal)]
    for name, change in (changes or {}).items():
        if change is None:
            signals.pop(name, None)
            continue
        if isinstance(change, Signal):
            signals[name] = change
        elif isinstance(change, Mapping):
            for field in change:
                if field not in names:
                    raise unknown_name(f"field of the signal {name!r}", field, names)
            known = asdict(SIGNALS[name]) if name in SIGNALS else {}
            settings = {**known, **change}
            if "keys" not in settings:
                raise ConfigError(
                    f"CollapseMonitor: the signal {name!r} is not one of {', '.join(SIGNALS)}, so it must say under "
                    f'which names it is logged, e.g. {{"{name}": {{"keys": ["reward"], "low": 0.5, "high": 0.7}}}}.'
                )
            keys = settings["keys"]
            if not isinstance(keys, Sequence) or not all(isinstance(key, str) for key in keys):
                raise ConfigError(
                    f"CollapseMonitor: the signal {name!r} has keys={keys!r}. Give the name under which it is logged, or a "
                    "list of names."
                )
            signals[name] = Signal(**{**settings, "keys": (keys,) if isinstance(keys, str) else tuple(keys)})
        else:
            raise ConfigError(
                f"CollapseMonitor: the signal {name!r} is {change!r}. Give a mapping with some of {', '.join(names)}, "
                "or None to stop watching it."
            )
    for name, signal in signals.items():
        if not (_is_number(signal.low) and _is_number(signal.high) and 0 < signal.low <= signal.high <= 1):
            raise ConfigError(
                f"CollapseMonitor: the signal {name!r} has low={signal.low!r} and high={signal.high!r}. They are "
                "shares of its baseline with 0 < low <= high <= 1, e.g. 0.5 and 0.7."
            )
    return signals


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class CollapseDetector:
    """Reads logged lines one by one and says which signals have collapsed.

    Of each signal the mean over its first `baseline` logs is taken; every later value is divided by it, smoothed
    (``s ← smoothing · s + (1 − smoothing) · x``, from s = 1), and compared with `low` and `high`. A signal whose
    baseline is 0 has nothing to lose and is never alarming.

    Args:
        signals: see `read_signals`.
        baseline: number of logs that make the baseline.
        smoothing: in [0, 1); 0 smooths nothing.
        patience: number of smoothed values in a row below `low` that make an alarm.

    Raises:
        ConfigError: a setting out of range.
    """

    def __init__(
        self,
        signals: Mapping[str, Signal],
        baseline: int = BASELINE,
        smoothing: float = SMOOTHING,
        patience: int = PATIENCE,
    ) -> None:
        if not (_is_number(smoothing) and 0 <= smoothing < 1):
            raise ConfigError(
                f"CollapseMonitor: smoothing must be in [0, 1), got {smoothing!r}. 0 smooths nothing; 0.9 takes about "
                "ten logs to follow."
            )
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise ConfigError(
                f"CollapseMonitor: patience must be a whole number of at least 1, got {patience!r}. It is the number "
                "of logs in a row below the threshold that make an alarm."
            )
        self.watches = {name: _Watch(signal, baseline, smoothing, patience) for name, signal in signals.items()}
        self.alarms: list[Alarm] = []

    @property
    def active(self) -> list[str]:
        """Names of the signals that are in alarm now."""
        return [name for name, watch in self.watches.items() if not watch.gate.is_open]

    def update(self, step: int, logs: Mapping[str, Any]) -> list[Alarm]:
        """Take in one logged line; returns the alarms that begin with it (one for each collapse, not for each log)."""
        begun = [alarm for name, watch in self.watches.items() if (alarm := watch.update(step, name, logs)) is not None]
        self.alarms += begun
        return begun

    def state_dict(self) -> dict[str, Any]:
        """The memory without the settings, as JSON can hold it."""
        return {
            "watches": {name: watch.state_dict() for name, watch in self.watches.items()},
            "alarms": [asdict(alarm) for alarm in self.alarms],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved memory. Signals that it does not hold begin anew."""
        for name, memory in state["watches"].items():
            if name in self.watches:
                self.watches[name].load_state_dict(memory)
        self.alarms = [Alarm(**alarm) for alarm in state["alarms"]]


class _Watch:
    """The memory of one signal."""

    def __init__(self, signal: Signal, baseline: int, smoothing: float, patience: int) -> None:
        self.signal, self.smoothing, self.patience = signal, smoothing, patience
        self.key: str | None = None
        self.baseline = Baseline(baseline)
        self.gate = SchmittGate(signal.low, signal.high)
        self.smoothed = 1.0
        self.below = 0  # smoothed values in a row below `low`, up to now

    def is_logged(self, logs: Mapping[str, Any]) -> bool:
        return any(key in logs for key in self.signal.keys)

    def read(self, logs: Mapping[str, Any]) -> float | None:
        for key in self.signal.keys if self.key is None else (self.key,):
            value = logs.get(key)
            if isinstance(value, int | float) and math.isfinite(value):
                self.key = key
                return 1.0 - value if self.signal.complement else float(value)
        return None

    def update(self, step: int, name: str, logs: Mapping[str, Any]) -> Alarm | None:
        value = self.read(logs)
        if value is None:
            return None
        if not self.baseline.is_frozen:
            self.baseline.update(value)
            return None
        base = self.baseline.value
        if base is None or base <= 0:
            return None
        self.smoothed = self.smoothing * self.smoothed + (1 - self.smoothing) * value / base
        self.below = self.below + 1 if self.smoothed < self.signal.low else 0
        if 0 < self.below < self.patience:
            return None  # not yet for long enough to say anything
        was_open = self.gate.is_open
        is_open = self.gate.update(self.smoothed)
        return self._alarm(step, name, base) if was_open and not is_open else None

    def _alarm(self, step: int, name: str, base: float) -> Alarm:
        def unit(value: float) -> float:
            return 1.0 - value if self.signal.complement else value

        value, baseline, threshold = (unit(share * base) for share in (self.smoothed, 1.0, self.signal.low))
        direction = "risen" if self.signal.complement else "fallen"
        message = (
            f"Step {step}: {name} ({self.key}) has {direction} to {value:.4g}, smoothed, from a baseline of "
            f"{baseline:.4g} (alarm beyond {threshold:.4g}, {self.patience} logs in a row). The model may be losing "
            "its expressed uncertainty: compare the accuracy on problems unlike the training set at this step with "
            "that of an earlier checkpoint before you go on."
        )
        return Alarm(step, name, value, baseline, threshold, message)

    def state_dict(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "baseline": self.baseline.state_dict(),
            "gate": self.gate.state_dict(),
            "smoothed": self.smoothed,
            "below": self.below,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.key = state["key"]
        self.baseline.load_state_dict(state["baseline"])
        self.gate.load_state_dict(state["gate"])
        self.smoothed = state["smoothed"]
        self.below = state["below"]
