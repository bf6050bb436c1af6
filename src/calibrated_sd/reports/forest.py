"""Forest plot: what training did to each arm's out-of-distribution accuracy, with intervals, for one folder or several."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import blended_transform_factory

from calibrated_sd.reports.canvas import (
    OKABE_ITO,
    Drawing,
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
from calibrated_sd.reports.folder import BASE, Arm, ReproduceFolder
from calibrated_sd.reports.scores import Score, Scores
from calibrated_sd.reports.tables import number

LEVEL = 0.025
"""An arm is level with the base model if its interval lies within ±2.5 points."""
KINDS = {
    "below": ("interval below 0", OKABE_ITO["vermillion"], "v"),
    "above": ("interval above 0", OKABE_ITO["blue"], "^"),
    "level": ("interval within ±0.025", "#222222", "s"),
    "open": ("not distinguished", OKABE_ITO["grey"], "o"),
}
"""Where an interval lies → words, colour, shape."""
_ROW = 0.27  # inches


def kind_of(score: Score) -> str:
    """Where the interval of a difference lies: ``below``, ``above``, ``level`` (within ±2.5 points) or ``open``.

    An interval that excludes 0 and stays within ±2.5 points is ``below`` or ``above``: a small difference is one.
    """
    if score.lo is None or score.hi is None:
        return "open"
    if score.hi < 0:
        return "below"
    if score.lo > 0:
        return "above"
    return "level" if score.lo >= -LEVEL and score.hi <= LEVEL else "open"


def draw_forest(groups: list[tuple[str, ReproduceFolder, list[Arm]]], whole: ReproduceFolder) -> Drawing:
    """OOD accuracy of each arm minus the base model's, paired by question, one row per arm.

    Args:
        groups: heading, folder and arms of each part, from top to bottom; arms without a difference are left out and
            counted below the figure.
        whole: what stands for all of them on the figure: its gaps and its fingerprint.
    """
    parts = []
    absent = 0
    for title, folder, arms in groups:
        scores = Scores(folder)
        found = [
            (arm, contrast.score) for arm in arms if arm.name != BASE and (contrast := scores.contrast(arm.name, BASE))
        ]
        absent += sum(arm.name != BASE for arm in arms) - len(found)
        parts.append((title, folder, found))
    shown = [score for _, _, found in parts for _, score in found]
    with style():
        height = 1.3 + _ROW * (len(shown) + sum(bool(title) for title, _, _ in parts))
        figure = canvas(9.5, max(2.6, height))
        axes = figure.subplots()
        told = _rows(axes, parts)
        if not shown:
            empty(axes, "no difference has been computed")
        axes.axvspan(-LEVEL, LEVEL, color="#eeeeee", zorder=0)
        axes.axvline(0, color="black", linewidth=1, zorder=1)
        axes.set_xlabel("OOD accuracy − base model's, paired by question")
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        present = {kind_of(score) for score in shown}
        handles = [
            Line2D(
                [], [], color=color, marker=shape, linestyle="none", markersize=7, markeredgecolor="white", label=words
            )
            for kind, (words, color, shape) in KINDS.items()
            if kind in present
        ]
        if handles:
            legend_below(figure, handles, len(handles))
        line = _conditions(parts, shown, absent)
        alt = "OOD accuracy minus the base model's. " + "; ".join(told or ["nothing measured"]) + "."
        return finish(figure, whole, "forest", "What training does to out-of-distribution accuracy", alt, line)


def _rows(axes: Axes, parts: list[tuple[str, ReproduceFolder, list[tuple[Arm, Score]]]]) -> list[str]:
    """Draw the rows from the top; returns what they say."""
    told, ticks, labels = [], [], []
    beside = blended_transform_factory(axes.transAxes, axes.transData)
    y = 0.0
    for title, _, found in parts:
        if title:
            axes.text(0, y, title, transform=beside, ha="left", va="center", fontweight="bold", fontsize=9.5)
            y -= 1
        for arm, score in found:
            _, color, shape = KINDS[kind_of(score)]
            error_bar(axes, y, score, color, vertical=False, zorder=3)
            axes.plot(score.value, y, shape, color=color, markersize=7, markeredgecolor="white", zorder=5)
            words = number(score.value, 2, signed=True)
            if score.has_interval:
                words += f" [{number(score.lo, 2)}, {number(score.hi, 2)}]"
            axes.text(1.01, y, words, transform=beside, ha="left", va="center", fontsize=8.5, color=color)
            ticks.append(y)
            labels.append(arm.label)
            told.append(f"{arm.label}: {words}")
            y -= 1
    axes.set_yticks(ticks, labels)
    axes.set_ylim(y + 0.3, 0.7)
    return told


def _conditions(
    parts: list[tuple[str, ReproduceFolder, list[tuple[Arm, Score]]]], shown: list[Score], absent: int
) -> str:
    seeds = sorted({len(folder.seeds) for _, folder, _ in parts})
    words = [f"grey band: ±{LEVEL:g}", f"n = {span(sorted({score.n for score in shown if score.n}))} questions"]
    words.append(counted(seeds[0], "training seed") if len(seeds) == 1 else f"{span(seeds)} training seeds")
    words.append(interval_in_words(shown))
    words += [f"{counted(absent, 'arm')} without a difference not drawn"] if absent else []
    words += dict.fromkeys(_made_by(folder) for _, folder, _ in parts)
    return " · ".join(words)


def _made_by(folder: ReproduceFolder) -> str:
    commit = str(folder.provenance.get("commit") or "")[:10]
    return folder.command + (f" @ {commit}" if commit else "")
