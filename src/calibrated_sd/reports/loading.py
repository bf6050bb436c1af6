"""Reading a reproduce folder: strict about what a file says, forgiving about which files are there.

Interrupted and failed runs must still give a page, so a file that is missing or damaged becomes a *gap*: a sentence
that every table, figure and page built from the folder shows. Only a folder without a manifest is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from calibrated_sd.errors import CalibratedSDError, DataError
from calibrated_sd.records import MARKER_COUNTS, read_completions, read_json, read_jsonl
from calibrated_sd.records.archive import archived_states
from calibrated_sd.reports.archived_samples import LADDER, add_samples
from calibrated_sd.reports.folder import BASE, COMPLETION_COLUMNS, Arm, ReproduceFolder, Run, Suite, listed


def load_folder(directory: str | Path) -> ReproduceFolder:
    """Read everything a report needs from a reproduce folder.

    Raises:
        DataError: no folder, no readable ``manifest.json``, or a manifest of another kind.
    """
    path = Path(directory)
    if not path.is_dir():
        raise DataError(f"There is no folder {path}. Give the folder that `csd reproduce --output` wrote.")
    if not (path / "manifest.json").is_file():
        raise DataError(
            f"The folder {path} has no manifest.json, so it is not one that `csd reproduce` wrote. "
            "Give the folder named by its --output."
        )
    manifest = read_json(path / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("kind") != "reproduce":
        kind = manifest.get("kind") if isinstance(manifest, dict) else type(manifest).__name__
        raise DataError(
            f"{path / 'manifest.json'} is of kind {kind!r}; a report is built from kind 'reproduce'. "
            "Give the folder that `csd reproduce --output` wrote."
        )
    folder = ReproduceFolder(path, _drawable(manifest))
    manifest = folder.manifest
    reader = _Reader(folder)
    reader.hash(path / "manifest.json")
    folder.seeds = [s for s in listed(manifest, "seeds") if isinstance(s, int)]
    folder.arms = _arms(manifest, path)
    folder.runs = reader.runs()
    folder.completions = reader.completions(sorted(path.glob("runs/*/seed_*/eval/step_*/completions.jsonl")))
    folder.suites = _suites(manifest, folder.completions)
    missing_ladder = None if LADDER in reader.archived else "the context ladder"
    folder.ladder = reader.completions([path / "runs/ladder/completions.jsonl"], what=missing_ladder)
    folder.training = reader.training()
    folder.summary = reader.read(path / "summary.csv", read_summary, "summary.csv (intervals are recomputed)")
    claims = reader.read(path / "claims.json", read_json, "claims.json (no verdicts)")
    folder.claims = [c for c in listed(claims, "claims") if isinstance(c, dict)]
    folder.traces = reader.read(path / "traces.jsonl", read_jsonl, "traces.jsonl (teacher suppression)") or []
    folder.examples = reader.read(path / "examples.jsonl", read_jsonl, "examples.jsonl (example completions)") or []
    with suppress(DataError):  # said in a gap already
        add_samples(folder)
    _note_missing_evaluations(folder)
    folder.gaps = _drawable(folder.gaps)
    return folder


def _drawable(data: Any) -> Any:
    """The data with lone surrogates replaced: JSON can carry them, but no font, terminal or file can."""
    if isinstance(data, str):
        return data.encode("utf-8", errors="replace").decode()
    if isinstance(data, dict):
        return {_drawable(key): _drawable(value) for key, value in data.items()}
    return [_drawable(value) for value in data] if isinstance(data, list) else data


def _arms(manifest: Mapping[str, Any], path: Path) -> list[Arm]:
    known = set(Arm.__dataclass_fields__)
    arms = {}
    for entry in listed(manifest, "arms"):
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            fields = {key: value for key, value in entry.items() if key in known}
            fields["label"] = str(fields.get("label") or fields["name"])
            fields["context"] = str(fields.get("context") or "")
            arms[fields["name"]] = Arm(**fields)
    for found in sorted(path.glob("runs/*/seed_*")):  # arms the manifest does not list are shown too
        arms.setdefault(found.parent.name, Arm(found.parent.name, found.parent.name))
    base = arms.pop(BASE, Arm(BASE, BASE))
    return [base, *arms.values()]


def _suites(manifest: Mapping[str, Any], completions: pd.DataFrame) -> list[Suite]:
    suites = {
        s["name"]: Suite(s["name"], str(s.get("label") or s["name"]), str(s.get("role") or "far"))
        for s in listed(manifest, "suites")
        if isinstance(s, dict) and isinstance(s.get("name"), str)
    }
    for name in sorted(set(completions["suite"]) - suites.keys()):
        role = name if name in ("train", "heldout") else "far"
        suites[name] = Suite(name, name, role)
    return list(suites.values())


class _Reader:
    """Reads files of one folder, remembering their hashes and what could not be read."""

    def __init__(self, folder: ReproduceFolder) -> None:
        self.folder = folder
        try:
            self.archived = archived_states(folder.path)
        except DataError as error:
            folder.gaps.append(f"Unreadable: {error}")
            self.archived = {}

    def hash(self, path: Path) -> None:
        name = path.relative_to(self.folder.path).as_posix()
        self.folder.inputs[name] = hashlib.sha256(path.read_bytes()).hexdigest()

    def read(self, path: Path, read: Callable[[Path], Any], what: str | None = None) -> Any:
        """The file's content; None, and a gap if ``what`` is given, where there is no such file or it is damaged."""
        if not path.is_file():
            if what:
                self.folder.gaps.append(f"Missing: {what}.")
            return None
        try:
            self.hash(path)
            return read(path)
        except (CalibratedSDError, OSError, ValueError) as error:
            self.folder.gaps.append(f"Unreadable: {error}")
            return None

    def runs(self) -> list[Run]:
        found: dict[tuple[str, int], Run] = {}
        root = self.folder.path / "runs"
        trained = [arm.name for arm in self.folder.arms if arm.name != BASE]
        pairs = [(arm, seed) for arm in trained for seed in sorted({*self.folder.seeds, *_seeds_on_disk(root / arm)})]
        for arm, seed in pairs:
            place = root / arm / f"seed_{seed}"
            info = self.read(place / "run.json", read_json)
            if isinstance(info, dict):
                status = str(info.get("status") or "unknown")
                run = Run(arm, seed, status, info.get("error"), info.get("wall_time_s"))
            elif place.is_dir():
                run = Run(arm, seed, "unknown")
            else:
                run = Run(arm, seed, self.archived.get(f"{arm}/seed_{seed}", {}).get("status", "not run"))
            found[arm, seed] = run
            if run.status != "ok":
                reason = f": {' '.join(str(run.error).split())}" if run.error else ""
                self.folder.gaps.append(f"Arm {arm}, seed {seed}: {run.status}{reason}.")
        return list(found.values())

    def completions(self, paths: list[Path], what: str | None = None) -> pd.DataFrame:
        rows = []
        for path in paths:
            for row in self.read(path, read_completions, what) or []:
                counts = row["markers"]
                rows.append({**{k: row.get(k) for k in COMPLETION_COLUMNS}, **{m: counts[m] for m in MARKER_COUNTS}})
        return pd.DataFrame(rows, columns=COMPLETION_COLUMNS)

    def training(self) -> pd.DataFrame:
        frames = []
        for run in self.folder.runs:
            path = self.folder.path / f"runs/{run.arm}/seed_{run.seed}/train.jsonl"
            rows = [r for r in self.read(path, read_jsonl) or [] if isinstance(r.get("step"), int)]
            if rows:
                frames.append(pd.DataFrame(rows).assign(arm=run.arm, seed=run.seed))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["arm", "seed", "step"])


