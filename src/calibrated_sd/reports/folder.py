"""What a reproduce folder holds, as reports see it; `loading.load_folder` fills it from the files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from calibrated_sd.records import MARKER_COUNTS

BASE = "base"
"""Name of the arm with untrained weights."""
COMPLETION_COLUMNS = (
    *("arm", "seed", "step", "suite", "context", "problem_id", "sample", "correct", "n_tokens", "finish_reason"),
    *MARKER_COUNTS,
)


@dataclass(frozen=True)
class Arm:
    """One row of the tables and one colour of the figures; fields as in ``manifest.json``."""

    name: str
    label: str
    context: str = ""
    calibration_method: str | None = None
    calibration_strength: float | None = None
    distillation_weight: float | None = None
    learning_rate: float | None = None
    color_key: str | None = None
    steps: int | None = None


@dataclass(frozen=True)
class Suite:
    """A problem set; ``role`` is ``"train"``, ``"heldout"`` or ``"far"``. All but ``"train"`` are out of distribution."""

    name: str
    label: str
    role: str


@dataclass(frozen=True)
class Run:
    """One training run. ``status`` is ``"ok"``, ``"failed"``, ``"cancelled"``, ``"running"`` or ``"not run"``."""

    arm: str
    seed: int
    status: str
    error: str | None = None
    wall_time_s: float | None = None


@dataclass
class ReproduceFolder:
    """What `csd reproduce` has written, as far as it got.

    Attributes:
        path: the folder.
        manifest: ``manifest.json``.
        arms: base first, then in the order of the manifest.
        suites: in the order of the manifest.
        seeds: training seeds that were planned.
        runs: one per trained arm and seed that was planned or found.
        completions: one row per evaluated sample (``COMPLETION_COLUMNS``), texts left out.
        ladder: the same for the base model under each teacher context.
        training: one row per optimizer step, with ``arm`` and ``seed``.
        summary: ``summary.csv``, or None.
        claims: entries of ``claims.json``.
        traces, examples: rows of ``traces.jsonl`` and ``examples.jsonl``.
        gaps: what is missing, unfinished or unreadable, one sentence each.
        inputs: path relative to the folder → sha256 of every file that was read.
    """

    path: Path
    manifest: dict[str, Any]
    arms: list[Arm] = field(default_factory=list)
    suites: list[Suite] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    completions: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COMPLETION_COLUMNS))
    ladder: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COMPLETION_COLUMNS))
    training: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["arm", "seed", "step"]))
    summary: pd.DataFrame | None = None
    claims: list[dict[str, Any]] = field(default_factory=list)
    traces: list[dict[str, Any]] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)

    @property
    def profile(self) -> str:
        return str(self.manifest.get("profile") or "unknown")

    @property
    def is_smoke(self) -> bool:
        """Whether this is the quick profile, which tests the machinery and supports no claim."""
        return self.profile == "quick"

    @property
    def provenance(self) -> dict[str, Any]:
        value = self.manifest.get("provenance")
        return dict(value) if isinstance(value, Mapping) else {}

    @property
    def command(self) -> str:
        """The command that wrote the folder, as recorded."""
        return str(self.provenance.get("command") or "csd reproduce --output " + self.path.resolve().name)

    @property
    def last_step(self) -> int | None:
        """The step after which a finished arm is evaluated."""
        steps = [s for s in listed(self.manifest, "eval_steps") if isinstance(s, int)]
        return max(steps) if steps else None

    def last_step_of(self, name: str) -> int | None:
        """The same of one arm, which may have its own number of steps."""
        own = next((arm.steps for arm in self.arms if arm.name == name), None)
        return own or self.last_step

    @property
    def ood_suites(self) -> list[str]:
        return [suite.name for suite in self.suites if suite.role != "train"]

    @property
    def fingerprint(self) -> str:
        """Hash of all files the report is made of; two reports with the same one show the same data."""
        listing = "\n".join(f"{digest}  {name}" for name, digest in sorted(self.inputs.items()))
        return hashlib.sha256(listing.encode()).hexdigest()[:16]


def listed(data: Any, key: str) -> list[Any]:
    """The list under a key of a mapping; empty where there is none."""
    value = data.get(key) if isinstance(data, Mapping) else None
    return list(value) if isinstance(value, list) else []
