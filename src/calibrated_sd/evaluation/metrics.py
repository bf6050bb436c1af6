"""From completion lines to figures: accuracy, pass@k, maj@k, length and markers, each with its interval. No torch.

Input is an iterable of record dicts (``records.read_completions``). Samples are first reduced within their question,
see :mod:`calibrated_sd.evaluation.statistics`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from calibrated_sd.contexts.answers import last_box
from calibrated_sd.errors import ConfigError, DataError, unknown_name
from calibrated_sd.evaluation.grading import graded_part, normalise_answer
from calibrated_sd.evaluation.statistics import (
    Figure,
    mean_interval,
    rate_per_1k_interval,
    ratio_of_sums_interval,
)
from calibrated_sd.records import MARKER_COUNTS

Record = Mapping[str, Any]
CONDITION = ("arm", "suite", "step", "context")
"""Columns that must be the same for all records behind one figure (seeds may differ: they are resampled)."""
_NUMBERS = ("correct", "finished", "n_tokens", *MARKER_COUNTS)


def tidy(records: Iterable[Record]) -> pd.DataFrame:
    """One row per completion.

    Columns: ``arm, seed, suite, step, context, problem_id, sample``; ``n_tokens``; ``finished`` (1.0 ended by itself,
    0.0 cut); ``correct`` (1.0, 0.0, NaN where not graded); marker counts ``legacy, lexical, held_out``; ``answer``
    (normalised content of the last box; None without one, or where it is empty).
    """
    rows = [
        {
            **{key: r[key] for key in ("arm", "seed", "suite", "step", "context", "problem_id", "sample", "n_tokens")},
            "finished": float(r["finish_reason"] == "stop"),
            "correct": math.nan if r["correct"] is None else float(r["correct"]),
            **{name: r["markers"][name] for name in MARKER_COUNTS},
            "answer": _answer(r["completion"]),
        }
        for r in records
    ]
    columns = ["arm", "seed", "suite", "step", "context", "problem_id", "sample", *_NUMBERS, "answer"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["answer"] = pd.Series([row["answer"] for row in rows], dtype=object)  # pandas would turn None into NaN
    return frame


def _answer(completion: str) -> str | None:
    part = graded_part(completion)
    span = last_box(part, empty=True)  # the box that is graded, see calibrated_sd.evaluation.grading
    return None if span is None else normalise_answer(part[slice(*span)]) or None


def values_by_question(records: Iterable[Record] | pd.DataFrame, column: str) -> dict[Any, Any]:
    """``{problem_id: [value of each sample]}`` for the statistics; ``{seed: {…}}`` with several seeds.

    Args:
        records: records of one arm, suite, step and context, or their :func:`tidy` frame.
        column: ``correct, finished, n_tokens, legacy, lexical`` or ``held_out``.

    Raises:
        ConfigError: no such column.
        DataError: the records mix conditions that must not be averaged over.
    """
    if column not in _NUMBERS:
        raise unknown_name("column", column, _NUMBERS)
    frame = one_condition(records)
    return per_question(frame, column)


def one_condition(records: Iterable[Record] | pd.DataFrame) -> pd.DataFrame:
    frame = records if isinstance(records, pd.DataFrame) else tidy(records)
    for column in CONDITION:
        found = sorted(frame[column].unique())
        if len(found) > 1:
            raise DataError(
                f"The records mix {len(found)} values of {column!r} ({', '.join(map(str, found[:4]))}), and a mean over "
                f"them would mean nothing. Select one {column}, or use summary_rows for a table of all."
            )
    return frame


def per_question(frame: pd.DataFrame, *columns: str, reduce: Callable[..., Any] = list) -> dict[Any, Any]:
    """``reduce`` of the samples' columns for each question; by seed first where there are several seeds."""
    arrays = [frame[column].to_numpy() for column in columns]
    by_seed: dict[Any, dict[Any, Any]] = defaultdict(dict)
    for (seed, problem), rows in frame.groupby(["seed", "problem_id"], sort=True).indices.items():
        by_seed[seed][problem] = reduce(*(array[rows] for array in arrays))
    return dict(by_seed) if len(by_seed) > 1 else next(iter(by_seed.values()), {})


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of "at least one of k samples is right" from c right among n (Chen et al. 2021, eq. 1).

    1 − C(n−c, k) / C(n, k): the chance that k of the n samples drawn without replacement are not all wrong.

    Raises:
        ConfigError: not 0 ≤ c ≤ n or not 1 ≤ k ≤ n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ConfigError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}. Draw more samples.")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def majority_correct(answers: Sequence[str | None], correct: Sequence[float]) -> float:
    """Chance that the most frequent answer is right (maj@n for all n samples of one question).

    Completions without an answer do not vote. A tie is broken at random, so the expectation over the tied answers
    is returned. Without any vote: 0.
    """
    votes: dict[str, list[float]] = defaultdict(list)
    for answer, right in zip(answers, correct, strict=True):
        if isinstance(answer, str):
            votes[answer].append(right)
    most = max((len(v) for v in votes.values()), default=0)
    winners = [sum(v) / len(v) for v in votes.values() if len(v) == most]
    return sum(winners) / len(winners) if winners else 0.0


