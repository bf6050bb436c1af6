"""Completion records for tests of figures."""

from __future__ import annotations

from typing import Any


def record(
    problem: str, sample: int, correct: bool | None, tokens: int, lexical: int = 0, **changes: Any
) -> dict[str, Any]:
    """A completion of the suite `heldout`; legacy counts twice the lexical markers, held_out none."""
    return {
        "schema_version": 1,
        "suite": "heldout",
        "problem_id": problem,
        "sample": sample,
        "prompt_sha256": f"hash of {problem}",
        "completion": "\\boxed{1}" if correct else "\\boxed{2}",
        "finish_reason": "stop",
        "n_tokens": tokens,
        "correct": correct,
        "markers": {"legacy": 2 * lexical, "lexical": lexical, "held_out": 0},
        "context": "none",
        "arm": "base",
        "seed": 0,
        "step": 0,
        **changes,
    }
