"""The numbers that tables and figures show: taken from ``summary.csv``, recomputed from completions where it is silent."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from calibrated_sd.evaluation.statistics import mean_interval, rate_per_1k_interval
from calibrated_sd.reports.folder import BASE, ReproduceFolder

OOD = "ood"
"""Name of the pooled suite: all questions of the suites that are not trained on, each question counting once."""
SCREEN = "screen"
"""Suite of the ladder's screening samples: they choose problems, so their accuracy is not reported."""
UNITS = {
    "accuracy": "share",
    "accuracy_finished": "share",
    "length": "tokens",
    "markers_per_response": "per response",
    "markers_per_1k": "per 1k tokens",
    "held_out_per_1k": "per 1k tokens",
}
"""Metric → unit. Markers are those of the `lexical` set; `held_out` phrases are given to no calibrator."""


@dataclass(frozen=True)
class Score:
    """A figure with the seeds behind it. ``value`` is None where nothing was measured."""

    value: float | None
    lo: float | None = None
    hi: float | None = None
    n: int = 0
    unit: str = ""
    method: str = ""
    by_seed: Mapping[int, float] = field(default_factory=dict)

    @property
    def has_interval(self) -> bool:
        return self.lo is not None and self.hi is not None


@dataclass(frozen=True)
class Contrast:
    """A difference between two arms, as `csd reproduce` computed it. ``p_value`` is Holm-corrected."""

    score: Score
    p_value: float | None


def finite(value: Any) -> float | None:
    """The value as a float, None where it is not a finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


class Scores:
    """Looks up scores of one folder."""

    def __init__(self, folder: ReproduceFolder) -> None:
        self.folder = folder
        self._cache: dict[tuple[Any, ...], Score | None] = {}

    def last_step(self, arm: str) -> int | None:
        """The last step at which the arm has been evaluated."""
        return max(self.steps(arm), default=None)

    def steps(self, arm: str) -> list[int]:
        """Steps at which the arm has been evaluated, without the base model's step 0."""
        steps = set(self._completions.loc[self._completions["arm"] == arm, "step"].dropna().astype(int))
        if self.folder.summary is not None:
            rows = self.folder.summary
            rows = rows[(rows["arm"] == arm) & rows["metric"].isin(list(UNITS))]
            steps |= set(rows["step"].dropna().astype(int))
        return sorted(steps)

    def get(self, arm: str, suite: str, metric: str, step: int | None = None) -> Score | None:
        """A score, or None where the arm was not evaluated there.

        Args:
            arm: name of the arm.
            suite: name of a suite, or ``"ood"``.
            metric: a key of ``UNITS``, or another one of ``summary.csv``.
            step: optimizer step; the arm's last evaluation by default.
        """
        step = self.last_step(arm) if step is None else step
        if step is None:
            return None
        key = (arm, suite, metric, step)
        if key not in self._cache:
            self._cache[key] = self._from_summary(*key) or self._from_completions(*key)
        return self._cache[key]

    def trajectory(self, arm: str, suite: str, metric: str) -> list[tuple[int, Score]]:
        """(step, score) from the base model at step 0 on."""
        points = [(step, self.get(arm, suite, metric, step)) for step in self.steps(arm)]
        if arm != BASE and (not points or points[0][0] > 0):
            points.insert(0, (0, self.get(BASE, suite, metric)))
        return [(step, score) for step, score in points if score is not None and score.value is not None]

    def ladder(self, context: str, metric: str) -> Score | None:
        """A score of the base model under a teacher context."""
        key = ("ladder", context, metric)
        if key not in self._cache:
            frame = self.ladder_samples
            self._cache[key] = self._measure(frame[frame["context"] == context], metric)
        return self._cache[key]

    @cached_property
    def ladder_samples(self) -> pd.DataFrame:
        """Samples of the context ladder, without those that only screened problems by pass rate."""
        frame = self.folder.ladder
        return frame[frame["suite"] != SCREEN]

    def contrast(self, arm: str, against: str, where: str = "ood") -> Contrast | None:
        """The paired difference of accuracy to another arm, where the command that wrote the folder has computed it.

        Args:
            arm, against: names of arms.
            where: ``"ood"`` for the pooled suite, ``"in_domain"`` for the trained one.
        """
        rows = self._rows(arm, metric=f"{where}_difference_vs_{against}")
        if rows is None:
            return None
        row = rows.iloc[-1]
        score = _score(row)
        if score.value is None:
            return None
        p_value = finite(row["p_holm"]) if "p_holm" in row else _p_in_words(score.method)
        return Contrast(score, p_value)

    def design(self, *, every_step: bool = False) -> tuple[list[int], list[int]]:
        """Questions per suite and samples per question, each as the distinct values found.

        Those of the last evaluations; with ``every_step``, also of the smaller ones during training.
        """
        frame = self._completions
        if frame.empty and self.folder.summary is not None:
            return self._design_of_summary()
        if not every_step:
            frame = frame[frame["step"] == frame.groupby("arm")["step"].transform("max")]
        samples = frame.groupby(["arm", "seed", "step", "suite", "problem_id"]).size()
        questions = samples.groupby(["arm", "seed", "step", "suite"]).size()
        return sorted(set(questions.tolist())), sorted(set(samples.tolist()))

    def _design_of_summary(self) -> tuple[list[int], list[int]]:
        """The design as far as pooled rows tell it: n of each suite, k of ``avg@k``; last evaluations alone."""
        rows = self.folder.summary
        assert rows is not None
        rows = rows[(rows["metric"] == "accuracy") & (rows["seed"] == "all") & (rows["suite"] != OOD)]
        rows = rows[rows["step"] == rows.groupby("arm")["step"].transform("max")]
        samples = rows["method"].astype(str).str.extract(r"\bavg@(\d+)")[0].dropna()
        return sorted(set(rows["n"].dropna().astype(int))), sorted(set(samples.astype(int)))

    @cached_property
    def _completions(self) -> pd.DataFrame:
        frame = self.folder.completions
        return frame[frame["context"].isin(["none", ""])]

    def _rows(self, arm: str, metric: str, suite: str | None = None, step: int | None = None) -> pd.DataFrame | None:
        rows = self.folder.summary
        if rows is None:
            return None
        rows = rows[(rows["arm"] == arm) & (rows["metric"] == metric)]
        if suite is not None:
            rows = rows[rows["suite"] == suite]
        if step is not None:
            rows = rows[rows["step"] == step]
        return rows if len(rows) else None

    def _from_summary(self, arm: str, suite: str, metric: str, step: int) -> Score | None:
        rows = self._rows(arm, metric, suite, step)
        if rows is None:
            return None
        one_seed = rows["seed"].str.fullmatch(r"\d+(\.0)?").fillna(False).astype(bool)
        by_seed = {int(float(row["seed"])): value for _, row in rows[one_seed].iterrows()
                   if (value := finite(row["value"])) is not None}  # fmt: skip
        pooled = rows[~one_seed] if (~one_seed).any() else rows
        if len(pooled) != 1:
            return None  # several seeds without a pooled row: the completions say more
        if not by_seed and metric in UNITS:
            by_seed = self._by_seed(arm, suite, metric, step)
        return _score(pooled.iloc[0], by_seed, UNITS.get(metric, ""))

    def _from_completions(self, arm: str, suite: str, metric: str, step: int) -> Score | None:
        return self._measure(self._select(arm, suite, step), metric)

    def _by_seed(self, arm: str, suite: str, metric: str, step: int) -> dict[int, float]:
        return _seed_values(self._select(arm, suite, step), metric)

    def _select(self, arm: str, suite: str, step: int) -> pd.DataFrame:
        frame = self._completions
        names = self.folder.ood_suites if suite == OOD else [suite]
        return frame[(frame["arm"] == arm) & (frame["step"] == step) & frame["suite"].isin(names)]

    def _measure(self, frame: pd.DataFrame, metric: str) -> Score | None:
        if metric not in UNITS:
            return None  # not made from single samples
        counts, totals = _columns(frame, metric)
        if counts.empty:
            return None
        unit = UNITS[metric]
        if totals is None:
            result = mean_interval(nested(frame, counts), unit=unit)
        else:
            result = rate_per_1k_interval(nested(frame, counts), nested(frame, totals), unit=unit)
        return Score(**{**result, "by_seed": _seed_values(frame, metric)})


