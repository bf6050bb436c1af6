"""Tables of a sweep: methods at equal retention, and every point with what it did to words it was not given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibrated_sd.errors import unknown_name
from calibrated_sd.reports.archived_samples import add_samples
from calibrated_sd.reports.folder import BASE, ReproduceFolder
from calibrated_sd.reports.published.arms_table import (
    contrast_text,
    label_of,
    of_base,
    partial_warning,
    seeds_line,
    seeds_text,
)
from calibrated_sd.reports.published.markdown import PublishedTable, counts_text, score_text
from calibrated_sd.reports.published.measured import load_measured
from calibrated_sd.reports.published.paired import contrast, density_ratio
from calibrated_sd.reports.scores import Score, Scores
from calibrated_sd.reports.sweep_folder import MatchedScore, Point, SweepFolder, load_sweep_folder
from calibrated_sd.reports.tables import number

KEPT = (0.8, 1.2)
"""Trained markers within ±20 % of the base model's count as kept."""
LOST = 0.7
"""Held-out markers are lost if the upper bound of their share of the base model's is below this."""


def held_out_ratio(point: Point, base: Point | None, scores: Scores) -> tuple[Score | None, bool]:
    """Held-out markers per 1k tokens over the base model's, and whether its interval is paired.

    From the samples in the archive where there is one; else the two densities divided, their bounds crosswise.
    """
    paired = density_ratio(scores, point.name, "held_out")
    if paired is not None:
        return paired, True
    return of_base(point.scores.get("held_out_per_1k"), base.scores.get("held_out_per_1k") if base else None), False


def is_gamed(retention: Score | None, held_out: Score | None) -> bool | None:
    """Whether trained markers are kept (value within ±20 %) and held-out ones lost (upper bound); None if not measured."""
    if retention is None or retention.value is None or held_out is None or held_out.hi is None:
        return None
    return KEPT[0] <= retention.value <= KEPT[1] and held_out.hi < LOST


def points_table(directory: Path, options: Mapping[str, Any]) -> PublishedTable:
    """Every point of a sweep: strength, OOD accuracy, retention, held-out markers over base, whether it is gamed.

    Args:
        directory: a sweep folder.
        options: ``against`` (an arm for a column of differences), ``series`` (names of curves, all by default).

    Raises:
        ConfigError: an unknown arm or curve.
        DataError: no sweep folder.
    """
    sweep, folder = load_sweep_folder(directory), load_measured(directory)
    scores = Scores(folder)
    against = options.get("against")
    names = {point.name for point in sweep.points}
    if against is not None and against not in names:
        raise unknown_name("arm under 'against'", against, names)
    wanted = list(options.get("series") or sweep.series)
    for name in wanted:
        if name not in sweep.series:
            raise unknown_name("curve under 'series'", name, sweep.series)
    points = [*sweep.landmarks, *(point for name in wanted for point in sweep.series[name])]
    add_samples(folder)
    rows, exact = [], True
    for point in points:
        held_out, paired = held_out_ratio(point, sweep.base, scores)
        exact = exact and paired
        gamed = is_gamed(point.scores.get("retention"), held_out) if point.name != BASE else None
        cells = [point.series or point.label, point.mark, score_text(point.scores.get("accuracy"), 2)]
        if against:
            cells.append(contrast_text(contrast(scores, point.name, against)))
        cells += [score_text(point.scores.get("retention"), 2), score_text(held_out, 2) if point.name != BASE else "1"]
        cells += ["" if point.name == BASE else "–" if gamed is None else "**gamed**" if gamed else "no"]
        rows.append((*cells, seeds_text(folder, point.name)))
    difference = (f"OOD − {label_of(folder, against)} ↑",) if against else ()
    notes = [
        f"Retention: markers per 1k tokens over the base model's. Gamed: retention within [{KEPT[0]:g}, {KEPT[1]:g}] and the upper "
        f"bound of held-out markers over base under {LOST:g}, whatever the accuracy.",
    ]
    if not exact:
        notes.append(
            "Bounds of held-out / base are those of the two densities divided crosswise: wider than a paired interval."
        )
    return PublishedTable(
        ("run", sweep.curve or "value", "OOD ↑", *difference, "retention ≈ 1", "held-out / base ≈ 1", "gamed", "seeds"),
        tuple(rows),
        f"{counts_text([point.scores.get('accuracy') for point in points], 'OOD questions')}; {seeds_line(folder)}; value "
        "[95 % interval] over questions and seeds.",
        _warning(sweep, folder, [point.name for point in points]),
        tuple(notes),
    )


