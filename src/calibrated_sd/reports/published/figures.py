"""The figures of a published folder: loaded for the check, drawn for the build."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrated_sd.errors import ConfigError, unknown_name
from calibrated_sd.reports import figures as reproduce_figures
from calibrated_sd.reports.archived_samples import add_samples
from calibrated_sd.reports.canvas import Drawing, style
from calibrated_sd.reports.coverage import coverage_methods, draw_coverage
from calibrated_sd.reports.folder import BASE, ReproduceFolder
from calibrated_sd.reports.forest import draw_forest
from calibrated_sd.reports.pareto import draw_pareto
from calibrated_sd.reports.published.arms_table import chosen_arms
from calibrated_sd.reports.published.listing import Entry
from calibrated_sd.reports.published.measured import load_measured
from calibrated_sd.reports.scores import Scores
from calibrated_sd.reports.sweep_folder import load_sweep_folder


@dataclass(frozen=True)
class Picture:
    """A figure that is ready to be drawn: the hash of what it shows, and how to draw it."""

    fingerprint: str
    draw: Callable[[], Drawing]


def picture(root: Path, entry: Entry) -> Picture:
    """The figure of an entry, its data read but not drawn.

    Raises:
        ConfigError: an unknown arm, or more sources than the kind can show.
        DataError: a source without the files that it needs.
    """
    if len(entry.sources) > 1 and entry.kind != "forest":
        raise ConfigError(
            f"A figure of kind {entry.kind!r} has one source, got {len(entry.sources)}. Name one under 'from'."
        )
    places = [root / source for source in entry.sources]
    if entry.kind == "pareto":
        sweep = load_sweep_folder(places[0])
        sweep.fingerprint = _digest([sweep.fingerprint], entry)
        return Picture(sweep.fingerprint, lambda: draw_pareto(sweep))
    if entry.kind == "forest":
        return _forest([load_measured(place) for place in places], entry)
    folder = load_measured(places[0])
    folder.inputs["published.yaml"] = _digest([], entry)
    if entry.kind == "coverage":
        return _coverage(folder, entry)
    add_samples(folder)  # rollouts of the training log, samples of the ladder
    kept = {BASE, *(arm.name for arm in chosen_arms(folder, entry.options.get("arms")))}
    folder.arms = [arm for arm in folder.arms if arm.name in kept]
    draw = getattr(reproduce_figures, entry.kind)
    return Picture(folder.fingerprint, lambda: _styled(draw, folder))


def _styled(draw: Callable[[ReproduceFolder, Scores], Drawing], folder: ReproduceFolder) -> Drawing:
    with style():
        return draw(folder, Scores(folder))


def _forest(folders: list[ReproduceFolder], entry: Entry) -> Picture:
    titles = entry.options.get("titles") or [""] * len(folders)
    if len(titles) != len(folders):
        raise ConfigError(
            f"'titles' of the figure {entry.name!r} needs one heading per source, got {len(titles)} of {len(folders)}."
        )
    wanted: list[str] | None = entry.options.get("arms")
    known = {arm.name for folder in folders for arm in folder.arms}
    for name in wanted or ():
        if name not in known:
            raise unknown_name("arm", name, known)
    whole = ReproduceFolder(folders[0].path, folders[0].manifest)
    for i, folder in enumerate(folders):
        whole.inputs |= {f"{i}/{name}": digest for name, digest in folder.inputs.items()}
        whole.gaps += folder.gaps
    whole.inputs["published.yaml"] = _digest([], entry)
    groups = [
        (str(title), folder, [arm for arm in folder.arms if wanted is None or arm.name in wanted])
        for title, folder in zip(titles, folders, strict=True)
    ]
    return Picture(whole.fingerprint, lambda: draw_forest(groups, whole))


def _coverage(folder: ReproduceFolder, entry: Entry) -> Picture:
    given: dict[str, dict[Any, str]] | None = entry.options.get("methods")
    methods = (
        {str(name): {int(n): arm for n, arm in arms.items()} for name, arms in given.items()}
        if given
        else coverage_methods(folder)
    )
    for arms in methods.values():
        chosen_arms(folder, arms.values())
    return Picture(folder.fingerprint, lambda: draw_coverage(folder, methods))


def _digest(parts: list[str], entry: Entry) -> str:
    """Hash of the data's hashes and of the entry's options: another choice of arms is another picture."""
    text = json.dumps([parts, entry.kind, entry.options], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
