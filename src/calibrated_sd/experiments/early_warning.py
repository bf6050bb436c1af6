"""Would `CollapseMonitor` have warned? Its detector replayed over finished runs, held against what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from scipy import stats

from calibrated_sd.evaluation.question_tables import N_PAIRED
from calibrated_sd.evaluation.resampling import ratio
from calibrated_sd.evaluation.statistics import CONFIDENCE, Figure, statistic_interval
from calibrated_sd.experiments.watched_runs import Outcome, Study, WatchedRun, outcome
from calibrated_sd.records import figure
from calibrated_sd.trainers.monitoring.collapse_detector import (
    BASELINE,
    PATIENCE,
    SIGNALS,
    SMOOTHING,
    TEXT_SIGNALS,
    CollapseDetector,
    Signal,
)

HIT_RATE_BAR, FALSE_ALARM_BAR = 0.8, 0.2
"""The warning fails if fewer collapses than this are hit, or if it fires in more than this of the other runs."""
ON_GIVEN_TEXTS = "sft"
"""Kind of the runs that train on given texts; the monitor does not watch the texts there."""


@dataclass(frozen=True)
class Settings:
    """Of a detector; the defaults are those of `CollapseMonitor`."""

    signals: Mapping[str, Signal] = field(default_factory=lambda: dict(SIGNALS))
    baseline: int = BASELINE
    smoothing: float = SMOOTHING
    patience: int = PATIENCE

    def only(self, name: str) -> Settings:
        """The same with one signal."""
        return replace(self, signals={name: self.signals[name]})

    def as_dict(self) -> dict[str, Any]:
        """As JSON; `signals` is what `CollapseMonitor(signals=...)` takes, with None for a default that is not watched."""
        given = {
            name: {"keys": list(s.keys), "low": s.low, "high": s.high, "complement": s.complement}
            for name, s in self.signals.items()
        }
        dropped = {name: None for name in SIGNALS if name not in self.signals}
        return {
            "signals": {**given, **dropped},
            "baseline": self.baseline,
            "smoothing": self.smoothing,
            "patience": self.patience,
        }


@dataclass(frozen=True)
class Case:
    """A run and what became of it."""

    run: WatchedRun
    outcome: Outcome


def collect_cases(
    studies: Iterable[Study], signals: Mapping[str, Signal] = SIGNALS, *, n_resamples: int = N_PAIRED
) -> tuple[list[Case], list[str]]:
    """Every different run of the studies with its outcome, and those left out with the reason.

    A run that two studies share (equal seed, equal logged signals) counts once: the one that was evaluated more often,
    then the first. Counted twice it could stand in both halves of a fit, under two names.
    """
    keys = tuple(key for signal in signals.values() for key in signal.keys)
    kept: dict[Any, Case] = {}
    left_out: list[str] = []
    for study in studies:
        for run in study.runs:
            here = f"{run.folder}: {run.arm}/seed_{run.seed}"
            if not any(key in line for line in run.logs for key in keys):
                left_out.append(f"{here}: logs no signal of the monitor")
                continue
            same = (run.seed, *(tuple(line.get(key) for key in ("step", *keys)) for line in run.logs))
            other = kept.get(same)
            if other is not None and len(other.run.graded) >= len(run.graded):
                left_out.append(f"{here}: the same run as {other.run.folder}: {other.run.arm}/seed_{other.run.seed}")
                continue
            if other is not None:
                left_out.append(f"{other.run.folder}: {other.run.arm}/seed_{other.run.seed}: the same run as {here}")
            kept[same] = Case(run, outcome(run, study.base, n_resamples=n_resamples))
        left_out += study.left_out
    return list(kept.values()), left_out


def first_alarms(run: WatchedRun, settings: Settings) -> dict[str, int | None]:
    """Each signal's first alarm, as a step; None: it never fires. Signals that the run does not log are not in the answer."""
    watched = {
        name: signal
        for name, signal in settings.signals.items()
        if run.kind != ON_GIVEN_TEXTS or name not in TEXT_SIGNALS
    }
    detector = CollapseDetector(watched, settings.baseline, settings.smoothing, settings.patience)
    first: dict[str, int | None] = {}
    for line in run.logs:
        for alarm in detector.update(line["step"], line):
            first.setdefault(alarm.signal, alarm.step)
    return {name: first.get(name) for name, watch in detector.watches.items() if watch.key is not None}


def judge(case: Case, settings: Settings) -> dict[str, Any]:
    """One run under one setting: ``{alarm, signals, lead, by_signal}``.

    `alarm` is the step of the first alarm, `signals` those that fire at it, `lead` the onset minus it; None where there is
    none. `lead_from_last_good` takes the evaluated step before the onset instead: the fall began between the two.
    """
    by_signal = first_alarms(case.run, settings)
    fired = [step for step in by_signal.values() if step is not None]
    alarm = min(fired, default=None)
    return {
        "alarm": alarm,
        "signals": [name for name, step in by_signal.items() if step is not None and step == alarm],
        "lead": _minus(case.outcome.onset, alarm),
        "lead_from_last_good": _minus(case.outcome.last_good, alarm),
        "by_signal": by_signal,
    }


