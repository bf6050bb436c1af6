"""The figure of a sweep: accuracy against expressed doubt and against length, and methods at equal retention."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from calibrated_sd.reports.canvas import (
    OKABE_ITO,
    SHAPES,
    Drawing,
    Look,
    canvas,
    counted,
    empty,
    error_bar,
    finish,
    interval_in_words,
    legend_below,
    span,
    style,
)
from calibrated_sd.reports.folder import BASE
from calibrated_sd.reports.label_placement import place_labels
from calibrated_sd.reports.scores import Score
from calibrated_sd.reports.sweep_folder import Point, SweepFolder, pareto_front

COLORS = (
    *(OKABE_ITO[name] for name in ("green", "purple", "sky", "orange", "yellow")),
    *(
        "#332288",
        "#882255",
        "#117733",
        "#999933",
        "#44AA99",
        "#AA4499",
        "#661100",
        "#6699CC",
        "#AA7744",
        "#555555",
        "#0B775E",
    ),
)
"""One for each curve; blue and vermillion are the landmarks'."""
LANDMARKS = {
    BASE: Look("#000000", "*"),
    "sdpo": Look(OKABE_ITO["vermillion"], "X"),
    "policy_gradient": Look(OKABE_ITO["blue"], "P"),
}
PANELS = (
    ("markers_per_1k", "Accuracy and expressed doubt", "markers per 1k tokens"),
    ("length", "Accuracy and length", "mean tokens per response"),
)
SMALL, LARGE = 6.0, 10.5
"""Sizes of the marks at the two ends of a curve."""
MOST_LABELS = 36


def draw_pareto(folder: SweepFolder) -> Drawing:
    """Accuracy against markers per 1k tokens (left) and tokens (middle), accuracy at equal retention (right).

    Pooled out-of-distribution suites, 95 % intervals in both directions; marks grow along the curve and carry its
    values; the grey steps are the Pareto front.
    """
    with style():
        figure = canvas(14, 5.2)
        panels = figure.subplots(1, 3, width_ratios=(1.12, 1.12, 1))
        look = sweep_looks(folder)
        shown: list[Score] = []
        for axes, (metric, title, label) in zip(panels[:2], PANELS, strict=True):
            shown += _scatter(axes, folder, look, metric)
            axes.set(title=title, xlabel=label, ylabel="accuracy, OOD suites pooled")
        _matched(panels[2], folder, look)
        handles = _handles(folder, look)
        legend_below(figure, handles, min(5, len(handles)))
        _label_points(figure, panels[:2], folder)
        samples = (folder.manifest.get("plan") or {}).get("evaluation", {}).get("eval_samples", "?")
        seeds = _seeds(folder)
        questions = span(sorted({score.n for score in shown if score.n}))
        dots = ", small dots: single seeds" if any(len(score.by_seed) > 1 for score in shown) else ""
        commit = str(folder.provenance.get("commit") or "")[:10]
        line = " · ".join(
            [
                f"marks grow with {folder.curve} and carry its value{dots}; last step of each run",
                f"n = {questions} questions × {counted(samples, 'sample')}",
                seeds,
                interval_in_words(shown),
                folder.command + (f" @ {commit}" if commit and commit != "unknown" else ""),
            ]
        )
        return finish(figure, folder, "pareto", folder.title, _alt(folder), line)


def _seeds(folder: SweepFolder) -> str:
    """As `canvas.seeds_in_words`, of the runs that are drawn; the base model is not trained."""
    planned = counted(len(folder.manifest.get("seeds") or [0]), "training seed")
    fewest = min((point.n_seeds for point in folder.points if point.name != BASE), default=0)
    return f"{fewest} of {planned} finished in every arm" if str(fewest) != planned.split()[0] else planned


