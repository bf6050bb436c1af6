"""Rows of a data file, one at a time: a file with millions of repeated rows is never held in memory at once."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from calibrated_sd.errors import DataError

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")
"""File formats that are read."""


def iter_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a data file as dicts, in file order.

    A row that wraps the problem in a field ``doc``, as request files of evaluation harnesses do, is unwrapped.

    Raises:
        DataError: no such file, an ending not in ``ENDINGS``, or a file that cannot be read (with the line).
    """
    name = path.name.lower()
    if not name.endswith(ENDINGS):
        raise DataError(
            f"{path} is not a problem file this package reads. Give one that ends in {', '.join(ENDINGS)}, with a prompt "
            "and an answer column."
        )
    if not path.is_file():
        raise DataError(f"There is no problem file {path}. Check the path.")
    if name.endswith(".parquet"):
        rows = _parquet(path)
    elif name.endswith(".csv"):
        rows = _csv(path)
    elif name.endswith(".json"):
        rows = _json(path)
    else:
        rows = _json_lines(path)
    return map(_unwrap, rows)


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}). Check the path.") from error


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=4096):
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # what pyarrow raises for a broken file inherits from one of the two
        raise DataError(f"{path} cannot be read ({error}). Is it complete? Download or write it again.") from error


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(sys.maxsize)
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            for row in csv.DictReader(file):
                row.pop(None, None)  # type: ignore[call-overload]  # cells beyond the header
                yield row
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read ({error}). Write it again as UTF-8 CSV with a header.") from error


def _json(path: Path) -> Iterator[dict[str, Any]]:
    try:
        data = json.loads(path.read_bytes())  # bytes, because a byte-order mark is then understood
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}). Correct it, or write it as JSON lines.") from error
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise DataError(f"{path} must hold a list of objects, one per problem. Convert it, e.g. to JSON lines.")
    yield from data


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise DataError(f"{path}, line {number}: holds {type(row).__name__}, not an object.")
                    yield row
    except DataError:
        raise
    except (ValueError, EOFError, OSError, RecursionError) as error:
        raise DataError(
            f"{path}, line {number}: cannot be read ({error}). Is the file complete? Download or write it again."
        ) from error


def _unwrap(row: dict[str, Any]) -> dict[str, Any]:
    inner = row.get("doc")
    return dict(inner) if isinstance(inner, Mapping) else row
