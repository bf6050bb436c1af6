"""Thresholds of the early warning, chosen on one half of the arms and reported on the other."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import product
from typing import Any

import numpy as np

from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.evaluation.question_tables import N_PAIRED
from calibrated_sd.experiments.early_warning import Case, Settings, assess, first_alarms, verdict
from calibrated_sd.trainers.monitoring.collapse_detector import Signal

GRID: dict[str, tuple[Any, ...]] = {
    "low": (None, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "baseline": (3, 2, 1),
    "smoothing": (0.5, 0.3, 0.0),
    "patience": (2, 1),
}
"""All that is tried: `low` of each signal on its own (None: not watched), the others for all signals together."""
MOST_SIGNALS = 6
"""Signals that can be fitted together; the combinations are 7 to this power, 18 times."""
RULE = (
    "most hits minus false alarms, then the earliest mean alarm over hits, then the least sensitive: the smallest sum of "
    "lows (0 for a signal that is not watched), more patience, more smoothing, a longer baseline, the grid's order"
)
FIRST, SECOND = "first", "second"
_NEVER = np.iinfo(np.int32).max


def half_of(arm: str) -> str:
    """The half that an arm belongs to: ``"first"`` if the SHA-256 of its name is even, else ``"second"``."""
    return FIRST if int(hashlib.sha256(arm.encode("utf-8")).hexdigest(), 16) % 2 == 0 else SECOND


def with_low(signal: Signal, low: float) -> Signal:
    """The signal with another threshold and the same distance to the one at which its alarm ends (at most 1)."""
    return replace(signal, low=low, high=round(min(1.0, low + (signal.high - signal.low)), 6))


def choose(cases: Sequence[Case], defaults: Settings, grid: Mapping[str, tuple[Any, ...]] = GRID) -> Settings:
    """The best setting of the grid on these runs, by `RULE`. Signals that none of them logs keep their default.

    Args:
        cases: the runs to choose on, and no others.
        defaults: whose signals are fitted.
        grid: as `GRID`.

    Raises:
        DataError: no run of them collapses, or every one does.
        ConfigError: more than `MOST_SIGNALS` signals are logged.
    """
    collapsed = np.array([case.outcome.collapsed for case in cases], dtype=bool)
    if collapsed.all() or not collapsed.any():
        raise DataError(
            f"Thresholds cannot be chosen: of the {len(cases)} runs of the first half of the arms, {collapsed.sum()} "
            "collapse, and at least one must and one must not. Give more folders, or leave --fit out."
        )
    logged = {name for case in cases for name in first_alarms(case.run, defaults)}
    names = [name for name in defaults.signals if name in logged]
    if len(names) > MOST_SIGNALS:
        raise ConfigError(
            f"--fit tries every combination and can do so for {MOST_SIGNALS} signals, but {len(names)} are watched and "
            f"logged: {', '.join(names)}. Drop some, e.g. --signals '{{\"{names[-1]}\": null}}'."
        )
    lows = grid["low"]
    picks = np.array(list(product(range(len(lows)), repeat=len(names))))  # (combinations, signals)
    sensitivity = np.array([0.0 if low is None else low for low in lows])[picks].sum(axis=1).round(6)
    best: tuple[Any, ...] | None = None
    for baseline, smoothing, patience in product(grid["baseline"], grid["smoothing"], grid["patience"]):
        shared = Settings(defaults.signals, baseline, smoothing, patience)
        alarms = _alarm_steps(cases, names, shared, lows)
        first = reduce(np.minimum, (alarms[i][picks[:, i]] for i in range(len(names))))  # (combinations, runs)
        fired = first < _NEVER
        hits, false_alarms = fired[:, collapsed].sum(axis=1), fired[:, ~collapsed].sum(axis=1)
        steps = np.where(fired, first, 0)[:, collapsed].sum(axis=1, dtype=np.int64)
        mean = np.divide(steps, hits, out=np.full(len(picks), math.inf), where=hits > 0)
        order = np.lexsort((sensitivity, mean, false_alarms - hits))  # stable: ties in the grid's order
        i = order[0]
        key = (false_alarms[i] - hits[i], mean[i], sensitivity[i], -patience, -smoothing, -baseline)
        if best is None or key < best[0]:
            best = (key, shared, picks[i])
    assert best is not None
    _, shared, pick = best
    chosen = dict(defaults.signals)
    for name, index in zip(names, pick, strict=True):
        low = lows[index]
        if low is None:
            del chosen[name]
        else:
            chosen[name] = with_low(chosen[name], low)
    return replace(shared, signals=chosen)


def _alarm_steps(cases: Sequence[Case], names: Sequence[str], shared: Settings, lows: Sequence[Any]) -> np.ndarray:
    """First alarm of each signal at each threshold in each run, (signals, lows, runs)."""
    steps = np.full((len(names), len(lows), len(cases)), _NEVER, dtype=np.int32)
    for j, low in enumerate(lows):
        if low is None:
            continue
        # Signals do not see one another, so one detector with all of them gives the first alarm of each.
        settings = replace(shared, signals={name: with_low(shared.signals[name], low) for name in names})
        for r, case in enumerate(cases):
            for name, step in first_alarms(case.run, settings).items():
                if step is not None:
                    steps[names.index(name), j, r] = step
    return steps


def fit(cases: Sequence[Case], defaults: Settings, *, n_resamples: int = N_PAIRED) -> dict[str, Any]:
    """Choose on the first half of the arms, report on the second.

    Returns:
        ``{"chosen", "defaults", "alone", "verdict", "rule", "grid", "halves", "settings"}``: `chosen`, `defaults` and
        `alone` (each signal by itself, its thresholds chosen in the same way) as
        :func:`~calibrated_sd.experiments.early_warning.assess` gives them, of the second half only.

    Raises:
        DataError: a half without a run, or a first half with collapsing runs only or none.
        ConfigError: too many signals.
    """
    halves = {half: [case for case in cases if half_of(case.run.arm) == half] for half in (FIRST, SECOND)}
    for half, members in halves.items():
        if not members:
            raise DataError(f"The {half} half of the arms is empty, so nothing can be fitted. Give more folders.")
    chosen = choose(halves[FIRST], defaults)
    second = halves[SECOND]
    logged = {name for case in halves[FIRST] for name in first_alarms(case.run, defaults)}
    alone = {}
    for name in (name for name in defaults.signals if name in logged):
        settings = choose(halves[FIRST], defaults.only(name))
        alone[name] = assess(second, settings, n_resamples=n_resamples)
    reported = assess(second, chosen, n_resamples=n_resamples)
    return {
        "settings": chosen,
        "chosen": reported,
        "defaults": assess(second, defaults, n_resamples=n_resamples),
        "alone": alone,
        "verdict": verdict(reported["summary"]),
        "rule": RULE,
        "grid": {name: list(values) for name, values in GRID.items()},
        "halves": {
            half: {
                "arms": sorted({case.run.arm for case in members}),
                "n_runs": len(members),
                "n_collapsing": sum(case.outcome.collapsed for case in members),
            }
            for half, members in halves.items()
        },
        "not_fitted": [name for name in defaults.signals if name not in logged],
    }