def matched_table(directory: Path, options: Mapping[str, Any]) -> PublishedTable:
    """Methods × retention targets: accuracy, where along the curve, the difference from the first method.

    Args:
        directory: a sweep folder.
        options: ``targets`` (all by default).

    Raises:
        ConfigError: a target at which the sweep did not compare.
        DataError: no sweep folder.
    """
    sweep, folder = load_sweep_folder(directory), load_measured(directory)
    targets = list(options.get("targets") or sweep.targets)
    for target in targets:
        if target not in sweep.targets:
            raise unknown_name("target", f"{target}", [f"{known:g}" for known in sweep.targets])
    at = {(entry.series, entry.target): entry for entry in sweep.matched}
    apart = {(series, target): (against, score) for series, against, target, score in sweep.differences}
    first = next((against for against, _ in apart.values()), "")
    rows = []
    for name, points in sweep.series.items():
        best = max((p for p in points if p.has("accuracy")), key=lambda p: p.scores["accuracy"].value, default=None)
        cells = [name, *(_matched_text(at.get((name, target)), sweep.curve) for target in targets)]
        cells += [_apart_text(apart.get((name, target))) for target in targets if first]
        cells += [f"{best.mark}: {score_text(best.scores['accuracy'], 2)}" if best else "–"]
        held_out = best.scores.get("held_out_per_1k") if best else None
        rows.append((*cells, score_text(held_out, 1)))
    base = sweep.base.scores.get("held_out_per_1k") if sweep.base else None
    unreached = sum(not entry.reached for entry in sweep.matched if entry.target in targets)
    notes = [
        "OOD accuracy where a method keeps that share of the base model's markers per 1k tokens, on the line between neighbouring "
        "points of its curve. Nothing is extrapolated: 'not reached' gives the range of retention that was measured.",
        f"Best point: the highest OOD accuracy along the curve. Base model: held-out/1k {score_text(base, 1)}.",
    ]
    if unreached:
        notes.append(f"{unreached} of {len(sweep.series) * len(targets)} targets not reached.")
    shown = [entry.accuracy for entry in sweep.matched]
    return PublishedTable(
        (
            "method",
            *(f"retention {target:g}" for target in targets),
            *(f"− {first} at {target:g}" for target in targets if first),
            f"best {sweep.curve or 'point'}: OOD ↑",
            "held-out/1k there ≈",
        ),
        tuple(rows),
        f"{counts_text(shown, 'OOD questions')}; {seeds_line(folder)}; value [95 % interval] over questions and seeds.",
        _warning(sweep, folder, [point.name for point in sweep.points]),
        tuple(notes),
    )


def _matched_text(entry: MatchedScore | None, curve: str) -> str:
    if entry is None:
        return "–"
    if not entry.reached:
        return f"not reached ({number(entry.low, 2)}–{number(entry.high, 2)})"
    place = f" at {curve} {entry.strength.value:.2g}" if entry.strength.value is not None else ""
    return score_text(entry.accuracy, 2) + place


def _apart_text(found: tuple[str, Score] | None) -> str:
    return "–" if found is None else score_text(found[1], 2, signed=True)


def _warning(sweep: SweepFolder, folder: ReproduceFolder, arms: list[str]) -> str:
    words = [partial_warning(folder, arms)]
    words += [f"{len(sweep.results['failed'])} runs failed."] if sweep.results["failed"] else []
    missing = [arm.name for arm in folder.arms if arm.name not in {point.name for point in sweep.points}]
    words += [f"Not measured: {', '.join(missing)}."] if missing else []
    return " ".join(word for word in words if word)
