"""Reads the per-sample files of lm-evaluation-harness (``--log_samples``) as completion records. No torch.

The harness (0.4.x, ``EvaluationTracker.save_results_samples``) writes ``samples_<task>_<date>.jsonl``: one line per
document *and filter*, with ``doc_id, doc, target, arguments, resps, filtered_resps, filter, metrics, doc_hash,
prompt_hash, target_hash`` and one field per metric. What a record needs and the file lacks is filled in like this:

============  =====================================================================================================
suite         the task's name, from the file's name
arm           the name of the file's folder, which the harness takes from the model
correct       the metric of the line (``exact_match`` or ``acc``, or the one asked for) where it is 0 or 1; with
              several samples per document it concerns the filtered ones, so they have no verdict unless graded again
n_tokens      tokens of the text where a tokenizer is given (its end token not included); else words, and the row says
              ``length_unit: "words"``
finish        the harness does not say; ``"length"`` where the tokens reach the ``max_gen_toks`` of the line, else ``"stop"``
============  =====================================================================================================
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from calibrated_sd.contexts.answers import extract_answer
from calibrated_sd.errors import DataError
from calibrated_sd.evaluation.grading_pool import GradingPool
from calibrated_sd.markers import count_markers
from calibrated_sd.records import MARKER_COUNTS, CompletionRecord, prompt_sha256, read_jsonl

METRICS = ("exact_match", "acc")
"""Metrics that say whether an answer was right, in the order they are looked for."""
_FIELDS = ("doc_id", "target", "arguments", "resps")
_NAME = re.compile(r"samples_(?P<task>.+)_\d{4}-\d\d-\d\dT[\d.:-]+$")


def is_lm_eval_row(row: Mapping[str, Any]) -> bool:
    """Whether a line of a JSONL file looks like one of the harness."""
    return all(field in row for field in _FIELDS)


def task_name(path: str | os.PathLike[str]) -> str:
    """The task of a sample file: its name without ``samples_`` and the date.

    >>> task_name("out/model/samples_gsm8k_cot_2025-01-31T10-20-30.123456.jsonl")
    'gsm8k_cot'
    """
    stem = Path(path).name.removesuffix(".jsonl")
    found = _NAME.fullmatch(stem)
    return found["task"] if found else stem.removeprefix("samples_")


def read_lm_eval(
    path: str | os.PathLike[str],
    *,
    tokenizer: Any | None = None,
    filter_name: str | None = None,
    metric: str | None = None,
    grader: str | None = None,
) -> list[dict[str, Any]]:
    """Completion records, as dicts, of a sample file of lm-evaluation-harness.

    Args:
        path: ``samples_<task>_<date>.jsonl``.
        tokenizer: counts tokens; without it words are counted, and rows carry ``length_unit: "words"``.
        filter_name: whose verdict is taken, e.g. ``"strict-match"``; by default the first of the file.
        metric: the field that says whether an answer was right; by default the first of :data:`METRICS` in the file.
        grader: judge the texts again with this grader instead (see :mod:`calibrated_sd.evaluation.grading`); the
            expected answer is the one that ``target`` states, or all of ``target``.

    Raises:
        DataError: not such a file, no generated text (multiple choice), no such filter or metric, or a document twice.
        ConfigError: no such grader.
    """
    path = Path(path)
    rows = read_jsonl(path, check_version=False)
    if not rows or not is_lm_eval_row(rows[0]):
        raise DataError(
            f"{path} is no sample file of lm-evaluation-harness: its lines need the fields {', '.join(_FIELDS)}. Give the "
            "samples_*.jsonl that --log_samples writes."
        )
    rows = _one_filter(rows, filter_name, path)
    texts = [_texts(row, path) for row in rows]
    verdicts = _regraded(rows, texts, grader) if grader else _verdicts(rows, texts, metric, path)
    records = []
    for row, samples, right in zip(rows, texts, verdicts, strict=True):
        prompt, limit = _request(row)
        for i, (text, correct) in enumerate(zip(samples, right, strict=True)):
            n_tokens = len(text.split()) if tokenizer is None else _n_tokens(tokenizer, text)
            record = CompletionRecord(
                suite=task_name(path),
                problem_id=str(row["doc_id"]),
                sample=i,
                prompt_sha256=row.get("prompt_hash") or prompt_sha256(prompt),
                completion=text,
                finish_reason="length" if tokenizer is not None and limit and n_tokens >= limit else "stop",
                n_tokens=n_tokens,
                correct=correct,
                markers={name: sum(count_markers(text, name).values()) for name in MARKER_COUNTS},
                arm=path.resolve().parent.name or "lm_eval",
            )
            records.append({**record.as_dict(), "length_unit": "words" if tokenizer is None else "tokens"})
    return records


def _one_filter(rows: Sequence[dict[str, Any]], wanted: str | None, path: Path) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(str(row.get("filter", "none")) for row in rows))
    chosen = names[0] if wanted is None else wanted
    if chosen not in names:
        raise DataError(f"{path} has no filter {chosen!r}. Its filters are: {', '.join(names)}.")
    kept = [row for row in rows if str(row.get("filter", "none")) == chosen]
    seen: set[Any] = set()
    for row in kept:
        if row["doc_id"] in seen:  # the harness appends to an existing file
            raise DataError(
                f"{path} holds document {row['doc_id']!r} twice under the filter {chosen!r}: two runs were written into "
                "it. Give a file of one run."
            )
        seen.add(row["doc_id"])
    return kept


def _texts(row: Mapping[str, Any], path: Path) -> list[str]:
    """The generated texts of a document: those of its one request."""
    requests, sampled = row["resps"], isinstance(_arguments(row)[1], Mapping)  # scored texts come without settings
    if (
        sampled
        and len(requests) == 1
        and isinstance(requests[0], list)
        and all(isinstance(t, str) for t in requests[0])
    ):
        return requests[0]
    raise DataError(
        f"{path}, document {row['doc_id']!r}: holds no generated text but {len(requests)} scored ones, as multiple-choice "
        "and perplexity tasks have. Give the file of a task with output_type: generate_until."
    )


def _request(row: Mapping[str, Any]) -> tuple[str, int | None]:
    """Prompt and token limit of a document's request."""
    prompt, settings = _arguments(row)
    limit = settings.get("max_gen_toks") if isinstance(settings, Mapping) else None
    return prompt if isinstance(prompt, str) else str(prompt), limit


