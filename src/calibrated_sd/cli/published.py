"""`csd report` on a published folder: tables on pages, figures, and whether the data follow from their archives."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import typer

from calibrated_sd.cli.console import console, error_console
from calibrated_sd.errors import CalibratedSDError
from calibrated_sd.records import read_json

ARCHIVE = "archive.json.gz"
DERIVED = ("claims.json", "summary.csv", "results.json", "results.csv")
"""Files that follow from an archive."""
CLOSE = 1e-9
"""Relative difference of two numbers that counts as none: sums differ in their last digit from machine to machine."""


def report_published(root: Path, *, check: bool, archives: bool = True) -> None:
    """Rebuild a published folder, or check it. Exits with code 1 where the check finds a difference.

    Args:
        root: the folder with the listing.
        check: write nothing.
        archives: with `check`, also compute the results again from their archives.
    """
    from calibrated_sd.reports.published import build_published, check_published

    if not check:
        changed = build_published(root)
        for path in changed:
            _say(f"written: {path}")
        _say(f"{root}: {len(changed)} files changed." if changed else f"{root}: everything is up to date.")
        return
    result = check_published(root)
    problems = list(result.problems)
    for what, found in archive_problems(root, _say) if archives else ():
        if found is None:
            _say(f"note: {what} has no {ARCHIVE}; that its figures follow from its runs is not checked.")
        else:
            problems += found
    for problem in problems:
        error_console.print(f"out of date: {problem}", highlight=False, markup=False, soft_wrap=True)
    if problems:
        advice = (
            f"Run `csd report {root}` to rewrite tables and figures; the data and the headline are corrected by hand."
        )
        error_console.print(advice, highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1)
    _say(f"{root}: {result.tables} tables and {result.figures} figures match their data.")
    if not archives:
        _say("That the data follow from their archives was not checked.")


def archive_problems(
    root: Path, progress: Callable[[str], None] = lambda line: None, *, only: Collection[str] | None = None
) -> Iterator[tuple[str, list[str] | None]]:
    """For every folder of runs that a published folder names: what does not follow from its archive; None without one.

    Args:
        root: the published folder.
        progress: told which folder is computed again, before it is.
        only: folders to look at, as the listing names them; all by default.

    Yields:
        the folder as the listing names it, and the problems.
    """
    from calibrated_sd.reports.published import load_listing

    for source in load_listing(root).sources:
        place = root / source
        if not (place / "manifest.json").is_file() or (only is not None and source not in only):
            continue  # a file of another command, not a folder of runs
        if not (place / ARCHIVE).is_file():
            yield source, None
            continue
        progress(f"{source}: computing its results again from {ARCHIVE}")
        yield source, [f"{source}/{problem}" for problem in _recomputed(place)]


def _recomputed(place: Path) -> list[str]:
    """Recompute the derived files in a temporary copy and compare; the folder itself is not touched."""
    from calibrated_sd.experiments.recompute import recompute

    with tempfile.TemporaryDirectory(prefix="calibrated-sd-") as temporary:
        copy = Path(temporary) / place.resolve().name
        copy.mkdir()
        for file in place.iterdir():
            if file.is_file() and file.suffix != ".png":
                shutil.copy2(file, copy / file.name)
        try:
            recompute(copy)
        except CalibratedSDError as error:
            return [f"{ARCHIVE}: {error}"]
        problems = []
        for name in DERIVED:
            published, made = place / name, copy / name
            if published.is_file() and made.is_file():
                where = first_difference(published, made)
                if where:
                    problems.append(f"{name} does not follow from {ARCHIVE}: {where}")
        return problems


def first_difference(published: Path, made: Path) -> str | None:
    """Where two derived files first differ, in words; None where all their entries agree up to rounding."""
    if published.suffix == ".json":
        return _apart(read_json(published), read_json(made), "")
    import pandas as pd

    tables = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in (published, made)]
    columns = [sorted(table.columns) for table in tables]
    if columns[0] != columns[1]:
        return f"its columns are {', '.join(columns[0])}, should be {', '.join(columns[1])}"
    rows = [table[columns[0]].to_dict("records") for table in tables]
    for i, (old, new) in enumerate(zip_longest(*rows)):
        if old is None or new is None:
            return f"it has {len(rows[0])} rows, should have {len(rows[1])}"
        for column in columns[0]:
            found = _apart(_number(old[column]), _number(new[column]), column)
            if found:
                row = ", ".join(str(new[key]) for key in ("arm", "seed", "suite", "step", "metric") if key in new)
                return f"row {i + 2} ({row}): {found}"
    return None


def _apart(old: Any, new: Any, where: str) -> str | None:
    """The first place at which two JSON values differ; provenance is no result and is passed over."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if key == "provenance":
                continue
            if key not in old or key not in new:
                return f"{where}.{key}".lstrip(".") + (" is missing" if key not in old else " is too much")
            found = _apart(old[key], new[key], f"{where}.{key}".lstrip("."))
            if found:
                return found
        return None
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return f"{where} has {len(old)} entries, should have {len(new)}"
        named = [item.get("id") or item.get("name") or i if isinstance(item, dict) else i for i, item in enumerate(new)]
        pairs = zip(named, old, new, strict=True)
        return next((found for name, a, b in pairs if (found := _apart(a, b, f"{where}[{name}]"))), None)
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (old, new))
    if numbers and math.isclose(old, new, rel_tol=CLOSE, abs_tol=CLOSE):
        return None
    return None if old == new else f"{where} is {old!r}, should be {new!r}"


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _say(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
