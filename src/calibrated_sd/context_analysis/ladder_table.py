"""From a ladder's records to figures: the columns of Table 1, ratios to c = ∅, and the paper's two orderings as checks.

All comparisons are between levels on the same problems, so every difference and ratio is paired. No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from calibrated_sd.context_analysis.ladder_prompts import RUNGS
from calibrated_sd.evaluation.metrics import summarise, tidy, values_by_question
from calibrated_sd.evaluation.resampling import ratio
from calibrated_sd.evaluation.statistics import (
    CONFIDENCE,
    Figure,
    Values,
    holm,
    paired_difference,
    ratio_interval,
    statistic_interval,
)
from calibrated_sd.records import MARKER_COUNTS, figure

SHOWN, NOT_SHOWN, CONTRADICTED = "shown", "not shown", "contradicted"
"""Verdicts: the interval lies beyond the threshold; it does not; it lies entirely on the other side."""
TITLES = {
    "none": "(1) c = ∅",
    "stripped": "(3) c = s∖think",
    "regenerated": "(4) c = ỹ",
    "solution": "(2) c = s",
    "irrelevant": "another's s",
    "wrong": "wrong s",
    "instruction": "instruction",
}
"""Rows of the table; the numbers are the paper's."""
DENSITY_RATIO, GAIN = 0.6, 0.3
"""Largest density ratio s/∅ and smallest accuracy gain s − ∅ that count as the paper's effect on a small model."""

FEW_MARKERS = 5
"""Without context, fewer markers than this among all samples are no base for a ratio with an interval (the old rule for
expected counts in a table)."""


