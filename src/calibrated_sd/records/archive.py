"""`archive.json.gz`: all measurements of a study's runs without their texts and weights, small enough to publish.

The file is one JSON object, compressed; equal runs give equal bytes. Its fields are described in
``docs/reference/records_schema.md``. What is not kept: completions (only how often each word occurs in the last
evaluation), prompt hashes, weights, training data.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.records.files import jsonable, require_version, write_bytes
from calibrated_sd.records.folder_names import check_folder_name
from calibrated_sd.records.packing import pack_log, pack_records, unpack_log, unpack_records
from calibrated_sd.records.schema import SCHEMA_VERSION

ARCHIVE = "archive.json.gz"
"""Name of the file in a study's folder."""


@dataclass(frozen=True)
class Evaluation:
    """The samples of one `completions.jsonl`, without their texts.

    Attributes:
        records: as `read_completions` gives them, but `completion` and `prompt_sha256` are empty.
        words: suite → word → how often it occurs in all its samples; empty if this was not the run's last evaluation.
    """

    records: list[dict[str, Any]]
    words: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class ArchivedRun:
    """One run of a study.

    Attributes:
        name: its folder below ``runs``, e.g. ``"sdpo/seed_0"``.
        status: ``"ok"``, or how it ended.
        recipe: what the run was told to do, as in `run.json`.
        code: commit, and whether there were uncommitted changes; None where that was not recorded.
        wall_time_s: duration.
        evaluations: path of the `completions.jsonl` below the run's folder → its samples.
        log: lines of `train.jsonl`, of each step the quantities that the archive keeps, to six digits.
    """

    name: str
    status: str
    recipe: dict[str, Any]
    code: list[Any] | None
    wall_time_s: float | None
    evaluations: dict[str, Evaluation]
    log: list[dict[str, Any]]


def write_archive_file(path: str | os.PathLike[str], runs: Iterable[ArchivedRun]) -> Path:
    """Write an archive, atomically. The bytes depend on the runs alone, not on their order or the time."""
    questions: dict[str, int] = {}
    packed = {}
    for run in sorted(runs, key=lambda run: run.name):
        evaluations: dict[str, dict[str, Any]] = {}
        for file, evaluation in sorted(run.evaluations.items()):
            evaluations[file] = {"samples": pack_records(evaluation.records, questions)}
            if evaluation.words:
                evaluations[file]["words"] = evaluation.words
        packed[run.name] = {
            "status": run.status,
            "recipe": run.recipe,
            "code": run.code,
            "wall_time_s": run.wall_time_s,
            "evaluations": evaluations,
            "log": pack_log(run.log),
        }
    content = {
        "schema_version": SCHEMA_VERSION,
        "kind": "archive",
        "questions": [json.loads(ids) for ids in questions],
        "runs": packed,
    }
    text = json.dumps(jsonable(content), sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as stream:
        stream.write(text.encode())
    _parsed.cache_clear()  # the clock may stand still or go back, so a time of change does not tell the files apart
    return write_bytes(Path(path), buffer.getvalue())


def read_archive(directory: str | os.PathLike[str]) -> dict[str, ArchivedRun]:
    """The runs in a study's `archive.json.gz`, by name; none where there is no such file.

    Raises:
        DataError: the file is damaged, or of a version that this release does not know.
    """
    path = Path(directory) / ARCHIVE
    content = _content(path)
    try:
        return {name: _unpack(name, run, content["questions"]) for name, run in sorted(content["runs"].items())}
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise _damaged(path, error) from error


def archived_states(directory: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """`status`, `recipe` and `code` of every archived run, by name; cheap to ask again. Raises as `read_archive`."""
    runs = _content(Path(directory) / ARCHIVE)["runs"]
    return {name: {key: run[key] for key in ("status", "recipe", "code")} for name, run in runs.items()}


def _content(path: Path) -> dict[str, Any]:
    try:
        state = path.stat()
    except FileNotFoundError:
        return {"questions": [], "runs": {}}
    return _parsed(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=2)  # the state of every job is asked for
def _parsed(path: Path, mtime_ns: int, size: int) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise _damaged(path, error) from error
    require_version(content, str(path))
    try:
        for part in {part for name in content["runs"] for part in name.split("/")}:
            check_folder_name(part, "A run")
    except (ConfigError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error
    return content


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read ({type(error).__name__}: {error}). The file is cut off or was changed by hand; take it "
        "anew from where it was published; or, if the folder still has all its runs, delete the file and run the command that "
        "made it with --if-exists resume."
    )


def _unpack(name: str, run: Mapping[str, Any], questions: list[list[str]]) -> ArchivedRun:
    evaluations = {
        file: Evaluation(unpack_records(packed["samples"], questions), packed.get("words", {}))
        for file, packed in run["evaluations"].items()
    }
    log = unpack_log(run["log"])
    return ArchivedRun(name, run["status"], run["recipe"], run["code"], run["wall_time_s"], evaluations, log)
