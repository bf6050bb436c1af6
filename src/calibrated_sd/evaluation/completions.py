"""From problems and samples to ``completions.jsonl``: grading, marker counts, and continuing where a run stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from calibrated_sd.errors import OutputError
from calibrated_sd.evaluation.generate import Completion, iter_completions
from calibrated_sd.evaluation.grading import Grader
from calibrated_sd.evaluation.grading_pool import GradingPool
from calibrated_sd.markers import count_markers
from calibrated_sd.records import (
    MARKER_COUNTS,
    CompletionRecord,
    append_jsonl,
    prompt_sha256,
    read_completions,
    repair_tail,
)

Backend = Callable[..., Iterator[list[Completion]]]


def record_completions(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    n: int,
    arm: str = "base",
    seed: int = 0,
    step: int = 0,
    context: str = "none",
    grader: str = "boxed",
    grading_workers: int = 2,
    grading_timeout_s: float = 5.0,
    sampling_seed: int | None = None,
    backend: Backend = iter_completions,
    **sampling: Any,
) -> list[dict[str, Any]]:
    """Sample, grade and store; what ``path`` already holds is kept and not made again.

    Each finished batch is appended to ``path`` at once, so a run that is killed loses at most one batch. Calling
    again with the same arguments continues and ends with the same file, byte for byte (see
    :mod:`calibrated_sd.evaluation.generate`).

    Args:
        model: a transformers model, or what ``backend`` wants in its place.
        tokenizer: its tokenizer.
        problems: dicts with ``problem_id, prompt, answer, suite`` (answer None = not graded). A problem set may hold
            several suites; ids need to be distinct within a suite.
        path: the ``completions.jsonl`` to write or to continue. It belongs to one arm, seed, step and context.
        n: samples per problem.
        arm, seed, step, context: written into the records.
        grader: a name of :data:`~calibrated_sd.evaluation.grading.GRADERS`, or ``"module:function"``.
        grading_workers: processes that grade (none for ``"boxed"``).
        grading_timeout_s: seconds for one completion, beyond which it counts as not graded (``correct`` is None).
        sampling_seed: seed of the random streams; ``seed`` if None, so that training seeds are sampled independently.
        backend: :func:`~calibrated_sd.evaluation.generate.iter_completions` or the vLLM one.
        sampling: ``max_new_tokens, temperature, top_p, batch_size, on_progress, chat_template_kwargs``.

    Returns:
        All records of ``path``, as dicts.

    Raises:
        OutputError: ``path`` holds records of other problems, prompts or conditions.
        ConfigError, ContextError: see the backend.
    """
    path, pool = Path(path), GradingPool(grader, grading_workers, grading_timeout_s)
    by_key = {f"{p['suite']}/{p['problem_id']}": p for p in problems}  # the key also names the random streams
    condition: dict[str, Any] = {"arm": arm, "seed": seed, "step": step, "context": context}

    repair_tail(path)
    rows = read_completions(path) if path.exists() else []
    _check_same_run(rows, by_key, condition, n, path)
    hashes = {_key(r): r["prompt_sha256"] for r in rows}
    batches = backend(
        model,
        tokenizer,
        [p["prompt"] for p in problems],
        n=n,
        problem_ids=[f"{p['suite']}/{p['problem_id']}" for p in problems],
        seed=seed if sampling_seed is None else sampling_seed,
        already_done={(_key(r), r["sample"]) for r in rows},
        **sampling,
    )
    with pool:
        for batch in batches:
            verdicts = pool.grade([(c.text, by_key[c.problem_id].get("answer")) for c in batch])
            made = []
            for c, correct in zip(batch, verdicts, strict=True):
                hashed = prompt_sha256(c.prompt_text)
                if hashes.setdefault(c.problem_id, hashed) != hashed:
                    raise OutputError(
                        f"{path} was started with another prompt for problem {c.problem_id!r}, so it cannot be "
                        "continued. Use a new output folder, or --if-exists overwrite."
                    )
                made.append(completion_record(c, by_key[c.problem_id], correct, **condition).as_dict())
            append_jsonl(path, made)
            rows += made
    return rows


def completion_record(
    c: Completion, problem: Mapping[str, Any], grade: Grader | bool | None, **condition: Any
) -> CompletionRecord:
    """One completion as a line: graded, its markers counted.

    Args:
        c: the sample.
        problem: ``{suite, problem_id, answer}`` at least; an answer of None is not graded.
        grade: the verdict; or a grader that always finishes, such as
            :func:`~calibrated_sd.evaluation.grading.grade_boxed`.
        condition: ``arm, seed, step, context``.
    """
    if callable(grade):
        answer = problem.get("answer")
        grade = None if answer is None else grade(c.text, answer)
    return CompletionRecord(
        suite=problem["suite"],
        problem_id=problem["problem_id"],
        sample=c.sample,
        prompt_sha256=prompt_sha256(c.prompt_text),
        completion=c.text,
        finish_reason=c.finish_reason,
        n_tokens=len(c.token_ids),
        correct=grade,
        markers={name: sum(count_markers(c.text, name).values()) for name in MARKER_COUNTS},
        **condition,
    )


def _key(row: Mapping[str, Any]) -> str:
    return f"{row['suite']}/{row['problem_id']}"


def _check_same_run(
    rows: Sequence[Mapping[str, Any]], problems: Mapping[str, Any], condition: Mapping[str, Any], n: int, path: Path
) -> None:
    for row in rows:
        other = next((f"{k}={row[k]!r}" for k, v in condition.items() if row[k] != v), None)
        if other is None and _key(row) not in problems:
            other = f"problem {_key(row)!r}"
        if other is None and row["sample"] >= n:
            other = f"sample {row['sample']} of {n}"
        if other is not None:
            raise OutputError(
                f"{path} holds records of another evaluation ({other}), so it cannot be continued. Use a new output "
                "folder, or --if-exists overwrite."
            )
