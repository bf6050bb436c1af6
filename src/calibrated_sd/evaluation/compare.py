"""Two runs on the same problems: paired differences by question, B − A, for every metric. No torch.

``FAMILY`` names, before anybody looks, the comparisons that are adjusted together within a suite (Holm): accuracy, which
is primary and stands first, and what the package is about. All other rows describe and have no adjusted p-value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from calibrated_sd.errors import DataError
from calibrated_sd.evaluation.hedging import density_gaps
from calibrated_sd.evaluation.matched_length import accuracy_at_equal_length, right_within, token_budgets
from calibrated_sd.evaluation.metrics import (
    majority_correct,
    one_condition,
    pass_at_k,
    per_question,
    tidy,
    votes_are_known,
    wholly_graded,
)
from calibrated_sd.evaluation.statistics import (
    Figure,
    PairedDifference,
    holm,
    mean_interval,
    paired_difference,
    paired_ratio_difference,
    ratio_of_sums_interval,
)
from calibrated_sd.records import MARKER_COUNTS, figure

FAMILY = ("accuracy", "accuracy_given_finished", "n_tokens", "lexical_per_1k", "held_out_per_1k")
"""Metrics whose p-values are adjusted together within a suite; the first is the primary one."""
Record = Mapping[str, Any]


def compare_runs(
    a: Iterable[Record], b: Iterable[Record], *, n_resamples: int = 10_000, confidence: float = 0.95, rng: int = 0
) -> dict[str, Any]:
    """Compare run B with run A, suite by suite, on the questions that both answered.

    Args:
        a, b: completion records; each holds one arm, step and context per suite (several seeds are resampled).
        n_resamples: bootstrap resamples, and exchanges of the permutation tests.
        confidence: of the intervals.
        rng: seed of both.

    Returns:
        ``{"suites": {suite: {"n_questions", "samples", "length_unit", "metrics": {name: {"a", "b", "difference": figures,
        "p_value", "p_holm"}}}}, "family": [...], "warnings": [...]}``. ``p_holm`` is None outside the family.

    Raises:
        DataError: no common suite or question, other prompts, another number of samples, words against tokens, or
            records that mix conditions.
    """
    runs = [list(a), list(b)]
    suites = [dict.fromkeys(str(r["suite"]) for r in run) for run in runs]
    common = [name for name in suites[0] if name in suites[1]]
    if not common:
        raise DataError(
            f"The runs have no suite in common: A has {_few(suites[0])}, B has {_few(suites[1])}. Evaluate both on the "
            "same problems."
        )
    warnings = [
        f"Only {side} has the suite {name!r}; it is left out."
        for side, own, other in (("A", *suites), ("B", *suites[::-1]))
        for name in own
        if name not in other
    ]
    options = {"n_resamples": n_resamples, "confidence": confidence, "rng": rng}
    compared = {}
    for name in common:
        sides = [[r for r in run if r["suite"] == name] for run in runs]
        compared[name] = _compare_suite(name, sides, warnings, options)
    return {"suites": compared, "family": list(FAMILY), "warnings": warnings}


def _compare_suite(
    suite: str, sides: Sequence[Sequence[Record]], warnings: list[str], options: dict[str, Any]
) -> dict[str, Any]:
    units = {str(r.get("length_unit", "tokens")) for side in sides for r in side}
    if len(units) > 1:
        raise DataError(
            f"Suite {suite!r}: lengths are counted in tokens in one run and in words in the other. Give the tokenizer of "
            "the model (--tokenizer) when reading lm-eval's files."
        )
    ids = [{r["problem_id"] for r in side} for side in sides]
    shared = ids[0] & ids[1]
    if not shared:
        raise DataError(
            f"Suite {suite!r}: the runs have no question in common (A has {len(ids[0])}, e.g. {min(ids[0])!r}; B has "
            f"{len(ids[1])}, e.g. {min(ids[1])!r}). Evaluate both on the same problem file."
        )
    if ids[0] != ids[1]:
        warnings.append(
            f"Suite {suite!r}: {len(ids[0] - shared)} questions only in A and {len(ids[1] - shared)} only in B are left "
            f"out; {len(shared)} are compared."
        )
    sides = [[r for r in side if r["problem_id"] in shared] for side in sides]
    _check_prompts(suite, sides)
    frame_a, frame_b = (one_condition(tidy(side)) for side in sides)
    samples = _check_samples(suite, [frame_a, frame_b])
    ungraded = [side for side, frame in (("A", frame_a), ("B", frame_b)) if frame["correct"].isna().all()]
    if ungraded:
        warnings.append(
            f"Suite {suite!r}: no answer of {' and '.join(ungraded)} is graded, so accuracies are not compared. Give the "
            "problems answers, or grade lm-eval's files again (--grader)."
        )
    comparisons = _comparisons(frame_a, frame_b, samples)
    metrics = {name: compare(frame_a, frame_b, options) for name, compare in comparisons.items()}
    rows = {name: row for name, row in metrics.items() if row["difference"]["value"] is not None}
    adjusted = holm({k: rows[k]["p_value"] for k in FAMILY if k in rows and rows[k]["p_value"] is not None})
    for name, row in rows.items():
        row["p_holm"] = adjusted.get(name)
    return {"n_questions": len(shared), "samples": samples, "length_unit": units.pop(), "metrics": rows}


def _check_prompts(suite: str, sides: Sequence[Sequence[Record]]) -> None:
    prompts = [{(r["problem_id"], r["prompt_sha256"]) for r in side} for side in sides]
    other = sorted({problem for problem, _ in prompts[0] ^ prompts[1]})
    if other:
        raise DataError(
            f"Suite {suite!r}: the models were given different prompts at {len(other)} of the shared questions (e.g. "
            f"{other[0]!r}; prompt_sha256 differs), so a difference would not be one of the models. Evaluate both with "
            "the same problem file, chat template, thinking mode and context."
        )


def _check_samples(suite: str, frames: Sequence[pd.DataFrame]) -> int:
    """Samples per question and seed, the same everywhere."""
    counts = [frame.groupby(["seed", "problem_id"]).size() for frame in frames]
    if counts[0].min() == counts[0].max() == counts[1].min() == counts[1].max():
        return int(counts[0].min())
    shown = [f"{c.min()}" if c.min() == c.max() else f"{c.min()} to {c.max()}" for c in counts]
    raise DataError(
        f"Suite {suite!r}: A has {shown[0]} samples per question and B {shown[1]}. Metrics such as pass@n depend on n, "
        "and an unfinished run lacks its long answers. Finish both with the same --n (--if-exists resume)."
    )


Comparison = Callable[[pd.DataFrame, pd.DataFrame, dict[str, Any]], dict[str, Any]]


def _comparisons(a: pd.DataFrame, b: pd.DataFrame, n: int) -> dict[str, Comparison]:
    """Metric → how it is compared, in the order of the table."""
    found: dict[str, Comparison] = {
        "accuracy": _means(_column("correct")),
        "accuracy_given_finished": _rates(_right_and_finished, _judged_and_finished),
    }
    for budget in token_budgets(a, b):
        found[f"accuracy_within@{budget}"] = _means(partial(right_within, budget=budget))
    found["accuracy_matched_length"] = _at_equal_length
    if n > 1:
        found[f"pass@{n}"] = _means(partial(_whole, columns=("correct",), reduce=_any_right))
        if votes_are_known(a) and votes_are_known(b):
            found[f"maj@{n}"] = _means(partial(_whole, columns=("answer", "correct"), reduce=majority_correct))
    found["truncated_share"] = _means(partial(_reduced, columns=("finished",), reduce=lambda done: 1.0 - done))
    found["n_tokens"] = _means(_column("n_tokens"), unit="tokens")
    for name in MARKER_COUNTS:
        found[f"{name}_per_response"] = _means(_column(name), unit="per response")
        found[f"{name}_per_1k"] = _rates(_column(name), _column("n_tokens"), unit="per 1k tokens", scale=1000.0)
        found[f"{name}_wrong_minus_right"] = _means(partial(_gaps, name=name), unit="per 1k tokens")
    return found


def _column(name: str) -> Callable[[pd.DataFrame], Any]:
    return partial(_reduced, columns=(name,))


def _reduced(frame: pd.DataFrame, columns: tuple[str, ...], reduce: Callable[..., Any] = list) -> dict[Any, Any]:
    return per_question(frame, *columns, reduce=reduce)


def _whole(frame: pd.DataFrame, columns: tuple[str, ...], reduce: Callable[..., Any]) -> dict[Any, Any]:
    return per_question(wholly_graded(frame), *columns, reduce=reduce)


def _any_right(correct: np.ndarray) -> float:
    return pass_at_k(len(correct), int(correct.sum()), len(correct))


def _gaps(frame: pd.DataFrame, name: str) -> dict[Any, Any]:
    frame = frame[frame["correct"].notna() & (frame["n_tokens"] > 0)]
    return density_gaps(frame.assign(density=1000.0 * frame[name] / frame["n_tokens"]))


def _right_and_finished(frame: pd.DataFrame) -> Any:
    return per_question(frame[frame["correct"].notna()], "correct", "finished", reduce=lambda c, f: c * f)


def _judged_and_finished(frame: pd.DataFrame) -> Any:
    return per_question(frame[frame["correct"].notna()], "finished")


def _means(values: Callable[[pd.DataFrame], Any], unit: str = "share") -> Comparison:
    def compare(a: pd.DataFrame, b: pd.DataFrame, options: dict[str, Any]) -> dict[str, Any]:
        of_a, of_b = _with_value_on_both_sides(values(a), values(b))
        shown_a, shown_b = (mean_interval(v, unit=unit, **options) for v in (of_a, of_b))
        return _row(shown_a, shown_b, paired_difference(of_b, of_a, unit=unit, **options))

    return compare


def _rates(
    counts: Callable[[pd.DataFrame], Any],
    totals: Callable[[pd.DataFrame], Any],
    *,
    unit: str = "share",
    scale: float = 1.0,
) -> Comparison:
    def compare(a: pd.DataFrame, b: pd.DataFrame, options: dict[str, Any]) -> dict[str, Any]:
        above, below = (_with_value_on_both_sides(of(a), of(b)) for of in (counts, totals))
        shown_a, shown_b = (
            ratio_of_sums_interval(c, t, unit=unit, scale=scale, **options) for c, t in zip(above, below, strict=True)
        )
        found = paired_ratio_difference(above[1], below[1], above[0], below[0], unit=unit, scale=scale, **options)
        return _row(shown_a, shown_b, found)

    return compare


def _at_equal_length(a: pd.DataFrame, b: pd.DataFrame, options: dict[str, Any]) -> dict[str, Any]:
    judged = [frame[frame["correct"].notna()] for frame in (a, b)]
    shared = set(judged[0]["problem_id"]) & set(judged[1]["problem_id"])
    judged = [frame[frame["problem_id"].isin(shared)] for frame in judged]
    nothing = figure(None, None, None, len(shared), "share", "a difference only")
    if not shared:
        return _row(nothing, nothing, PairedDifference(nothing, None))
    return _row(nothing, nothing, accuracy_at_equal_length(*judged, **options))


def _row(a: Figure, b: Figure, found: PairedDifference) -> dict[str, Any]:
    return {"a": a, "b": b, "difference": found.figure, "p_value": found.p_value, "p_holm": None}


def _with_value_on_both_sides(a: dict[Any, Any], b: dict[Any, Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Only questions that have a value in both runs (under any seed): a question without a grade is no zero."""
    shared = _answered(a) & _answered(b)
    return _only(a, shared), _only(b, shared)


def _answered(values: Mapping[Any, Any]) -> set[Any]:
    tables = list(values.values()) if _by_seed(values) else [values]
    return {q for table in tables for q, v in table.items() if not np.isnan(np.asarray(v, dtype=float)).all()}


def _only(values: Mapping[Any, Any], questions: set[Any]) -> dict[Any, Any]:
    if _by_seed(values):
        return {seed: _only(table, questions) for seed, table in values.items()}
    return {q: v for q, v in values.items() if q in questions}


def _by_seed(values: Mapping[Any, Any]) -> bool:
    return bool(values) and all(isinstance(v, Mapping) for v in values.values())


def _few(names: Iterable[str]) -> str:
    return ", ".join(map(repr, list(names)[:4])) or "none"