def level_frame(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Records of one level as one condition: problems of several suites side by side."""
    frame = tidy(records)
    return frame.assign(problem_id=frame.suite + "/" + frame.problem_id, suite="ladder")


def density_ratio(counts: Values, tokens: Values, base_counts: Values, base_tokens: Values, **options: Any) -> Figure:
    """(Σ counts / Σ tokens) under a context over the same without one, resampled by problem.

    All four hold the samples of the same problems. Value None where the base has no markers.
    """

    def over_base(c: Any, t: Any, c0: Any, t0: Any) -> Any:
        return ratio(ratio(c, t), ratio(c0, t0))

    return statistic_interval([counts, tokens, base_counts, base_tokens], over_base, unit="ratio", **options)


def ladder_figures(records: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[str, Any]:
    """The figures of ``ladder.json``.

    Args:
        records: completion records of each level, on the same problems.

    Returns:
        ``levels``: all of :func:`~calibrated_sd.evaluation.metrics.summarise` for each level; ``by_suite`` the same for
        each suite where there are several; ``ratios_to_none`` and ``differences_to_none`` of the other levels (where
        ``none`` was measured); ``checks``, see :func:`ordering_checks`.
    """
    rows = {level: list(given) for level, given in records.items()}
    frames = {level: level_frame(given) for level, given in rows.items()}
    values = {
        level: {name: values_by_question(frame, name) for name in ("correct", "n_tokens", *MARKER_COUNTS)}
        for level, frame in frames.items()
    }
    found: dict[str, Any] = {"levels": {level: summarise(frame) for level, frame in frames.items()}}
    suites = sorted({r["suite"] for given in rows.values() for r in given})
    if len(suites) > 1:
        found["by_suite"] = {
            suite: {level: summarise([r for r in given if r["suite"] == suite]) for level, given in rows.items()}
            for suite in suites
        }
    if "none" in values:
        others = [level for level in values if level != "none"]
        found["ratios_to_none"] = {level: _ratios(values[level], values["none"]) for level in others}
        found["differences_to_none"] = {
            level: {"accuracy": _difference(values[level]["correct"], values["none"]["correct"], "share")}
            for level in others
        }
    found["checks"] = ordering_checks(values, found)
    return found


def _ratios(level: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Figure]:
    shown = {"n_tokens": ratio_interval(level["n_tokens"], base["n_tokens"])}
    tokens = _total(level["n_tokens"]) / _total(base["n_tokens"])
    for name in MARKER_COUNTS:
        counts = _total(level[name]), _total(base[name])
        responses = ratio_interval(level[name], base[name])
        shown[f"{name}_per_response"] = _with_few_markers(responses, *counts, 1.0)
        density = density_ratio(level[name], level["n_tokens"], base[name], base["n_tokens"])
        shown[f"{name}_per_1k"] = _with_few_markers(density, *counts, tokens)
    return shown


def _total(values: Mapping[Any, Any]) -> float:
    return float(sum(np.nansum(samples) for samples in values.values()))


def _with_few_markers(shown: Figure, count: float, base_count: float, exposure: float) -> Figure:
    """The ratio, where resampling few markers or none would claim certainty with another interval or without one.

    No marker under the context: up to 3.7 could have been missed (Poisson), over what the base would have given there.

    Args:
        shown: as resampling gives it.
        count, base_count: markers of all samples, under the context and without it.
        exposure: tokens (or responses) under the context over those without it.
    """
    if base_count < FEW_MARKERS:
        why = f"{base_count:.0f} markers without context are too few for an interval"
        return figure(shown["value"], None, None, shown["n"], shown["unit"], why)
    if count == 0:
        end = -float(np.log((1 - CONFIDENCE) / 2)) / (base_count * exposure)
        why = f"{CONFIDENCE:.0%} Poisson, no marker under the context; the base taken as known"
        return figure(0.0, 0.0, end, shown["n"], shown["unit"], why)
    return shown


def _difference(a: Mapping[Any, Any], b: Mapping[Any, Any], unit: str) -> dict[str, Any]:
    """a − b over the problems with a graded sample on both sides."""
    shared = [q for q in a if q in b and not (np.isnan(a[q]).all() or np.isnan(b[q]).all())]
    if not shared:
        return {**figure(None, None, None, 0, unit, "nothing was graded"), "p_value": None}
    shown, p_value = paired_difference({q: a[q] for q in shared}, {q: b[q] for q in shared}, unit=unit)
    return {**shown, "p_value": p_value}


def ordering_checks(values: Mapping[str, Mapping[str, Any]], found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The paper's claims about the ladder, each step as a paired difference.

    C1: length and markers fall with richer contexts, ∅ > s∖think > ỹ > s. C2: accuracy rises, ∅ < s∖think < {ỹ, s}.
    Steps between neighbouring rungs that were measured, and the two ends; p-values are adjusted (Holm) within a claim and
    metric. Two more rows ask for the size of the effect: density ratio s/∅ at most 0.6, accuracy gain at least 0.3.
    """
    rungs = [rung for rung in RUNGS if rung in values]
    falling = [
        *pairwise(rungs),
        *([("none", "solution")] if len(rungs) > 2 and {"none", "solution"} <= {*rungs} else []),
    ]
    rising = [(b, a) for a, b in falling if (a, b) != ("regenerated", "solution")]
    if {"stripped", "regenerated", "solution"} <= set(rungs):
        rising.insert(-1, ("solution", "stripped"))
    checks: list[dict[str, Any]] = []
    for metric, unit in (("n_tokens", "tokens"), ("legacy", "per response"), ("lexical", "per response")):
        checks += _steps("C1", metric, unit, falling, values)
    checks += _steps("C2", "correct", "share", rising, values)
    if {"none", "solution"} <= set(rungs):
        for name in ("legacy", "lexical"):
            shown = found["ratios_to_none"]["solution"][f"{name}_per_1k"]
            verdict = _verdict(shown["hi"], shown["lo"], DENSITY_RATIO, below=True)
            checks.append(_check("C1", f"{name} density, s/∅ ≤ {DENSITY_RATIO}", shown, verdict))
        shown = found["differences_to_none"]["solution"]["accuracy"]
        verdict = _verdict(shown["lo"], shown["hi"], GAIN, below=False)
        checks.append(_check("C2", f"accuracy, s − ∅ ≥ {GAIN}", shown, verdict))
    return checks


def _steps(
    claim: str, metric: str, unit: str, pairs: Sequence[tuple[str, str]], values: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    shown = [_difference(values[a][metric], values[b][metric], unit) for a, b in pairs]
    tested = {i: f["p_value"] for i, f in enumerate(shown) if f["p_value"] is not None}
    adjusted = holm(tested)
    name = {"n_tokens": "length", "correct": "accuracy"}.get(metric, f"{metric} markers")
    return [
        _check(claim, f"{name}, {a} > {b}", {**f, "p_holm": adjusted.get(i)}, _verdict(f["lo"], f["hi"], 0.0, False))
        for i, ((a, b), f) in enumerate(zip(pairs, shown, strict=True))
    ]


def _verdict(near: float | None, far: float | None, threshold: float, below: bool) -> str:
    """``near``: the end of the interval that must lie beyond the threshold; ``far``: the other one."""
    if near is None or far is None:
        return NOT_SHOWN
    sign = -1.0 if below else 1.0
    strictly = threshold == 0.0
    if sign * near > sign * threshold or (not strictly and near == threshold):
        return SHOWN
    return CONTRADICTED if sign * far < sign * threshold else NOT_SHOWN


def _check(claim: str, statement: str, shown: Mapping[str, Any], verdict: str) -> dict[str, Any]:
    return {"claim": claim, "statement": statement, "verdict": verdict, **shown}


def table_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Lines of the printed table, first the headings: the columns of Table 1 with E = ``legacy`` markers, and density."""
    columns = {
        "score": "accuracy",
        "length": "n_tokens",
        "E(y)": "legacy_per_response",
        "E per 1k": "legacy_per_1k",
    }
    lines = [["context", *columns]]
    for level, shown in found["levels"].items():
        lines.append([TITLES.get(level, level), *(interval_text(shown[k]) for k in columns.values())])
    return lines


def ratio_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Lines of a second table: ratios to c = ∅, and markers as words, without and with held-out ones."""
    ratios = {"length": "n_tokens", "E(y)": "legacy_per_response", "E per 1k": "legacy_per_1k"}
    densities = {"lexical per 1k": "lexical_per_1k", "held-out per 1k": "held_out_per_1k"}
    lines = [["context", *(f"{name} / ∅" for name in ratios), *densities]]
    for level, shown in found["levels"].items():
        over = found.get("ratios_to_none", {}).get(level, {})
        cells = [*(over.get(k) for k in ratios.values()), *(shown[k] for k in densities.values())]
        lines.append([TITLES.get(level, level), *map(interval_text, cells)])
    return lines


def interval_text(shown: Mapping[str, Any] | None) -> str:
    """``0.73 [0.64, 0.81]``; a dash where there is no value."""
    if shown is None or shown["value"] is None:
        return "–"
    text = _number(shown["value"])
    return text if shown["lo"] is None else f"{text} [{_number(shown['lo'])}, {_number(shown['hi'])}]"


def _number(value: float | None) -> str:
    if value is None:
        return "∞"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
