"""Coverage figure: accuracy in-domain and out of distribution against the number of problems trained on, per method."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from calibrated_sd.reports.canvas import (
    Drawing,
    Look,
    canvas,
    conditions,
    empty,
    error_bar,
    finish,
    legend_below,
    looks,
    seed_dots,
    style,
)
from calibrated_sd.reports.folder import BASE, ReproduceFolder, listed
from calibrated_sd.reports.scores import OOD, Score, Scores

PANELS = (
    ("train", "In-domain", "accuracy, trained problems"),
    (OOD, "Out of distribution", "accuracy, OOD suites pooled"),
)
Methods = dict[str, dict[int, str]]
"""Label of a method → number of problems → arm."""


def coverage_methods(folder: ReproduceFolder) -> Methods:
    """Arms that differ in nothing but the number of problems, by the manifest's plan; methods with at least two sizes.

    A reproduce recipe says ``coverage_of``; of a sweep's arms those with equal settings belong together. A method is
    labelled after the arm that is trained on as many problems as all other arms are, or on the fewest.
    """
    plan = folder.manifest.get("plan")
    plan = plan if isinstance(plan, Mapping) else {}
    usual = plan.get("n_train_problems")
    groups: dict[str, dict[int, str]] = {}
    for arm in listed(plan, "arms"):
        size = _size(arm) or usual
        if isinstance(size, int):
            alike = json.dumps([arm.get("trainer"), arm.get("steps")], sort_keys=True, default=str)
            key = str(arm.get("coverage_of") or (alike if usual is None else arm["name"]))
            groups.setdefault(key, {}).setdefault(size, str(arm["name"]))
    labels = {arm.name: arm.label for arm in folder.arms}
    found: Methods = {}
    for arms in groups.values():
        if len(arms) > 1:
            named = arms[usual] if usual in arms else arms[min(arms)]
            found[labels.get(named, named)] = dict(sorted(arms.items()))
    return found


def _size(arm: Mapping[str, Any]) -> int | None:
    """Problems an arm of a plan is trained on; None where it does not say so."""
    data = arm.get("data")
    value = data.get("n_problems") if isinstance(data, Mapping) else arm.get("n_train_problems")
    return value if isinstance(value, int) else None


def draw_coverage(folder: ReproduceFolder, methods: Methods) -> Drawing:
    """Accuracy against the number of trained problems (log scale), a line per method, 95 % intervals, single seeds as dots."""
    scores = Scores(folder)
    order = [arm.name for arm in folder.arms]
    first = {name: min(arms.values(), key=order.index) for name, arms in methods.items()}  # its look is the method's
    look = looks(replace(folder, arms=[arm for arm in folder.arms if arm.name in (BASE, *first.values())]))
    sizes = sorted({size for arms in methods.values() for size in arms})
    shown: list[Score] = []
    told: list[str] = []
    with style():
        figure = canvas(10, 4.4)
        handles = []
        for axes, (suite, title, label) in zip(figure.subplots(1, 2, sharey=True), PANELS, strict=True):
            axes.set(title=title, xlabel="problems trained on", ylabel=label)
            for i, (name, arms) in enumerate(methods.items()):
                shift = 2 ** (0.09 * (i - (len(methods) - 1) / 2))
                points = [
                    (n, s)
                    for n, arm in arms.items()
                    if (s := scores.get(arm, suite, "accuracy")) and s.value is not None
                ]
                mark = look[first[name]]
                _line(axes, points, mark, shift)
                shown += [score for _, score in points]
                if points:
                    told.append(f"{title}, {name}: " + ", ".join(f"{score.value:.2f} at {n}" for n, score in points))
                if suite == OOD:
                    handles.append(
                        Line2D(
                            [],
                            [],
                            color=mark.color,
                            marker=mark.shape,
                            markersize=7,
                            markeredgecolor="white",
                            label=name,
                        )
                    )
            base = scores.get(BASE, suite, "accuracy")
            if base is not None and base.value is not None:
                axes.axhline(base.value, color="black", linewidth=1, linestyle=":", zorder=1)
            if sizes:
                axes.set_xscale("log", base=2)
                axes.set_xticks(sizes, [str(size) for size in sizes])
                axes.xaxis.set_minor_locator(NullLocator())
            if not axes.has_data() or not shown:
                empty(axes, "no arm with another number of problems")
        figure.axes[0].set_ylim(0, 1.02)
        figure.axes[1].tick_params(labelleft=True)
        handles.append(
            Line2D(
                [], [], color="black", linewidth=1, linestyle=":", label="base model (in-domain: the usual problems)"
            )
        )
        legend_below(figure, handles, min(4, len(handles)))
        line = conditions(folder, scores, shown, what="marks: last evaluation")
        alt = "Accuracy against the number of problems trained on. " + "; ".join(told or ["nothing measured"]) + "."
        return finish(figure, folder, "coverage", "Accuracy and the number of problems trained on", alt, line)


def _line(axes: Axes, points: list[tuple[int, Score]], look: Look, shift: float) -> None:
    axes.plot(
        [n * shift for n, _ in points], [score.value for _, score in points], color=look.color, linewidth=1.5, zorder=3
    )
    for n, score in points:
        error_bar(axes, n * shift, score, look.color, zorder=3)
        seed_dots(axes, n * shift, score, look.color, 0.1 * n * shift)
        axes.plot(n * shift, score.value, look.shape, color=look.color, markersize=7, markeredgecolor="white", zorder=5)
