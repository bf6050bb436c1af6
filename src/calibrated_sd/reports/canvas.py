"""What all figures share: colours and shapes of arms, the conditions line, drawing to PNG bytes."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from calibrated_sd.reports.folder import BASE, Arm, ReproduceFolder
from calibrated_sd.reports.scores import Score, Scores

OKABE_ITO = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "orange": "#E69F00",
    "yellow": "#B9A900",  # darker than the original: it has to be seen on white
    "green": "#009E73",
    "sky": "#56B4E9",
    "purple": "#CC79A7",
    "grey": "#7F7F7F",
}
"""The Okabe-Ito palette; black is the base model's."""
FAMILIES = {
    "policy gradient": ("blue", "grey"),
    "plain distillation": ("vermillion", "orange", "yellow", "grey"),
    "calibrated": ("green", "sky", "purple", "grey"),
}
"""Kind of arm → its colours in the order in which they are given out: warm ones for plain self-distillation."""
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
WARNING = "#B03A00"
PAPER = "#8A8A8A"
DATA_KEY = "calibrated-sd-data"
"""Key of the PNG's text under which the hash of the data stands."""
_CAPTION, _HEAD = 0.46, 0.18  # inches kept free at the foot and at the top
_LEGEND_ROW = 0.21  # inches


@dataclass(frozen=True)
class Drawing:
    """A finished figure.

    Attributes:
        name: file name without suffix.
        title: what it shows, in words.
        alt: the same for readers who cannot see it, with the main numbers.
        conditions: n, seeds, interval method and the command; also drawn under the figure.
        png: the image.
        width, height: its size in pixels.
    """

    name: str
    title: str
    alt: str
    conditions: str
    png: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Look:
    """Colour and marker shape of an arm: both differ, so that neither alone has to carry the meaning."""

    color: str
    shape: str


def looks(folder: ReproduceFolder) -> dict[str, Look]:
    """A look for every arm. A ``color_key`` may be a palette name or ``#rrggbb``; equal other keys share a colour."""
    given: dict[str, str] = {}
    free = {family: iter(colors * 9) for family, colors in FAMILIES.items()}
    result = {BASE: Look("#000000", "*")}
    for i, arm in enumerate(arm for arm in folder.arms if arm.name != BASE):
        key = str(arm.color_key or arm.name)
        if re.fullmatch(r"#[0-9a-fA-F]{6}", key):
            given[key] = key
        elif key not in given:
            given[key] = OKABE_ITO[key if key in OKABE_ITO else next(free[_family(arm)], "grey")]
        result[arm.name] = Look(given[key], SHAPES[i % len(SHAPES)])
    return result


def _family(arm: Arm) -> str:
    if arm.distillation_weight == 0:
        return "policy gradient"
    return "calibrated" if arm.calibration_method and arm.calibration_strength != 0 else "plain distillation"


@contextmanager
def style() -> Iterator[None]:
    """The package's matplotlib style, for the duration of a block."""
    with as_file(files("calibrated_sd.reports") / "style.mplstyle") as path, matplotlib.rc_context(fname=path):
        yield


