"""The completion records of a run, wherever they come from: a folder, a file, or lm-evaluation-harness. No torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from calibrated_sd.errors import DataError
from calibrated_sd.evaluation.lm_eval import is_lm_eval_row, read_lm_eval
from calibrated_sd.records import read_completions, read_jsonl

COMPLETIONS = "completions.jsonl"


def read_run(path: str | os.PathLike[str], **lm_eval: Any) -> list[dict[str, Any]]:
    """Records of a ``csd evaluate`` folder, of a ``completions.jsonl``, or of lm-eval's sample file or folder.

    Args:
        path: a folder with ``completions.jsonl`` or with ``samples_*.jsonl``, or such a file.
        lm_eval: ``tokenizer, filter_name, metric, grader`` for
            :func:`~calibrated_sd.evaluation.lm_eval.read_lm_eval`; not used for our own records.

    Raises:
        DataError: nothing of the kind is there, or it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(
            f"There is no run {path}. Give a folder of csd evaluate, a completions.jsonl, or lm-eval's samples."
        )
    files = [path]
    if path.is_dir():
        ours = path / COMPLETIONS
        files = [ours] if ours.is_file() else sorted(path.glob("samples_*.jsonl"))
        if not files:
            raise DataError(
                f"The folder {path} holds neither {COMPLETIONS} (csd evaluate) nor samples_*.jsonl (lm-eval with "
                "--log_samples). Give the folder in which they are."
            )
    records = [record for file in files for record in _read(file, lm_eval)]
    if not records:
        raise DataError(f"{path} holds no completions. Did the evaluation finish?")
    _check_once(records, path)
    return records


def _check_once(records: list[dict[str, Any]], path: Path) -> None:
    """Several dates of one task lie side by side in lm-eval's folders."""
    seen: set[tuple[Any, ...]] = set()
    for r in records:
        key = tuple(r[k] for k in ("arm", "seed", "step", "context", "suite", "problem_id", "sample"))
        if key in seen:
            raise DataError(
                f"{path} holds suite {r['suite']!r} more than once (e.g. question {r['problem_id']!r} in two files). Give "
                "the one file that you mean."
            )
        seen.add(key)


def _read(file: Path, lm_eval: dict[str, Any]) -> list[dict[str, Any]]:
    rows = read_jsonl(file, check_version=False)
    if rows and is_lm_eval_row(rows[0]):
        return read_lm_eval(file, **lm_eval)
    return read_completions(file)
