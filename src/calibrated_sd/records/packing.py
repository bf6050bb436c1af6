"""Completion records and logged lines as columns, which compress far better than lines do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from calibrated_sd.errors import DataError
from calibrated_sd.records.schema import SCHEMA_VERSION

_CONDITION = ("arm", "seed", "step", "suite", "context")
_CORRECT = {True: "1", False: "0", None: "-"}
_FINISH = {"stop": "s", "length": "l"}
_DIGITS = 6
"""Significant digits of logged numbers."""


def pack_records(records: Iterable[Mapping[str, Any]], questions: dict[str, int]) -> list[dict[str, Any]]:
    """One block of columns for each arm, seed, step, suite and context, in the order of their first record.

    Args:
        records: completion records; their texts and prompt hashes are dropped.
        questions: lists of problem ids (as JSON text) → their numbers; lists that are new are added.

    Returns:
        Blocks: the condition; `problems`, the number of the list of problem ids; `sample`, the number of samples if
        every problem has its samples 0, 1, … in a row, otherwise the index of every sample; and one value for each
        sample in `correct` (``1``, ``0``, ``-`` not graded), `finish_reason` (``s`` stop, ``l`` length), `n_tokens` and
        every set in `markers`.
    """
    blocks: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for record in records:
        blocks.setdefault(tuple(record[key] for key in _CONDITION), []).append(record)
    return [_pack_block(dict(zip(_CONDITION, key, strict=True)), rows, questions) for key, rows in blocks.items()]


def _pack_block(condition: dict[str, Any], rows: list[Mapping[str, Any]], questions: dict[str, int]) -> dict[str, Any]:
    problems, samples = [row["problem_id"] for row in rows], [row["sample"] for row in rows]
    n_samples = max(samples) + 1
    once = problems[::n_samples]
    if _repeated(once, n_samples) == (problems, samples):
        problems, packed_samples = once, n_samples
    else:
        packed_samples = samples
    number = questions.setdefault(json.dumps(problems), len(questions))
    sets = [name for name in rows[0]["markers"] if all(name in row["markers"] for row in rows)]
    return {
        **condition,
        "problems": number,
        "sample": packed_samples,
        "correct": "".join(_CORRECT[row["correct"]] for row in rows),
        "finish_reason": "".join(_FINISH[row["finish_reason"]] for row in rows),
        "n_tokens": [row["n_tokens"] for row in rows],
        "markers": {name: [row["markers"][name] for row in rows] for name in sets},
    }


def _repeated(problems: list[str], n_samples: int) -> tuple[list[str], list[int]]:
    """Problem and sample of every record, if each problem has all its samples in a row."""
    return [p for p in problems for _ in range(n_samples)], list(range(n_samples)) * len(problems)


def unpack_records(blocks: Iterable[Mapping[str, Any]], questions: list[list[str]]) -> list[dict[str, Any]]:
    """The records again; `completion` and `prompt_sha256` are empty.

    Raises:
        DataError: the columns of a block differ in length.
    """
    right = {code: value for value, code in _CORRECT.items()}
    ended = {code: value for value, code in _FINISH.items()}
    records = []
    for block in blocks:
        problems, samples = questions[block["problems"]], block["sample"]
        if isinstance(samples, int):
            problems, samples = _repeated(problems, samples)
        columns = [problems, samples, block["correct"], block["finish_reason"], block["n_tokens"]]
        columns += block["markers"].values()
        if len({len(column) for column in columns}) > 1:
            raise DataError(
                f"The archived samples of {block['arm']}, seed {block['seed']}, suite {block['suite']} have columns of "
                "different lengths. The file was changed by hand; take it anew from where it was published."
            )
        for problem, sample, correct, finish, n_tokens, *counts in zip(*columns, strict=True):
            records.append(
                {
                    "schema_version": SCHEMA_VERSION,
                    "suite": block["suite"],
                    "problem_id": problem,
                    "sample": sample,
                    "prompt_sha256": "",
                    "completion": "",
                    "finish_reason": ended[finish],
                    "n_tokens": n_tokens,
                    "correct": right[correct],
                    "markers": dict(zip(block["markers"], counts, strict=True)),
                    **{key: block[key] for key in ("context", "arm", "seed", "step")},
                }
            )
    return records


def pack_log(lines: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Column → its value in every line, null where the line lacks it; numbers rounded to six significant digits."""
    rows = list(lines)
    return {key: [_rounded(row.get(key)) for row in rows] for key in sorted({key for row in rows for key in row})}


def _rounded(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def unpack_log(columns: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """The lines again, without what was null."""
    rows = zip(*columns.values(), strict=True)
    return [{key: value for key, value in zip(columns, row, strict=True) if value is not None} for row in rows]
