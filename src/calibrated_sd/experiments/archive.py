"""A study's runs, on disk or archived, behind one reader; and the writing of `archive.json.gz`. No torch until it writes.

A study can be published, and continued on another machine, without its run folders: what is archived counts as done,
and everything derived from runs is derived from disk and archive alike. Where both have a run, the folder counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrated_sd.errors import DataError
from calibrated_sd.records import read_completions, read_jsonl, read_object
from calibrated_sd.records.archive import (
    ARCHIVE,
    ArchivedRun,
    Evaluation,
    archived_states,
    read_archive,
    write_archive_file,
)

RUNS = "runs"
OK = "ok"
_FILES = ("eval/step_*/completions.jsonl", "completions.jsonl")


@dataclass(frozen=True)
class StoredRun:
    """One run of a study, wherever it is kept.

    Attributes:
        name: its folder below ``runs``, e.g. ``"sdpo/seed_0"``.
        status: ``"ok"`` if it has finished.
        recipe: what it was told to do.
        code: commit, and whether there were uncommitted changes.
        wall_time_s: duration.
        folder: where its files are; None if it is archived.
        archived: its archived form; None if it is on disk.
    """

    name: str
    status: str
    recipe: dict[str, Any]
    code: list[Any] | None
    wall_time_s: float | None
    folder: Path | None = None
    archived: ArchivedRun | None = None

    @property
    def files(self) -> list[str]:
        """Paths of its `completions.jsonl` below its folder, evaluations on the way included."""
        if self.folder is None:
            return sorted(self.archived.evaluations) if self.archived else []
        return sorted(p.relative_to(self.folder).as_posix() for pattern in _FILES for p in self.folder.glob(pattern))

    def records(self, file: str) -> list[dict[str, Any]]:
        """Completion records of one file; without texts if the run is archived."""
        if self.folder is not None:
            return _whole_records(self.folder, file)
        return self.archived.evaluations[file].records if self.archived else []

    def words(self, file: str) -> dict[str, dict[str, int]]:
        """Suite → word → count in all samples of the suite; empty where texts are gone and words were not counted."""
        if self.folder is None:
            return self.archived.evaluations[file].words if self.archived else {}
        counts: dict[str, Counter[str]] = {}
        for record in self.records(file):
            counts.setdefault(record["suite"], Counter()).update(words_of(record["completion"]))
        return {suite: dict(count) for suite, count in counts.items()}

    def log(self) -> list[dict[str, Any]]:
        """Logged lines of the training steps, each with its `step`: all of `train.jsonl`, or what is archived of it."""
        if self.folder is None:
            return self.archived.log if self.archived else []
        file = self.folder / "train.jsonl"
        lines = read_jsonl(file, check_version=False) if file.is_file() else []
        return [line for line in lines if "loss" in line and "step" in line]


def _whole_records(folder: Path, file: str) -> list[dict[str, Any]]:
    """Completions of a job, which are written in one piece: a damaged file is not continued, so the job is done again."""
    again = f"Or delete the folder {folder} and do that run again with --if-exists resume."
    try:
        records = read_completions(folder / file)
    except DataError as error:
        raise DataError(f"{error} {again}") from error
    if not records:
        raise DataError(
            f"{folder / file} is empty, although a job writes it in one piece. Put it back from a copy. {again}"
        )
    return records


def words_of(text: str) -> list[str]:
    """The words of a text in small letters; numbers and symbols are no words."""
    return re.findall(r"[a-z]+", text.lower())


def run_states(directory: Path) -> dict[str, dict[str, Any]]:
    """`run.json` of every run of a study, or what the archive has of it, by name; reads no results."""
    found = dict(archived_states(directory))
    for file in directory.glob(f"{RUNS}/**/run.json"):
        found[file.parent.relative_to(directory / RUNS).as_posix()] = read_object(file, "status", "recipe")
    return {name: found[name] for name in sorted(found, key=lambda name: name.split("/"))}


def stored_runs(directory: Path) -> dict[str, StoredRun]:
    """Every run of a study, by name in the order of the folders, finished or not.

    Raises:
        DataError: a damaged `run.json` or archive.
    """
    archived = read_archive(directory)
    runs = {}
    for name, state in run_states(directory).items():
        folder = directory / RUNS / name
        what = (name, state["status"], state["recipe"], state.get("code"))
        if (folder / "run.json").is_file():
            runs[name] = StoredRun(*what, state.get("wall_time_s"), folder=folder)
        else:
            runs[name] = StoredRun(*what, archived[name].wall_time_s, archived=archived[name])
    return runs


def archived_state(folder: Path) -> dict[str, Any] | None:
    """`status`, `recipe` and `code` of the archived run whose folder this would be; None if it is not archived."""
    for parent in folder.parents:
        if parent.name == RUNS:
            return archived_states(parent.parent).get(folder.relative_to(parent).as_posix())
    return None


def write_archive(directory: Path) -> Path | None:
    """Archive every run of a study that has ended, beside those that are archived already.

    Runs that failed are archived too if they were evaluated on the way, since tables show what was measured.

    Args:
        directory: the folder, with its `manifest.json`.

    Returns:
        The file; None if there is nothing to archive.

    Raises:
        DataError: no manifest, or a damaged file.
    """
    manifest = read_object(directory / "manifest.json", "suites")
    ood = {suite["name"] for suite in manifest["suites"] if suite["role"] != "train"}
    runs = read_archive(directory)
    for name, run in stored_runs(directory).items():
        better = name in runs and runs[name].status == OK
        if run.folder is not None and (run.status == OK or (run.files and not better)):
            runs[name] = _to_archive(run, ood)
    return write_archive_file(directory / ARCHIVE, runs.values()) if runs else None


def _to_archive(run: StoredRun, ood: set[str]) -> ArchivedRun:
    records = {file: run.records(file) for file in run.files}
    steps = {file: rows[0]["step"] for file, rows in records.items() if rows and file.startswith("eval/")}
    evaluations = {}
    for file, rows in records.items():
        last = file in steps and steps[file] == max(steps.values())
        words = {suite: count for suite, count in run.words(file).items() if suite in ood} if last else {}
        evaluations[file] = Evaluation(rows, words)
    return ArchivedRun(run.name, run.status, run.recipe, run.code, run.wall_time_s, evaluations, list(_kept(run.log())))


def _kept(lines: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """Of every step: what the collapse monitor can watch, markers, and the reward."""
    from calibrated_sd.trainers.monitoring.collapse_detector import SIGNALS  # imports torch

    watched = {key for signal in SIGNALS.values() for key in signal.keys}
    for line in lines:
        yield {
            key: value
            for key, value in line.items()
            if isinstance(value, (int, float))
            and (
                key in watched
                or key in ("step", "loss")
                or key.startswith("epistemic/")
                or key.rpartition("/")[2] in ("reward", "reward_mean")
            )
        }