def canvas(width: float, height: float) -> Figure:
    """An empty figure (inches) that leaves room for the conditions line at its foot."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    _reserve_foot(figure, _CAPTION)
    return figure


def _reserve_foot(figure: Figure, foot: float) -> None:
    """Keep the panels out of the lowest `foot` inches."""
    height = figure.get_size_inches()[1]
    rect = (0, foot / height, 1, 1 - (foot + _HEAD) / height)
    figure.get_layout_engine().set(rect=rect, w_pad=0.08, h_pad=0.05, wspace=0.03)


def legend_below(figure: Figure, handles: list[Line2D], columns: int) -> None:
    """A legend between the panels and the conditions line; the figure grows by as many rows as it takes.

    Long labels get fewer columns, so that none is cut at the figure's edge.
    """
    width, height = figure.get_size_inches()
    while columns > 1:
        trial = figure.legend(handles=handles, ncols=columns, borderpad=0)
        fits = trial.get_window_extent().width <= figure.bbox.width
        trial.remove()
        if fits:
            break
        columns -= 1
    room = _LEGEND_ROW * math.ceil(len(handles) / columns)
    figure.set_size_inches(width, height + room)
    _reserve_foot(figure, _CAPTION + room)
    place = (0.5, _CAPTION / (height + room))
    figure.legend(
        handles=handles, loc="lower center", bbox_to_anchor=place, ncols=columns, borderpad=0, borderaxespad=0
    )


def finish(figure: Figure, folder: ReproduceFolder, name: str, title: str, alt: str, conditions: str) -> Drawing:
    """Write the conditions line, mark smoke and partial runs, and render."""
    width, height = figure.get_size_inches()
    mark = standing(folder)
    if mark:
        figure.text(0.995, 1 - 0.05 / height, mark, ha="right", va="top", fontsize=9, fontweight="bold", color=WARNING)
    room = int(width * 17.5)
    lines = textwrap.wrap(conditions, room)
    if len(lines) > 2:
        lines = [lines[0], textwrap.shorten(" ".join(lines[1:]), room, placeholder=" …")]
    foot = {"ha": "left", "va": "bottom", "fontsize": 7.5, "color": "#555555", "linespacing": 1.35}
    figure.text(0.012, 0.06 / height, "\n".join(lines), **foot)
    buffer = io.BytesIO()
    # No version of the library: equal data, equal bytes. The data's hash says later whether the picture is theirs.
    figure.savefig(buffer, format="png", metadata={"Software": None, DATA_KEY: folder.fingerprint})
    pixels = [round(side * figure.dpi) for side in (width, height)]
    return Drawing(name, title, alt, conditions, buffer.getvalue(), *pixels)


def drawn_from(png: Path) -> str | None:
    """The hash of the data a figure was drawn from; None where the file is absent, no image, or says nothing."""
    try:
        with Image.open(png) as image:
            found = image.info.get(DATA_KEY)
    except OSError:
        return None
    return str(found) if found else None


def standing(folder: ReproduceFolder) -> str:
    """A warning for runs that must not be mistaken for results; empty for complete ones."""
    words = []
    if folder.is_smoke:
        words.append("SMOKE RUN (quick profile)")
    if folder.gaps:
        words.append("PARTIAL")
    return " · ".join(words)


def counted(number: int, noun: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def seeds_in_words(folder: ReproduceFolder) -> str:
    """``3 training seeds``; ``1 of 3 training seeds finished in every arm`` where some are missing."""
    planned = {run.seed for run in folder.runs} | set(folder.seeds)
    finished = planned - {run.seed for run in folder.runs if run.status != "ok"}
    if not folder.runs or finished == planned:
        return counted(len(planned), "training seed")
    return f"{len(finished)} of {counted(len(planned), 'training seed')} finished in every arm"


def span(numbers: list[int]) -> str:
    """``96`` or ``32–96``; a question mark where nothing is known."""
    if not numbers:
        return "?"
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}–{numbers[-1]}"


def conditions(
    folder: ReproduceFolder,
    scores: Scores,
    shown: list[Score],
    *,
    what: str,
    counts: str | None = None,
    seeds: bool = True,
    every_step: bool = False,
) -> str:
    """The line under a figure: what is drawn, n, seeds, interval and command.

    Args:
        folder, scores: where the numbers come from.
        shown: the scores drawn, for n and the interval's method.
        what: the meaning of the marks; that of the small dots is added where there are any.
        counts: n in words; questions of the shown scores × samples of the last evaluations by default.
        seeds: whether training seeds matter for this figure.
        every_step: whether evaluations during training are drawn too.
    """
    if counts is None:
        _, samples = scores.design(every_step=every_step)
        questions = sorted({score.n for score in shown if score.n})
        counts = f"n = {span(questions)} questions × {span(samples)} {'sample' if samples == [1] else 'samples'}"
    if any(len(score.by_seed) > 1 for score in shown):
        what += ", small dots: single seeds"
    parts = [what, counts]
    if seeds:
        parts.append(seeds_in_words(folder))
    parts.append(interval_in_words(shown))
    commit = str(folder.provenance.get("commit") or "")[:10]
    parts.append(f"{folder.command}" + (f" @ {commit}" if commit else ""))
    return " · ".join(part for part in parts if part)


def interval_in_words(shown: list[Score]) -> str:
    """The interval methods of the shown scores, shortened: ``95 % bootstrap intervals over questions and 3 seeds``."""
    covers = sorted({match[1] for score in shown if (match := re.search(r"covers ([^;]+)", score.method))})
    if not covers:
        return "95 % intervals" if any(score.has_interval for score in shown) else "no intervals"
    with_seeds = [scope for scope in covers if not scope.endswith("1 seed")]
    if not with_seeds:
        return "95 % bootstrap intervals over questions"
    rest = " (base: questions)" if len(with_seeds) < len(covers) else ""
    return f"95 % bootstrap intervals over {' / '.join(with_seeds)}{rest}"


def error_bar(axes: Axes, x: float, score: Score, color: str, *, vertical: bool = True, **options: Any) -> None:
    """The 95 % interval of a score as a bar; nothing where there is none."""
    if score.value is None or score.lo is None or score.hi is None:
        return
    reach = [[max(0.0, score.value - score.lo)], [max(0.0, score.hi - score.value)]]
    place, bar = ((x, score.value), {"yerr": reach}) if vertical else ((score.value, x), {"xerr": reach})
    axes.errorbar(*place, **bar, fmt="none", ecolor=color, elinewidth=1.4, capsize=2.5, capthick=1.2, **options)


def empty(axes: Axes, text: str) -> None:
    """Say inside a panel why nothing is drawn."""
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#777777", fontsize=10, wrap=True
    )


def seed_dots(axes: Axes, x: float, score: Score, color: str, shift: float) -> None:
    """Every seed as a small dot beside its arm's mark; nothing where there is one seed."""
    values = list(score.by_seed.values())
    if len(values) > 1:
        axes.plot(
            [x + shift] * len(values), values, "o", color=color, markersize=2.8, alpha=0.75, markeredgewidth=0, zorder=4
        )


def handle(arm: Arm, look: Look, line: bool = False) -> Line2D:
    """A legend entry of an arm."""
    size = 12 if look.shape == "*" else 7
    style = "-" if line else "none"
    return Line2D(
        [],
        [],
        color=look.color,
        marker=look.shape,
        linestyle=style,
        markersize=size,
        markeredgecolor="white",
        label=arm.label,
    )
