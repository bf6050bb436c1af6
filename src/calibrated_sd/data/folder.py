"""A prepared suite on disk: ``problems.jsonl``, ``suite.json`` that tells where it is from, ``manifest.json``."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calibrated_sd.data.preparing import Prepared
from calibrated_sd.data.suites import PROBLEMS, SUITE, SuiteDefinition
from calibrated_sd.errors import ConfigError, OutputError
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
    hold_out: float | None = None,
    seed: int = 0,
) -> Path:
    """Write a prepared suite; the problem file comes last, so that a folder that has it is complete.

    Args:
        folder: where; its name is the suite's.
        prepared: the problems and their report.
        source, settings, definition, provenance: blocks of ``suite.json``.
        if_exists: ``raise``, ``resume`` or ``overwrite``.
        hold_out: also write ``train.jsonl`` and ``held_out.jsonl``, with this share of the problems in the latter.
        seed: of the draw of held-out problems.

    Returns:
        The problem file.

    Raises:
        ConfigError: a share that holds out no problem, or all.
        OutputError: as :func:`calibrated_sd.records.prepare_output`.
    """
    parts = {} if hold_out is None else split(prepared.problems, hold_out, seed)
    prepare_output(folder, if_exists, kind="suite")
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
    for name, problems in parts.items():
        write_jsonl(folder / f"{name}.jsonl", problems)
    write_jsonl(folder / PROBLEMS, prepared.problems)
    return folder / PROBLEMS


def split(problems: Sequence[dict[str, Any]], share: float, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Two sets without a common problem, ``train`` and ``held_out``, each in the given order.

    Args:
        problems: different problems.
        share: of them in ``held_out``, rounded to whole problems.
        seed: of the draw.

    Raises:
        ConfigError: one of the two would be empty.
    """
    n = round(share * len(problems))
    if not 0 < n < len(problems):
        raise ConfigError(
            f"A share of {share} of {len(problems)} problems would hold out {n} of them, and both sets need at least one. "
            "Give another --hold-out."
        )
    chosen = set(random.Random(f"hold-out-{seed}").sample(range(len(problems)), n))
    return {
        "train": [problem for i, problem in enumerate(problems) if i not in chosen],
        "held_out": [problem for i, problem in enumerate(problems) if i in chosen],
    }
