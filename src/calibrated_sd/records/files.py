"""Reading and writing JSON and JSON lines: atomic writes, safe appends, strict reads."""

from __future__ import annotations

import codecs
import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from calibrated_sd.errors import DataError
from calibrated_sd.records.disk_faults import named_writes
from calibrated_sd.records.schema import SCHEMA_VERSIONS, CompletionRecord, record_problem


def jsonable(value: Any) -> Any:
    """The value with NumPy scalars, paths, records and non-finite numbers turned into what JSON knows."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, CompletionRecord):
        return value.as_dict()
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(jsonable(v) for v in value)
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy and torch scalars and arrays
        return jsonable(value.tolist())
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _dumps(data: Any, indent: int | None = None) -> str:
    """JSON text that always encodes as UTF-8: readable, but escaped where a lone surrogate would make bad bytes."""
    data = jsonable(data)
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=indent)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(data, allow_nan=False, indent=indent)
    return text + "\n"


def write_bytes(path: Path, data: bytes) -> Path:
    """Write to a temporary file beside ``path``, then rename: readers see the old file or the new one, never half.

    Raises:
        OutputError: the system refused, e.g. because the disk is full; ``path`` is as it was.
    """
    with named_writes(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes private files; results are meant to be shared
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    return path


def write_json(path: str | os.PathLike[str], data: Any) -> Path:
    """Write ``data`` as indented JSON, atomically. Numbers that are not finite become null."""
    return write_bytes(Path(path), _dumps(data, indent=2).encode("utf-8"))


def write_jsonl(path: str | os.PathLike[str], rows: Iterable[Any]) -> Path:
    """Write one JSON object per line, atomically. Rows are dicts or :class:`CompletionRecord`."""
    return write_bytes(Path(path), "".join(map(_dumps, rows)).encode("utf-8"))


def append_jsonl(path: str | os.PathLike[str], rows: Iterable[Any]) -> None:
    """Add lines to a file that is being built, and make sure they reach the disk.

    A process killed inside this call can leave a half-written last line; :func:`repair_tail` removes it on resume.

    Raises:
        DataError: the file ends in a half-written line, so that new lines would be glued to it.
        OutputError: the system refused, e.g. because the disk is full; the file is as it was.
    """
    path = Path(path)
    data = "".join(map(_dumps, rows)).encode("utf-8")
    with named_writes(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+", buffering=0) as file:  # a buffer would be written once more on closing
            size = file.seek(0, os.SEEK_END)
            if size > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    raise DataError(
                        f"{path} ends in a half-written line, so nothing was added to it. If an interrupted run wrote "
                        "it, run the same command with --if-exists resume: that drops the half line and continues."
                    )
            try:
                rest = memoryview(data)
                while rest:  # a disk that fills up takes a part without an error, and refuses the rest
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)  # all lines or none
                raise


def repair_tail(path: str | os.PathLike[str]) -> int:
    """Drop a half-written last line from one of our own resumable files; returns how many bytes went.

    Lines are written with their newline in one go, so only text after the last newline can be incomplete. A last line
    that lacks its newline but is complete JSON is kept and ended properly. A missing file needs no repair (0).
    """
    path = Path(path)
    if not path.exists():
        return 0
    with named_writes(path), open(path, "rb+") as file:
        data = file.read()
        keep = data.rfind(b"\n") + 1
        tail = data[keep:]
        if not tail:
            return 0
        try:
            complete = isinstance(json.loads(tail), dict)
        except (ValueError, RecursionError):
            complete = False
        if complete:
            file.write(b"\n")
            return 0
        file.truncate(keep)
        return len(tail)


def _read_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise DataError(f"There is no file {path}. Check the path, or run the command that writes it first.")
    try:
        return path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}). Check its permissions and the disk, or give another file."
        ) from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read one JSON document.

    Raises:
        DataError: the file is missing, cut off, or carries a ``schema_version`` this release does not know.
    """
    path = Path(path)
    try:
        data = json.loads(_read_bytes(path))
    except (ValueError, RecursionError) as error:  # cut off, edited by hand, not UTF-8, or nested without end
        line = getattr(error, "lineno", 1)
        raise DataError(
            f"{path}, line {line}: not valid JSON ({error}). The file is cut off or was edited by hand; "
            "write it again with the command that made it."
        ) from error
    require_version(data, str(path))
    return data


def read_object(path: str | os.PathLike[str], *keys: str) -> dict[str, Any]:
    """Read a JSON object that must have these keys. Raises DataError as :func:`read_json`, and where one is missing."""
    data = read_json(path)
    missing = [key for key in keys if not isinstance(data, dict) or key not in data]
    if missing or not isinstance(data, dict):
        what = f"no {', '.join(missing)}" if missing else f"{type(data).__name__}, not an object"
        raise DataError(
            f"{os.fspath(path)} holds {what}. The file is of another command or was edited by hand; write it again with the "
            "command that made it."
        )
    return data


def read_jsonl(path: str | os.PathLike[str], *, check_version: bool = True) -> list[dict[str, Any]]:
    """Read a file with one JSON object per line; blank lines are skipped.

    Args:
        path: the file.
        check_version: refuse lines whose ``schema_version`` is unknown. False for files of other programs.

    Raises:
        DataError: missing file, or a line that is cut off, is no JSON object, or has an unknown ``schema_version``;
            the message names the file, the line and what to do.
    """
    return [row for _, row in _numbered_rows(Path(path), check_version)]


def _numbered_rows(path: Path, check_version: bool = True) -> list[tuple[int, dict[str, Any]]]:
    lines = _read_bytes(path).split(b"\n")
    rows = []
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # JSONDecodeError, a character cut in the middle, deep nesting
            what = (
                "the last line is cut off: an interrupted run leaves such a line. Delete it, or finish the run that "
                "writes this file with --if-exists resume, which drops it"
                if i == len(lines) - 1 and isinstance(error, ValueError)  # no newline after it
                else f"not valid JSON ({error}). Correct or delete this line"
            )
            raise DataError(f"{path}, line {i + 1}: {what}.") from error
        if not isinstance(row, dict):
            raise DataError(
                f"{path}, line {i + 1}: holds {type(row).__name__}, not an object. Each line must be one JSON object."
            )
        if check_version:
            require_version(row, f"{path}, line {i + 1}")
        rows.append((i + 1, row))
    return rows


def require_version(data: Any, where: str) -> None:
    if isinstance(data, dict) and "schema_version" in data and data["schema_version"] not in SCHEMA_VERSIONS:
        raise DataError(
            f"{where}: schema_version is {data['schema_version']!r}, but this release reads only "
            f"{list(SCHEMA_VERSIONS)}. Read it with the calibrated-sd release that wrote it, or upgrade."
        )


def read_completions(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read ``completions.jsonl`` and check every field.

    Raises:
        DataError: as :func:`read_jsonl`; also for a missing or ill-typed field, and for a sample that occurs twice
            (it would be counted twice).
    """
    path = Path(path)
    seen: dict[tuple[Any, ...], int] = {}
    rows = []
    for number, row in _numbered_rows(path):
        problem = record_problem(row)
        if problem:
            raise DataError(f"{path}, line {number}: {problem}. Is this a completions.jsonl file?")
        key = tuple(row[k] for k in ("arm", "seed", "step", "context", "suite", "problem_id", "sample"))
        if key in seen:
            raise DataError(
                f"{path}, line {number}: sample {row['sample']} of problem {row['problem_id']!r} is there already "
                f"(line {seen[key]}). Delete one of the two lines."
            )
        seen[key] = number
        rows.append(row)
    return rows
