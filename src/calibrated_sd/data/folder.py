"""A prepared suite on disk: ``problems.jsonl``, ``suite.json`` that tells where it is from, ``manifest.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calibrated_sd.data.preparing import Prepared
from calibrated_sd.data.suites import PROBLEMS, SUITE, SuiteDefinition
from calibrated_sd.errors import OutputError
from calibrated_sd.evaluation.problem_files import file_sha256
from calibrated_sd.records import MANIFEST, SCHEMA_VERSION, prepare_output, read_json, write_json, write_jsonl


def describe_files(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Name, size in bytes and SHA-256 of input files."""
    return [{"name": file.name, "bytes": file.stat().st_size, "sha256": file_sha256(file)} for file in files]


def check_not_in_place(files: Sequence[Path], folder: Path) -> None:
    """Refuse to write into a folder that an input file lies in.

    Raises:
        OutputError: one does.
    """
    for file in files:
        if folder.resolve() in file.resolve().parents:
            raise OutputError(
                f"The input {file} lies in the output folder {folder}, and data are never rewritten in place. Nothing "
                "was changed. Give another --output or --name."
            )


def recorded_suite(folder: Path) -> dict[str, Any] | None:
    """The ``suite.json`` of an earlier preparation in this folder, or None.

    Raises:
        DataError: it cannot be read.
    """
    file = folder / SUITE
    return read_json(file) if file.is_file() else None


def write_suite(
    folder: Path,
    prepared: Prepared,
    *,
    source: Mapping[str, Any],
    settings: Mapping[str, Any],
    definition: SuiteDefinition | None,
    provenance: Mapping[str, Any],
    if_exists: str,
) -> Path:
    """Write a prepared suite; the problem file comes last, so that a folder that has it is complete.

    Returns:
        The problem file.

    Raises:
        OutputError: as :func:`calibrated_sd.records.prepare_output`.
    """
    prepare_output(folder, if_exists)
    described = {
        "schema_version": SCHEMA_VERSION,
        "kind": "suite",
        "name": folder.name,
        "source": dict(source),
        "settings": dict(settings),
        "definition": None if definition is None else definition.as_dict(),
        "report": prepared.report.as_dict(),
        "provenance": dict(provenance),
    }
    write_json(folder / MANIFEST, {"schema_version": SCHEMA_VERSION, "kind": "suite", "provenance": dict(provenance)})
    write_json(folder / SUITE, described)
    write_jsonl(folder / PROBLEMS, prepared.problems)
    return folder / PROBLEMS