def _score(row: Mapping[str, Any], by_seed: Mapping[int, float] | None = None, unit: str = "") -> Score:
    n = finite(row.get("n"))
    return Score(
        finite(row.get("value")),
        finite(row.get("lo")),
        finite(row.get("hi")),
        int(n) if n is not None else 0,
        str(row.get("unit") or unit),
        str(row.get("method") or ""),
        dict(by_seed or {}),
    )


def _columns(frame: pd.DataFrame, metric: str) -> tuple[pd.Series, pd.Series | None]:
    """What is averaged per sample; for rates also what it is divided by."""
    correct = pd.to_numeric(frame["correct"].map({True: 1.0, False: 0.0}), errors="coerce")
    if metric == "accuracy":
        return correct.dropna(), None
    if metric == "accuracy_finished":
        return correct[frame["finish_reason"] == "stop"].dropna(), None
    if metric == "length":
        return frame["n_tokens"].astype(float), None
    if metric == "markers_per_response":
        return frame["lexical"].astype(float), None
    return frame["held_out" if metric == "held_out_per_1k" else "lexical"].astype(float), frame["n_tokens"].astype(
        float
    )


def nested(frame: pd.DataFrame, values: pd.Series) -> dict[int, dict[str, list[float]]]:
    """``{seed: {question: samples}}``; questions of different suites never share a name."""
    table: dict[int, dict[str, list[float]]] = {}
    rows = frame.loc[values.index]
    for seed, suite, problem, value in zip(rows["seed"], rows["suite"], rows["problem_id"], values, strict=True):
        table.setdefault(int(seed), {}).setdefault(f"{suite}/{problem}", []).append(float(value))
    return table


def _seed_values(frame: pd.DataFrame, metric: str) -> dict[int, float]:
    values = {}
    for seed, rows in frame.groupby("seed"):
        counts, totals = _columns(rows, metric)
        if totals is not None:
            value = 1000 * counts.sum() / totals.sum() if totals.sum() else None
        elif counts.empty:
            value = None
        else:  # mean over questions of the mean over samples, as in the interval
            value = (
                counts.groupby([rows.loc[counts.index, "suite"], rows.loc[counts.index, "problem_id"]]).mean().mean()
            )
        if value is not None:
            values[int(seed)] = float(value)
    return values


def _p_in_words(method: str) -> float | None:
    """The p-value in a method text such as "…, Holm p = 0.003"; the last one if there are several."""
    found = re.findall(r"\bp(?:[ _-]?holm)?\s*[=<≤]\s*([0-9.]+(?:e-?\d+)?)", method, flags=re.IGNORECASE)
    return finite(found[-1].rstrip(".")) if found else None