def sweep_looks(folder: SweepFolder) -> dict[str, Look]:
    """A look for every curve and every landmark, by name."""
    look = dict(LANDMARKS)
    others = [point.name for point in folder.landmarks if point.name not in look]
    look |= {name: Look("#666666", SHAPES[3 + i % 5]) for i, name in enumerate(others)}
    shapes = [shape for shape in SHAPES if shape not in ("P", "X")]
    same = {"plain SDPO": "sdpo", "policy gradient": "policy_gradient"}  # as curves, e.g. over the number of problems
    for i, name in enumerate(folder.series):
        color = look[same[name]].color if name in same else COLORS[i % len(COLORS)]
        look[name] = Look(
            color, shapes[(i + i // len(COLORS)) % len(shapes)]
        )  # the next round of colours: other shapes
    return look


def _size(points: list[Point], i: int) -> float:
    return SMALL if len(points) == 1 else SMALL + (LARGE - SMALL) * i / (len(points) - 1)


def _scatter(axes: Axes, folder: SweepFolder, look: dict[str, Look], metric: str) -> list[Score]:
    shown: list[Score] = []
    for name, points in folder.series.items():
        points = [point for point in points if point.has("accuracy", metric)]
        color, shape = look[name].color, look[name].shape
        xs, ys = ([p.scores[m].value for p in points] for m in (metric, "accuracy"))
        axes.plot(xs, ys, "-", color=color, linewidth=1.3, alpha=0.6, zorder=3)
        start = folder.start_of(name)
        if start is not None and points and start.has("accuracy", metric):
            ends = [start, points[0]]
            axes.plot(*([p.scores[m].value for p in ends] for m in (metric, "accuracy")), ":", color=color, linewidth=1.3, alpha=0.7, zorder=3)  # fmt: skip
        for i, point in enumerate(points):
            shown += _mark(axes, point, metric, color, shape, _size(points, i))
    for point in folder.landmarks:
        if point.has("accuracy", metric):
            mark = look[point.name]
            shown += _mark(axes, point, metric, mark.color, mark.shape, 14 if mark.shape == "*" else 9.5)
    if not shown:
        empty(axes, "no evaluation has been written yet")
        return shown
    front = pareto_front([(p.scores[metric].value, p.scores["accuracy"].value) for p in folder.points if p.has("accuracy", metric)])  # fmt: skip
    axes.margins(0.08)
    right = axes.get_xlim()[1]
    steps = [*front, (right, front[-1][1])]
    axes.step([x for x, _ in steps], [y for _, y in steps], where="post", color="#9a9a9a", linewidth=4, alpha=0.35, zorder=1)  # fmt: skip
    axes.set_xlim(right=right)
    return shown


def _mark(axes: Axes, point: Point, metric: str, color: str, shape: str, size: float) -> list[Score]:
    x, y = point.scores[metric], point.scores["accuracy"]
    error_bar(axes, x.value, y, color, alpha=0.45, zorder=2)
    error_bar(axes, y.value, x, color, vertical=False, alpha=0.45, zorder=2)
    seeds = sorted(x.by_seed.keys() & y.by_seed.keys())
    if len(seeds) > 1:
        places = [[score.by_seed[seed] for seed in seeds] for score in (x, y)]
        axes.plot(*places, ".", color=color, markersize=4, alpha=0.6, markeredgewidth=0, zorder=4)
    axes.plot(x.value, y.value, shape, color=color, markersize=size, markeredgecolor="white", zorder=5)
    return [x, y]


def _label_points(figure: Figure, panels: Any, folder: SweepFolder) -> None:
    """The value of the swept field beside every mark of a curve, once the panels have their final size."""
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    crowded = sum(point.series is not None for point in folder.points) > MOST_LABELS  # then only the ends of curves
    for axes, (metric, _, _) in zip(panels, PANELS, strict=True):
        texts, places, radii, strokes, colors = [], [], [], [], []
        others = []
        look = sweep_looks(folder)
        to_pixels = axes.transData.transform
        for point in folder.points:
            if not point.has("accuracy", metric):
                continue
            x, y = point.scores[metric], point.scores["accuracy"]
            strokes += _along(to_pixels, [(x.lo, y.value), (x.hi, y.value)]) + _along(to_pixels, [(x.value, y.lo), (x.value, y.hi)])  # fmt: skip
            if point.series is None:
                others.append((*to_pixels((x.value, y.value)), 6 * scale))
        for name, points in folder.series.items():
            points = [point for point in points if point.has("accuracy", metric)]
            strokes += _along(to_pixels, [(p.scores[metric].value, p.scores["accuracy"].value) for p in points])
            for i, point in enumerate(points):
                if crowded and 0 < i < len(points) - 1:
                    continue
                texts.append(point.mark)
                places.append(tuple(to_pixels((point.scores[metric].value, point.scores["accuracy"].value))))
                radii.append(_size(points, i) / 2 * scale)
                colors.append(look[name].color)
        sizes = [(0.62 * 8 * scale * len(text), 8.5 * scale) for text in texts]
        box = axes.get_window_extent()
        frame = (box.x0, box.y0, box.x1, box.y1)
        centres = place_labels(places, sizes, radii, frame, strokes, others)
        back = axes.transData.inverted().transform
        for text, centre, color in zip(texts, centres, colors, strict=True):
            label = axes.text(*back(centre), text, ha="center", va="center", fontsize=8, color=color, zorder=7)
            label.set_path_effects([patheffects.withStroke(linewidth=2.2, foreground="white")])


def _along(to_pixels: Any, ends: list[tuple[Any, Any]], step: float = 4.0) -> list[tuple[float, float]]:
    """Places every few pixels along a line; none where an end is missing."""
    if any(value is None for end in ends for value in end) or len(ends) < 2:
        return []
    corners = np.array([to_pixels(end) for end in ends])
    found: list[tuple[float, float]] = []
    for a, b in itertools.pairwise(corners):
        count = max(2, int(np.hypot(*(b - a)) / step))
        found += [tuple(place) for place in np.linspace(a, b, count)]
    return found


def _matched(axes: Axes, folder: SweepFolder, look: dict[str, Look]) -> None:
    """Accuracy where each method keeps the same share of the base model's doubt; a cross where it never does."""
    targets, names = folder.targets, list(folder.series)
    axes.set(title="Accuracy at equal retention", xlabel="markers per 1k tokens, share of the base model's",
             ylabel="accuracy, OOD suites pooled")  # fmt: skip
    if not targets:
        empty(axes, "no retention to compare at")
        return
    width = 0.7 / max(1, len(names))
    missing = []
    for entry in folder.matched:
        place = targets.index(entry.target) + (names.index(entry.series) - (len(names) - 1) / 2) * width
        mark = look[entry.series]
        if not entry.reached:
            missing.append((place, mark.color))
            continue
        error_bar(axes, place, entry.accuracy, mark.color, zorder=3)
        axes.plot(place, entry.accuracy.value, mark.shape, color=mark.color, markersize=8, markeredgecolor="white", zorder=5)  # fmt: skip
    axes.set(xticks=range(len(targets)), xlim=(-0.6, len(targets) - 0.4))
    axes.set_xticklabels([f"{target:g}" for target in targets])
    axes.grid(visible=False, axis="x")
    for i in range(0, len(targets), 2):
        axes.axvspan(i - 0.5, i + 0.5, color="#f6f6f6", zorder=0)
    if folder.base is not None and folder.base.has("accuracy"):
        axes.axhline(folder.base.scores["accuracy"].value, color="black", linewidth=1, linestyle=":", zorder=1)
    if not any(entry.reached for entry in folder.matched):
        axes.set_ylim(0, 1)
    low, high = axes.get_ylim()
    floor = low - 0.07 * (high - low)
    axes.set_ylim(floor, high)
    for place, color in missing:
        axes.plot(place, floor + 0.04 * (high - low), "x", color=color, markersize=6, markeredgewidth=1.6, zorder=5)


def _handles(folder: SweepFolder, look: dict[str, Look]) -> list[Line2D]:
    entries = []
    for name in folder.series:
        entries.append(Line2D([], [], color=look[name].color, marker=look[name].shape, linewidth=1.3, markersize=7.5,
                              markeredgecolor="white", label=name))  # fmt: skip
    for point in folder.landmarks:
        mark = look[point.name]
        entries.append(Line2D([], [], color=mark.color, marker=mark.shape, linestyle="none", markeredgecolor="white",
                              markersize=13 if mark.shape == "*" else 9, label=point.label))  # fmt: skip
    entries.append(Line2D([], [], color="#9a9a9a", linewidth=4, alpha=0.35, label="Pareto front"))
    if any(not entry.reached for entry in folder.matched):
        entries.append(Line2D([], [], color="#666666", marker="x", linestyle="none", markeredgewidth=1.6,
                              label="retention not reached"))  # fmt: skip
    if folder.matched:
        entries.append(Line2D([], [], color="black", linewidth=1, linestyle=":", label="base model's accuracy"))
    return entries


def _alt(folder: SweepFolder) -> str:
    told = []
    for point in folder.points:
        if point.has("accuracy", "markers_per_1k"):
            told.append(
                f"{point.label}: {point.scores['accuracy'].value:.2f} at {point.scores['markers_per_1k'].value:.0f}"
            )
    for entry in folder.matched:
        value = f"{entry.accuracy.value:.2f}" if entry.reached else "not reached"
        told.append(f"{entry.series} at retention {entry.target:g}: {value}")
    return "OOD accuracy at markers per 1k tokens. " + "; ".join(told or ["nothing measured"]) + "."