def _minus(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a - b


def assess(cases: Sequence[Case], settings: Settings, *, n_resamples: int = N_PAIRED) -> dict[str, Any]:
    """How well a setting warns, over runs.

    Returns:
        ``{"settings", "summary", "signals"}``. `summary` holds ``hit_rate`` (of collapsing runs), ``false_alarm_rate`` (of
        the others), ``lead`` and ``lead_from_last_good`` (steps, over hits with an onset), ``in_time`` (share of those with
        a lead above 0) and counts. `signals` holds the same for each signal alone, over the runs that log it, and ``first``: in
        how many hits it is among those that fire first.
    """
    judged = [judge(case, settings) for case in cases]
    alone = {}
    for name in settings.signals:
        logged = [(c, j) for c, j in zip(cases, judged, strict=True) if name in j["by_signal"]]
        if not logged:
            continue
        rows = [(c, j["by_signal"][name]) for c, j in logged]
        first = sum(name in j["signals"] for c, j in logged if c.outcome.collapsed)
        alone[name] = {**_summary(rows, n_resamples), "first": first}
    everything = [(case, row["alarm"]) for case, row in zip(cases, judged, strict=True)]
    return {"settings": settings.as_dict(), "summary": _summary(everything, n_resamples), "signals": alone}


def _summary(rows: Sequence[tuple[Case, int | None]], n_resamples: int) -> dict[str, Any]:
    fallen = [(case, alarm) for case, alarm in rows if case.outcome.collapsed]
    others = [(case, alarm) for case, alarm in rows if not case.outcome.collapsed]
    hits = [(case, alarm) for case, alarm in fallen if alarm is not None]
    leads = [(case.run.arm, case.outcome.onset - alarm) for case, alarm in hits if case.outcome.onset is not None]
    least = [
        (case.run.arm, case.outcome.last_good - alarm) for case, alarm in hits if case.outcome.last_good is not None
    ]
    return {
        "n_runs": len(rows),
        "n_arms": len({case.run.arm for case, _ in rows}),
        "n_collapsing": len(fallen),
        "n_hits": len(hits),
        "n_false_alarms": sum(alarm is not None for _, alarm in others),
        "hit_rate": _rate([(c.run.arm, a is not None) for c, a in fallen], "collapsing runs"),
        "false_alarm_rate": _rate([(c.run.arm, a is not None) for c, a in others], "other runs"),
        "lead": _mean_steps(leads, n_resamples),
        "lead_from_last_good": _mean_steps(least, n_resamples),
        "in_time": _rate([(arm, lead > 0) for arm, lead in leads], "hits with an onset"),
    }


def _rate(rows: Sequence[tuple[str, bool]], what: str) -> Figure:
    """Share of true rows. The interval takes runs as independent, which seeds of one arm are not."""
    if not rows:
        return figure(None, None, None, 0, "share", f"no {what}")
    k, n = sum(value for _, value in rows), len(rows)
    ends = stats.binomtest(k, n).proportion_ci(CONFIDENCE, method="wilson")
    n_arms = len({arm for arm, _ in rows})
    method = f"{k} of {n} {what}, of {n_arms} arm(s); {CONFIDENCE:.0%} Wilson over runs (seeds of an arm are alike)"
    return figure(k / n, ends.low, ends.high, n, "share", method)


def _mean_steps(rows: Sequence[tuple[str, int]], n_resamples: int) -> Figure:
    """Mean over runs with arms resampled, since seeds of an arm are alike; `n` counts arms."""
    if not rows:
        return figure(None, None, None, 0, "steps", "no hits with an onset")
    steps: dict[str, list[int]] = {}
    for arm, lead in rows:
        steps.setdefault(arm, []).append(lead)
    counts = {arm: [1] * len(leads) for arm, leads in steps.items()}
    shown = statistic_interval([steps, counts], ratio, unit="steps", n_resamples=n_resamples)
    over = f"mean over {len(rows)} hits with an onset, of {len(steps)} arm(s)"
    how = f"{shown['method'].split(';')[0]} of arms" if shown["lo"] is not None else "1 arm: no interval"
    return {**shown, "method": f"{over}; {how}"}


def verdict(summary: Mapping[str, Any]) -> str:
    """``"holds"``, ``"fails"`` or, without collapsing or without other runs, ``"undecided"``; from point estimates."""
    hit_rate, false_alarm_rate = summary["hit_rate"]["value"], summary["false_alarm_rate"]["value"]
    if hit_rate is None or false_alarm_rate is None:
        return "undecided"
    return "fails" if hit_rate < HIT_RATE_BAR or false_alarm_rate > FALSE_ALARM_BAR else "holds"


def run_rows(cases: Sequence[Case], settings: Settings) -> list[dict[str, Any]]:
    """One entry per run: what became of it, and when the alarm came."""
    return [
        {
            "folder": case.run.folder,
            "arm": case.run.arm,
            "seed": case.run.seed,
            "kind": case.run.kind,
            "final_step": case.outcome.final_step,
            "evaluated_steps": sorted(case.run.graded),
            "ood_difference_vs_base": case.outcome.difference,
            "collapsed": case.outcome.collapsed,
            "onset": case.outcome.onset,
            "last_good": case.outcome.last_good,
            **judge(case, settings),
        }
        for case in cases
    ]