def _seeds_on_disk(place: Path) -> set[int]:
    names = (re.fullmatch(r"seed_(\d+)", entry.name) for entry in place.glob("seed_*"))
    return {int(match[1]) for match in names if match}


def read_summary(path: Path) -> pd.DataFrame:
    """``summary.csv`` (or a sweep's ``results.csv``) with its columns checked; seeds stay text because pooled rows have none."""
    columns = {"seed": str, "arm": str, "suite": str, "metric": str}
    try:
        if not path.read_bytes().endswith(b"\n"):  # a row that was cut off reads as one with other numbers
            raise ValueError("the last row is cut off")
        frame = pd.read_csv(path, dtype=columns, keep_default_na=False)
    except ValueError as error:  # pandas' own inherit from it
        raise DataError(
            f"{path} cannot be read ({error}). The file is cut off or was edited by hand; write it again with the command "
            "that made it."
        ) from error
    missing = {"arm", "seed", "suite", "step", "metric", "value", "lo", "hi", "n"} - set(frame.columns)
    if missing:
        raise DataError(f"{path} lacks the columns {sorted(missing)}; rerun the command that wrote it")
    for column in ("step", "value", "lo", "hi", "n"):
        frame[column] = pd.to_numeric(frame[column], errors="coerce")
    return frame


def _note_missing_evaluations(folder: ReproduceFolder) -> None:
    frame = folder.completions
    if frame.empty:
        folder.gaps.append("Missing: all evaluations.")
        return
    if BASE not in set(frame["arm"]):
        folder.gaps.append("Missing: the evaluation of the base model.")
    steps = frame.groupby(["arm", "seed"])["step"].max()
    for run in folder.runs:
        last = folder.last_step_of(run.arm)
        if run.status == "ok" and last is not None and steps.get((run.arm, run.seed), -1) < last:
            folder.gaps.append(
                f"Arm {run.arm}, seed {run.seed}: evaluated up to step {steps.get((run.arm, run.seed), 0)} of {last}."
            )
