"""The shape of what is written: a completion line, a figure, the versions a reader accepts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from calibrated_sd.errors import DataError

SCHEMA_VERSION = 1
"""Version of every file format defined here. A reader refuses versions it does not know."""
SCHEMA_VERSIONS = (1,)
"""Versions this release can read."""
MARKER_COUNTS = ("legacy", "lexical", "held_out")
"""Marker sets whose counts every completion line carries."""


@dataclass(frozen=True, kw_only=True)
class CompletionRecord:
    """One sampled completion of one problem: one line of ``completions.jsonl``.

    Attributes:
        suite: name of the problem set, e.g. ``"heldout"``.
        problem_id: the problem; samples of one problem share it, and it is the unit of resampling in the statistics.
        sample: index of the sample within the problem, from 0.
        prompt_sha256: hash of the exact text given to the model (:func:`prompt_sha256`).
        completion: generated text, without the end-of-sequence token.
        finish_reason: ``"stop"`` (the model ended) or ``"length"`` (cut at the token limit).
        n_tokens: generated tokens, the end-of-sequence token included (as TRL's ``completions/mean_length``).
        correct: whether the answer was right; None where nothing was graded.
        markers: marker count for each set in ``MARKER_COUNTS``.
        context: what the model saw beside the problem (``"none"``, ``"stripped"``, ``"solution"``, …).
        arm: name of the training arm (``"base"`` for untrained weights).
        seed: training seed.
        step: optimizer step of the weights; 0 = before training.
        schema_version: version of this format.
    """

    suite: str
    problem_id: str
    sample: int
    prompt_sha256: str
    completion: str
    finish_reason: Literal["stop", "length"]
    n_tokens: int
    correct: bool | None
    markers: Mapping[str, int]
    context: str = "none"
    arm: str = "base"
    seed: int = 0
    step: int = 0
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        problem = record_problem(dataclasses.asdict(self))
        if problem:
            raise DataError(f"A completion record cannot be made: {problem}.")

    def as_dict(self) -> dict[str, Any]:
        """The record as a plain dict, in the order the fields are written."""
        row = dataclasses.asdict(self)
        return {"schema_version": row.pop("schema_version"), **row}


# Field -> (check, what it should be). One table, used when a record is made and when it is read.
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "suite": (lambda v: isinstance(v, str) and v != "", "a name"),
    "problem_id": (lambda v: isinstance(v, str) and v != "", "a name"),
    "sample": (lambda v: _is_count(v), "an integer from 0"),
    "prompt_sha256": (lambda v: isinstance(v, str), "text"),
    "completion": (lambda v: isinstance(v, str), "text"),
    "finish_reason": (lambda v: v in ("stop", "length"), "'stop' or 'length'"),
    "n_tokens": (lambda v: _is_count(v), "an integer from 0"),
    "correct": (lambda v: v is None or isinstance(v, bool), "true, false or null"),
    "markers": (
        lambda v: isinstance(v, Mapping) and all(_is_count(v.get(name)) for name in MARKER_COUNTS),
        f"counts for {', '.join(MARKER_COUNTS)}",
    ),
    "context": (lambda v: isinstance(v, str), "a name"),
    "arm": (lambda v: isinstance(v, str), "a name"),
    "seed": (lambda v: isinstance(v, int) and not isinstance(v, bool), "an integer"),
    "step": (lambda v: _is_count(v), "an integer from 0"),
}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def record_problem(row: Mapping[str, Any]) -> str | None:
    """What is wrong with a completion line, or None."""
    if row.get("schema_version") not in SCHEMA_VERSIONS:
        return f"schema_version is {row.get('schema_version')!r}, this release reads {list(SCHEMA_VERSIONS)}"
    for name, (check, wanted) in _FIELDS.items():
        if name not in row:
            return f"the field {name!r} is missing"
        if not check(row[name]):
            return f"{name} is {row[name]!r}, it should be {wanted}"
    return None


def figure(
    value: float | None, lo: float | None, hi: float | None, n: int, unit: str, method: str
) -> dict[str, float | int | str | None]:
    """A published number with its interval.

    Args:
        value: the point estimate; None where there is nothing to estimate.
        lo, hi: ends of the interval; None where no interval can be given.
        n: independent units behind the number (questions, unless ``method`` says otherwise).
        unit: what one unit of ``value`` is, e.g. ``"share"``, ``"tokens"``, ``"per 1k tokens"``.
        method: how the interval was made and what it covers.

    Numbers that are not finite become None, because JSON has no other word for them.
    """
    number = [None if x is None or not math.isfinite(x) else float(x) for x in (value, lo, hi)]
    return {"value": number[0], "lo": number[1], "hi": number[2], "n": int(n), "unit": unit, "method": method}


def prompt_sha256(prompt: str | Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 (hex) of a prompt: of its UTF-8 bytes, or of canonical JSON for a list of chat messages."""
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()
