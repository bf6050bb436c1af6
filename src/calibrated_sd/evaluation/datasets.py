"""Problems from files: JSONL, JSON, CSV or parquet, with the column names people use.

A problem is ``{problem_id, prompt, answer, suite}`` and, where the file has one, ``solution``. The prompt is plain text
or a list of chat messages; a JSON string of messages (as some parquet files hold) becomes a list.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from calibrated_sd.errors import ConfigError, DataError, unknown_name
from calibrated_sd.evaluation.grading import extract_boxed
from calibrated_sd.records import prompt_sha256, read_json, read_jsonl

COLUMNS: dict[str, tuple[str, ...]] = {
    "prompt": ("problem", "question", "prompt"),
    "answer": ("answer", "ground_truth", "final_answer", "reward_model.ground_truth", "solution"),
    "solution": ("solution",),
    "problem_id": ("problem_id", "id", "unique_id"),
}
"""Column names looked for, in this order. A dot reaches into a nested object, or into a JSON string of one."""


class Problem(TypedDict):
    """One problem to be answered."""

    problem_id: str
    prompt: str | list[dict[str, str]]
    answer: str
    suite: str
    solution: NotRequired[str]


def load_problems(
    path: str | os.PathLike[str],
    *,
    columns: Mapping[str, str] | None = None,
    suite: str | None = None,
    limit: int | None = None,
) -> list[Problem]:
    """Read problems from a file.

    Args:
        path: ``.jsonl``, ``.json`` (a list of objects), ``.csv`` or ``.parquet``.
        columns: where to find ``prompt``, ``answer``, ``solution``, ``problem_id``; what is not named is looked for
            under the names in ``COLUMNS``.
        suite: name of the problem set; the file's name without its ending if None.
        limit: read only the first problems (for trying out).

    Returns:
        Problems in file order. Rows that repeat a problem are kept once, with a warning: the problem is the unit of
        every interval, and copies would make intervals too narrow.

    Raises:
        DataError: unreadable or empty file, a missing column (the message lists those that exist), a row without
            prompt or answer, one problem with two answers, or one ``problem_id`` for two problems.
        ConfigError: unknown key in ``columns``.
    """
    path, columns = Path(path), dict(columns or {})
    for key in columns:
        if key not in COLUMNS:
            raise unknown_name("column mapping", key, COLUMNS)
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, got {limit}.")
    rows = _read_rows(path)
    if not rows:
        raise DataError(f"{path} holds no rows. Give a file with at least one problem (better 30 or more).")
    where = {key: _find_column(rows, key, columns.get(key), path) for key in COLUMNS}
    name = suite or path.name.split(".")[0]

    seen: dict[str, Problem] = {}
    by_id: dict[str, str] = {}
    for i, row in enumerate(rows):
        problem = _problem(row, where, f"{path}, row {i + 1}", f"{name}-{i:04d}", name)
        text = prompt_sha256(problem["prompt"])
        if text in seen:
            if seen[text]["answer"] != problem["answer"]:
                raise DataError(
                    f"{path}, row {i + 1}: the prompt of problem {seen[text]['problem_id']!r} again, with the answer "
                    f"{problem['answer']!r} instead of {seen[text]['answer']!r}. Keep the right one of the two rows."
                )
            continue
        if by_id.setdefault(problem["problem_id"], text) != text:
            raise DataError(
                f"{path}, row {i + 1}: the problem_id {problem['problem_id']!r} stands for two different prompts. Give "
                "every problem its own id, or name another column for it."
            )
        seen[text] = problem
    problems = list(seen.values())
    if len(problems) < len(rows):
        warnings.warn(
            f"{path}: {len(rows)} rows hold {len(problems)} different problems; repeated rows are used once.",
            stacklevel=2,
        )
    problems = problems[:limit]
    if len(problems) == 1:
        warnings.warn(
            f"{path}: there is only one problem, so no interval over problems and no paired test can be given.",
            stacklevel=2,
        )
    return problems


def _read_rows(path: Path) -> list[dict[str, Any]]:
    kind = path.suffix.lower()
    if kind not in (".jsonl", ".json", ".csv", ".parquet"):
        raise DataError(
            f"{path} is not a problem file this package reads. Give a .jsonl, .json, .csv or .parquet file with a prompt "
            "and an answer column."
        )
    if not path.is_file():
        raise DataError(f"There is no problem file {path}. Check the path.")
    if kind == ".jsonl":
        return read_jsonl(path, check_version=False)
    if kind == ".json":
        data = read_json(path)
        if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
            raise DataError(f"{path} must hold a list of objects, one per problem. Convert it, e.g. to JSON lines.")
        return data
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False) if kind == ".csv" else pd.read_parquet(path)
    except pd.errors.EmptyDataError:
        return []
    except Exception as error:  # pyarrow and pandas raise a dozen kinds for a broken file
        raise DataError(f"{path} cannot be read ({error}). Is it complete? Download or write it again.") from error
    return frame.to_dict(orient="records")


def _find_column(rows: Sequence[Mapping[str, Any]], key: str, named: str | None, path: Path) -> str | None:
    """The column that holds ``key``; None for an absent optional one."""
    first = rows[0]
    for name in (named,) if named else COLUMNS[key]:
        if any(_lookup(row, name) is not None for row in (first, *rows[1:20])):
            return name
    if named or key in ("prompt", "answer"):
        looked = repr(named) if named else f"one of {', '.join(COLUMNS[key])}"
        raise DataError(
            f"{path} has no column for the {key}: looked for {looked}, and the columns are {', '.join(map(str, first))}. "
            f"Rename the column, or say which it is (columns={{{key!r}: ...}}, or --{key.replace('_', '-')}-column)."
        )
    return None


def _lookup(row: Mapping[str, Any], name: str) -> Any:
    """The value under a (dotted) name; None where it is absent, null or NaN."""
    value: Any = row
    for part in [name] if name in row else name.split("."):
        if isinstance(value, str) and value.lstrip().startswith("{"):
            value = _from_json(value)
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _problem(
    row: Mapping[str, Any], where: Mapping[str, str | None], place: str, default_id: str, suite: str
) -> Problem:
    found = {key: _lookup(row, name) for key, name in where.items() if name is not None}
    for key in ("prompt", "answer"):
        if found.get(key) is None or str(found[key]).strip() == "":
            raise DataError(f"{place}: the {key} (column {where[key]!r}) is empty. Fill it in or delete the row.")
    problem: Problem = {
        "problem_id": default_id if found.get("problem_id") is None else str(found["problem_id"]),
        "prompt": _prompt(found["prompt"], place),
        "answer": _answer(found["answer"], where["answer"]),
        "suite": suite,
    }
    if found.get("solution") is not None:
        problem["solution"] = str(found["solution"])
    return problem


def _prompt(value: Any, place: str) -> str | list[dict[str, str]]:
    if isinstance(value, str):
        parsed = _from_json(value) if value.lstrip().startswith("[{") else value
        if not isinstance(parsed, list):
            return value
        value = parsed
    if hasattr(value, "tolist"):  # parquet gives arrays
        value = value.tolist()
    if (
        isinstance(value, list)
        and value
        and all(isinstance(m, Mapping) and {"role", "content"} <= set(m) for m in value)
    ):
        return [{"role": str(m["role"]), "content": str(m["content"])} for m in value]
    raise DataError(
        f"{place}: the prompt is neither text nor a list of messages with 'role' and 'content', but {str(value)[:80]!r}. "
        "Write it as one of the two."
    )


def _answer(value: Any, column: str | None) -> str:
    """The final answer as text; a worked solution is reduced to its last box, or what follows ``####``."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    if column == "solution":
        boxed = extract_boxed(text)
        text = boxed if boxed is not None else text
    if "####" in text:  # grade-school style: reasoning, then "#### 42"
        text = text.rsplit("####", 1)[1].strip()
    return text
