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

from calibrated_sd.contexts.answers import last_box
from calibrated_sd.errors import ConfigError, DataError, unknown_name
from calibrated_sd.evaluation.problem_files import iter_rows
from calibrated_sd.records import prompt_sha256

COLUMNS: dict[str, tuple[str, ...]] = {
    "prompt": ("problem", "question", "prompt", "Problem", "Question"),
    "answer": (
        *("answer", "ground_truth", "final_answer", "expected_answer", "Answer"),
        *("reward_model.ground_truth", "solution"),
    ),
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
        path: ``.jsonl``, ``.jsonl.gz``, ``.json`` (a list of objects), ``.csv`` or ``.parquet``.
        columns: where to find ``prompt``, ``answer``, ``solution``, ``problem_id``; what is not named is looked for
            under the names in ``COLUMNS``.
        suite: name of the problem set; if None, the file's name without its ending, or that of a prepared suite.
        limit: read only the first problems (for trying out).

    Returns:
        Problems in file order. Rows that repeat a problem, be it with other whitespace, are kept once, with a warning:
        the problem is the unit of every interval, and copies would make intervals too narrow.

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
    rows = list(iter_rows(path))
    if not rows:
        raise DataError(f"{path} holds no rows. Give a file with at least one problem (better 30 or more).")
    where = {key: find_column(rows, key, columns.get(key), path) for key in COLUMNS}
    prepared = path.with_name("suite.json").is_file()  # csd data names a suite by its folder
    name = suite or (path.absolute().parent.name if prepared else path.name.split(".")[0])

    seen: dict[str, Problem] = {}
    by_id: dict[str, str] = {}
    for i, row in enumerate(rows):
        problem = _problem(row, where, f"{path}, row {i + 1}", f"{name}-{i:04d}", name)
        text = _same_text(problem["prompt"])
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


def _same_text(prompt: str | list[dict[str, str]]) -> str:
    """What prompts have in common that differ in whitespace only."""
    if isinstance(prompt, str):
        return prompt_sha256(" ".join(prompt.split()))
    return prompt_sha256([{**message, "content": " ".join(message["content"].split())} for message in prompt])


def find_column(
    rows: Sequence[Mapping[str, Any]],
    key: str,
    named: str | None,
    path: Path,
    names: Mapping[str, tuple[str, ...]] = COLUMNS,
) -> str | None:
    """The column that holds ``key``; None for an absent optional one.

    Args:
        rows: the first rows of the file, at least one; twenty are looked at.
        key: ``"prompt"``, ``"answer"``, or another key of ``names``.
        named: the column that the user named, or None to look under the usual names.
        path: the file, for the message.
        names: the usual names of each key.

    Raises:
        DataError: the named column, or one for the prompt or the answer, does not exist.
    """
    first = rows[0]
    for name in (named,) if named else names[key]:
        if any(lookup(row, name) is not None for row in (first, *rows[1:20])):
            return name
    if named or key in ("prompt", "answer"):
        looked = repr(named) if named else f"one of {', '.join(names[key])}"
        raise DataError(
            f"{path} has no column for the {key}: looked for {looked}, and the columns are {', '.join(map(str, first))}. "
            f"Rename the column, or say which it is (columns={{{key!r}: ...}}, or --{key.replace('_', '-')}-column)."
        )
    return None


def lookup(row: Mapping[str, Any], name: str) -> Any:
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
    except (ValueError, RecursionError):
        return text


def _problem(
    row: Mapping[str, Any], where: Mapping[str, str | None], place: str, default_id: str, suite: str
) -> Problem:
    found = {key: lookup(row, name) for key, name in where.items() if name is not None}
    for key in ("prompt", "answer"):
        if found.get(key) is None or str(found[key]).strip() == "":
            raise DataError(f"{place}: the {key} (column {where[key]!r}) is empty. Fill it in or delete the row.")
    problem: Problem = {
        "problem_id": default_id if found.get("problem_id") is None else str(found["problem_id"]),
        "prompt": read_prompt(found["prompt"], place),
        "answer": _one_answer(found["answer"], where["answer"], place),
        "suite": suite,
    }
    if found.get("solution") is not None:
        problem["solution"] = str(found["solution"])
    return problem


def _one_answer(value: Any, column: str | None, place: str) -> str:
    try:
        return read_answer(value, column)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def read_prompt(value: Any, place: str) -> str | list[dict[str, str]]:
    """A prompt cell as text or as chat messages; a JSON string of messages becomes a list.

    Raises:
        DataError: it is neither; ``place`` says where it stands.
    """
    if isinstance(value, str):
        parsed = _from_json(value) if value.lstrip().startswith("[") else value
        if not isinstance(parsed, list) or not parsed or not all(isinstance(part, Mapping) for part in parsed):
            return value  # "[1, 2, 3]" is valid JSON, but no chat
        value = parsed
    if hasattr(value, "tolist"):  # parquet gives arrays
        value = value.tolist()
    if (
        isinstance(value, list)
        and value
        and all(isinstance(m, Mapping) and "role" in m and _content(m.get("content")) is not None for m in value)
    ):
        return [{"role": str(m["role"]), "content": str(_content(m["content"]))} for m in value]
    raise DataError(
        f"{place}: the prompt is neither text nor a list of messages with 'role' and 'content', but {str(value)[:80]!r}. "
        "Write it as one of the two."
    )


def _content(value: Any) -> str | None:
    """The text of a message, which may come in parts; None where it has none, or something that is no text."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(
        isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in value
    ):
        return "".join(part["text"] for part in value)
    return None


def read_answer(value: Any, column: str | None) -> str:
    """The final answer as text; a worked solution is reduced to its last box, or what follows ``####``.

    Raises:
        DataError: several values, or an object. A list of one value is that value.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or isinstance(value, list | Mapping):
        raise DataError(f"the answer is not one value, but {str(value)[:80]!r}. Give one, as text or as a number.")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    if column == "solution":
        box = last_box(text)
        text = text if box is None else text[slice(*box)].strip()
    if "####" in text:  # grade-school style: reasoning, then "#### 42"
        text = text.rsplit("####", 1)[1].strip()
    return text