def wholly_graded(frame: pd.DataFrame) -> pd.DataFrame:
    """The questions (of a seed) all of whose samples have a verdict: one that hung the grader costs its question only."""
    if frame["correct"].notna().all():
        return frame
    return frame[frame["correct"].notna().groupby([frame["seed"], frame["problem_id"]]).transform("all")]


def votes_are_known(frame: pd.DataFrame) -> bool:
    """Whether every right completion of a :func:`tidy` frame has a boxed answer; no, if the grader reads others, too."""
    return not (frame["answer"].isna() & (frame["correct"] == 1)).any()


def summarise(
    records: Iterable[Record] | pd.DataFrame, *, ks: Sequence[int] | None = None, rng: int = 0, **options: Any
) -> dict[str, Figure]:
    """All figures of one arm, suite, step and context.

    Keys: ``accuracy`` (avg@n), ``pass@k``, ``maj@n``, ``accuracy_given_finished``, ``truncated_share``, ``n_tokens``,
    and for each marker set ``<set>_per_response`` and ``<set>_per_1k`` (per thousand generated tokens). Accuracy
    figures have value None where nothing was graded; pass@k and maj@n are of the questions all of whose samples were graded,
    and maj@n needs boxed answers.

    Args:
        records: completion records or their :func:`tidy` frame; several seeds are a second level of resampling.
        ks: values of k for pass@k; by default 4, 16, 64 where n is larger, and n itself.
        rng: seed of the bootstrap.
        options: ``n_resamples``, ``confidence`` of the statistics functions.

    Raises:
        DataError: no records, or records that mix arms, suites, steps or contexts.
        ConfigError: a k larger than the number of samples.
    """
    frame = one_condition(records)
    if frame.empty:
        raise DataError("There are no completion records to summarise. Check that the evaluation wrote any.")
    options = {**options, "rng": rng}
    n_samples = int(frame.groupby(["seed", "problem_id"]).size().min())
    column = {name: per_question(frame, name) for name in _NUMBERS}
    graded = wholly_graded(frame)

    figures = {"accuracy": mean_interval(column["correct"], **options)}
    figures["accuracy"]["method"] = f"avg@{n_samples}; {figures['accuracy']['method']}"
    for k in sorted({k for k in (4, 16, 64) if k < n_samples} | {n_samples}) if ks is None else ks:
        if k > n_samples:
            raise ConfigError(f"pass@{k} needs {k} samples per question, but there are only {n_samples}. Raise --n.")
        chance = per_question(graded, "correct", reduce=lambda c, k=k: pass_at_k(len(c), int(c.sum()), k))
        figures[f"pass@{k}"] = mean_interval(chance, **options)
    voting = graded if votes_are_known(graded) else graded.iloc[:0]
    majority = per_question(voting, "answer", "correct", reduce=majority_correct)
    figures[f"maj@{n_samples}"] = mean_interval(majority, **options)

    # Right and finished over finished, so an unfinished completion is left out above and below the line.
    judged = frame[frame["correct"].notna()]
    right = per_question(judged, "correct", "finished", reduce=lambda c, f: c * f)
    figures["accuracy_given_finished"] = ratio_of_sums_interval(right, per_question(judged, "finished"), **options)
    cut = per_question(frame, "finished", reduce=lambda f: 1.0 - f)
    figures["truncated_share"] = mean_interval(cut, **options)
    figures["n_tokens"] = mean_interval(column["n_tokens"], unit="tokens", **options)
    for name in MARKER_COUNTS:
        figures[f"{name}_per_response"] = mean_interval(column[name], unit="per response", **options)
        figures[f"{name}_per_1k"] = rate_per_1k_interval(column[name], column["n_tokens"], **options)
    return figures


def summary_rows(
    records: Iterable[Record] | pd.DataFrame,
    by: Sequence[str] = ("arm", "seed", "suite", "step", "context"),
    **options: Any,
) -> list[dict[str, Any]]:
    """One row per group and metric, the layout of ``summary.csv``: the group's columns, ``metric``, then the figure.

    Leave ``"seed"`` out of ``by`` to summarise over seeds.
    """
    frame = records if isinstance(records, pd.DataFrame) else tidy(records)
    rows = []
    for key, group in frame.groupby(list(by), sort=True):
        for metric, shown in summarise(group, **options).items():
            rows.append({**dict(zip(by, key, strict=True)), "metric": metric, **shown})
    return rows