def _arguments(row: Mapping[str, Any]) -> tuple[Any, Any]:
    """What the first request of a document was made of: its prompt, and settings of the sampling or a continuation."""
    arguments = row["arguments"]
    if isinstance(arguments, Mapping):
        first = arguments.get("gen_args_0", {})
        return first.get("arg_0", ""), first.get("arg_1")
    parts: Sequence[Any] = arguments[0] if arguments else ()
    prompt, settings, *_ = (*parts, "", None)
    return prompt, settings


def _n_tokens(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _verdicts(
    rows: Iterable[Mapping[str, Any]], texts: Iterable[Sequence[str]], metric: str | None, path: Path
) -> list[list[bool | None]]:
    rows = list(rows)
    name = metric or next((m for m in METRICS if m in rows[0]), None)
    if metric is not None and metric not in rows[0]:
        raise DataError(f"{path} has no metric {metric!r}. Its metrics are: {', '.join(rows[0].get('metrics', []))}.")
    verdicts: list[list[bool | None]] = []
    for row, samples in zip(rows, texts, strict=True):
        value = row.get(name) if name else None
        decided = len(samples) == 1 and value in (0, 1)
        verdicts.append([bool(value) if decided else None] * len(samples))
    return verdicts


def _regraded(
    rows: Iterable[Mapping[str, Any]], texts: Iterable[Sequence[str]], grader: str
) -> list[list[bool | None]]:
    pairs = [
        (text, extract_answer(str(row["target"])) or str(row["target"]))
        for row, samples in zip(rows, texts, strict=True)
        for text in samples
    ]
    with GradingPool(grader) as pool:
        found = iter(pool.grade(pairs))
    return [[next(found) for _ in samples] for samples in texts]
