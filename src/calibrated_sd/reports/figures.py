"""The four figures of a reproduce folder. Every interval is drawn, every seed is a dot, the conditions stand below.

Each function takes the folder and its scores and returns a :class:`~calibrated_sd.reports.canvas.Drawing`. A figure
whose data are missing says so inside its panels instead of failing.
"""

from __future__ import annotations

from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from calibrated_sd.reports.canvas import (
    PAPER,
    Drawing,
    Look,
    canvas,
    conditions,
    empty,
    error_bar,
    finish,
    handle,
    legend_below,
    looks,
    seed_dots,
    span,
    style,
)
from calibrated_sd.reports.folder import BASE, Arm, ReproduceFolder
from calibrated_sd.reports.scores import OOD, Score, Scores

CONTEXTS = {"none": "∅", "stripped": "s∖think", "regenerated": "ỹ", "solution": "s"}
"""Context level → the paper's notation, from poor to rich."""
PAPER_LADDER = {
    "accuracy": (0.30, 0.78, 0.95, 0.98),
    "length": (13054, 12036, 2808, 1873),
    "markers_per_response": (182.5, 159.8, 24.1, 8.8),
}
"""Table 1 of arXiv:2603.24472 (DeepSeek-R1-Distill-Qwen-7B), in the order of ``CONTEXTS``."""


def draw_all(folder: ReproduceFolder, scores: Scores) -> list[Drawing]:
    """All figures, in the order of the report."""
    with style():
        return [draw(folder, scores) for draw in (ladder, trajectory, ood_vs_markers, suites)]


def trajectory(folder: ReproduceFolder, scores: Scores) -> Drawing:
    """Markers per response (left) and OOD accuracy (right) over training steps, one colour per arm."""
    figure = canvas(10, 4.57)
    left, right = figure.subplots(1, 2)
    shown: list[Score] = []
    told: list[str] = []
    arms = [(arm, look) for arm, look in _arms(folder) if arm.name != BASE]
    steps = [step for arm, _ in arms for step in scores.steps(arm.name)]
    dodge = 0.012 * max(steps, default=1)
    for i, (arm, look) in enumerate(arms):
        shift = (i - (len(arms) - 1) / 2) * dodge
        for axes, metric in ((left, "markers_per_response"), (right, "accuracy")):
            points = scores.trajectory(arm.name, OOD, metric)
            shown += [score for _, score in points]
            _line(axes, points, look, shift, dodge)
            if len(points) > 1 and metric == "accuracy":
                told.append(f"{arm.label}: {points[0][1].value:.2f} → {points[-1][1].value:.2f}")
        rows = folder.training[folder.training["arm"] == arm.name]
        if "epistemic/per_response" in rows:
            rollouts = rows.groupby("step")["epistemic/per_response"].mean().dropna()
            left.plot(
                rollouts.index, rollouts, color=look.color, linewidth=1.0, linestyle=(0, (2, 1.5)), alpha=0.8, zorder=1
            )
    for axes, title, label in (
        (left, "Doubt while training", "markers per response"),
        (right, "Out-of-distribution accuracy while training", "accuracy, OOD suites pooled"),
    ):
        axes.set(title=title, xlabel="optimizer step", ylabel=label)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if not axes.has_data():
            empty(axes, "no trained arm has been evaluated")
    base = scores.get(BASE, OOD, "accuracy")
    if base is not None and base.value is not None and arms:
        right.axhline(base.value, color="black", linewidth=1, linestyle=":", zorder=1)
    note = Line2D(
        [], [], color="#555555", linewidth=1.0, linestyle=(0, (2, 1.5)), label="training rollouts (in-domain)"
    )
    reference = Line2D(
        [],
        [],
        color="black",
        linewidth=1,
        linestyle=":",
        marker="*",
        markersize=11,
        markeredgecolor="white",
        label="base model",
    )
    legend_below(figure, [*(handle(arm, look, line=True) for arm, look in arms), note, reference], 3)
    line = conditions(folder, scores, shown, what="marks: OOD suites pooled", every_step=True)
    alt = "OOD accuracy over training, first to last step. " + "; ".join(told or ["no trained arm"]) + "."
    title = "Markers and out-of-distribution accuracy through training"
    return finish(figure, folder, "trajectory", title, alt, line)


def ood_vs_markers(folder: ReproduceFolder, scores: Scores) -> Drawing:
    """OOD accuracy against markers per 1k tokens: one point per arm, both intervals, an arrow from the base model."""
    figure = canvas(9, 5.57)
    axes = figure.subplots()
    shown: list[Score] = []
    told, handles = [], []
    base = _pair(scores, BASE)
    for arm, look in _arms(folder):
        pair = _pair(scores, arm.name)
        if pair is None:
            continue
        x, y = pair
        shown += [x, y]
        told.append(f"{arm.label}: {y.value:.2f} at {x.value:.0f}")
        handles.append(handle(arm, look))
        if base is not None and arm.name != BASE:
            axes.annotate(
                "", (x.value, y.value), (base[0].value, base[1].value),
                arrowprops={"arrowstyle": "->", "color": look.color, "alpha": 0.45, "linewidth": 1.2, "shrinkA": 7, "shrinkB": 6},
            )  # fmt: skip
        error_bar(axes, x.value, y, look.color)
        error_bar(axes, y.value, x, look.color, vertical=False)
        both = sorted(x.by_seed.keys() & y.by_seed.keys())
        if len(both) > 1:
            axes.plot(
                [x.by_seed[s] for s in both],
                [y.by_seed[s] for s in both],
                ".",
                color=look.color,
                markersize=5,
                alpha=0.6,
            )
        size = 15 if arm.name == BASE else 9
        axes.plot(x.value, y.value, look.shape, color=look.color, markersize=size, markeredgecolor="white", zorder=5)
    if not told:
        empty(axes, "no evaluation has been written yet")
    axes.set(xlabel="markers per 1k tokens", ylabel="accuracy, OOD suites pooled")
    axes.set_title("Out-of-distribution accuracy against expressed doubt")
    axes.set_xlim(left=min(0, axes.get_xlim()[0]))
    if handles:
        legend_below(figure, handles, 3)
    line = conditions(folder, scores, shown, what="arrow: from the base model to the trained arm")
    alt = "OOD accuracy at markers per 1k tokens. " + "; ".join(told or ["nothing measured"]) + "."
    title = "Out-of-distribution accuracy against markers per 1k tokens"
    return finish(figure, folder, "ood_vs_markers", title, alt, line)


def ladder(folder: ReproduceFolder, scores: Scores) -> Drawing:
    """Accuracy, length and markers per response of the base model under each teacher context, beside the paper's."""
    figure = canvas(10, 4.29)
    panels = (("accuracy", "Accuracy", "share correct"), ("length", "Length", "tokens per response"),
              ("markers_per_response", "Markers", "markers per response"))  # fmt: skip
    shown: list[Score] = []
    told, symbols = [], list(CONTEXTS.values())
    for axes, (metric, title, label) in zip(figure.subplots(1, 3), panels, strict=True):
        axes.set(title=title, ylabel=label, xticks=range(len(CONTEXTS)), xlim=(-0.65, len(CONTEXTS) - 0.3))
        axes.set_xticklabels(CONTEXTS.values(), fontsize=11)
        axes.set_xlabel("what the model sees besides the problem")
        ours = {
            i: score
            for i, name in enumerate(CONTEXTS)
            if (score := scores.ladder(name, metric)) and score.value is not None
        }
        if not ours:
            empty(axes, "the ladder has not been run")
            continue
        shown += ours.values()
        told.append(f"{title}: " + ", ".join(f"{symbols[i]} {_short(score.value)}" for i, score in ours.items()))
        _ladder_panel(axes, metric, ours)
    handles = [
        Line2D([], [], color="#0072B2", marker="o", markersize=7, label="model organism, with 95 % interval"),
        Line2D([], [], color=PAPER, marker="D", markersize=6, markerfacecolor="white", linestyle="--",
               label="paper's 7B model; length and markers rescaled so that ∅ agrees"),
    ]  # fmt: skip
    legend_below(figure, handles, 2)
    questions = sorted({score.n for score in shown if score.n})
    frame = scores.ladder_samples
    samples = sorted(set(frame.groupby(["context", "suite", "problem_id"]).size().tolist())) if len(frame) else []
    counts = f"n = {span(questions)} questions × {span(samples)} samples per context"
    line = conditions(folder, scores, shown, what="base model, no training", counts=counts, seeds=False)
    alt = "Base model under ever richer context. " + "; ".join(told or ["not run"]) + "."
    title = "What richer context does to the untrained model"
    return finish(figure, folder, "ladder", title, alt, line)


def suites(folder: ReproduceFolder, scores: Scores) -> Drawing:
    """Accuracy by suite, arms side by side, with the base model's accuracy as a line through each group."""
    figure = canvas(10, 4.57)
    axes = figure.subplots()
    arms = _arms(folder)
    groups = [(suite.name, suite.label, suite.role) for suite in folder.suites]
    shown: list[Score] = []
    told: dict[str, list[str]] = {}
    width = 0.8 / max(1, len(arms))
    for g, (suite, _, _) in enumerate(groups):
        base = scores.get(BASE, suite, "accuracy")
        if base is not None and base.value is not None:
            axes.plot([g - 0.42, g + 0.42], [base.value] * 2, color="black", linewidth=1, linestyle=":", zorder=1)
        for i, (arm, look) in enumerate(arms):
            score = scores.get(arm.name, suite, "accuracy")
            if score is None or score.value is None:
                continue
            x = g + (i - (len(arms) - 1) / 2) * width
            shown.append(score)
            _point(axes, x, score, look, width * 0.3, large=arm.name == BASE)
            told.setdefault(arm.name, []).append(f"{score.value:.2f}")
        if g % 2 == 0:
            axes.axvspan(g - 0.5, g + 0.5, color="#f6f6f6", zorder=0)
    if not shown:
        empty(axes, "no evaluation has been written yet")
    axes.set(title="Accuracy by suite", ylabel="share correct", xticks=range(len(groups)), ylim=(0, 1.02))
    axes.set_xticklabels([f"{_role(role)}\n{label}" for _, label, role in groups])
    axes.set_xlim(-0.5, max(0.5, len(groups) - 0.5))
    axes.grid(visible=False, axis="x")
    reference = Line2D([], [], color="black", linewidth=1, linestyle=":", label="base model's level")
    legend_below(figure, [*(handle(arm, look) for arm, look in arms if arm.name in told), reference], 3)
    line = conditions(folder, scores, shown, what="marks: last evaluation")
    alt = f"Accuracy in the suites {', '.join(label for _, label, _ in groups)}. " + "; ".join(
        f"{arm.label}: {', '.join(told[arm.name])}" for arm, _ in arms if arm.name in told
    )
    return finish(figure, folder, "suites", "Accuracy by suite and arm", alt + ".", line)


def _arms(folder: ReproduceFolder) -> list[tuple[Arm, Look]]:
    look = looks(folder)
    return [(arm, look[arm.name]) for arm in folder.arms]


def _role(role: str) -> str:
    return {"train": "in-domain", "heldout": "held-out", "far": "far"}.get(role, role)


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    if 0.995 <= value < 1:
        return f"{value:.3f}"  # 1.00 would be read as "all"
    return f"{value:.2f}" if value < 1.5 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _pair(scores: Scores, arm: str) -> tuple[Score, Score] | None:
    x, y = scores.get(arm, OOD, "markers_per_1k"), scores.get(arm, OOD, "accuracy")
    return (x, y) if x and y and x.value is not None and y.value is not None else None


def _line(axes: Axes, points: list[tuple[int, Score]], look: Look, shift: float, dodge: float) -> None:
    if not points:
        return
    places = [step + (shift if step else 0) for step, _ in points]
    axes.plot(places, [score.value for _, score in points], color=look.color, zorder=3)
    for x, (step, score) in zip(places, points, strict=True):
        if step == 0:  # the base model, the same for every arm
            axes.plot(x, score.value, "*", color="black", markersize=12, markeredgecolor="white", zorder=6)
            error_bar(axes, x, score, "black", zorder=5)
        else:
            _point(axes, x, score, look, dodge * 0.45)


def _point(axes: Axes, x: float, score: Score, look: Look, aside: float, large: bool = False) -> None:
    error_bar(axes, x, score, look.color, zorder=3)
    seed_dots(axes, x, score, look.color, aside)
    size = 12 if large else 7
    axes.plot(x, score.value, look.shape, color=look.color, markersize=size, markeredgecolor="white", zorder=5)


def _ladder_panel(axes: Axes, metric: str, ours: dict[int, Score]) -> None:
    absolute = metric == "accuracy"  # a share has a scale of its own; tokens of two tokenizers have none in common
    first = ours.get(0)
    paper = PAPER_LADDER[metric]
    factor = 1.0 if absolute else (first.value / paper[0] if first is not None and first.value else None)
    if factor is not None:
        axes.plot(
            range(len(paper)),
            [value * factor for value in paper],
            "D--",
            color=PAPER,
            markerfacecolor="white",
            zorder=2,
        )
    axes.plot(list(ours), [score.value for score in ours.values()], "o-", color="#0072B2", markersize=7, zorder=4)
    for i, score in ours.items():
        error_bar(axes, i, score, "#0072B2", zorder=3)
        # On the side where the lines and the paper's point are not.
        place = (6, 4) if not absolute else (-7, 5) if score.value >= paper[i] else (7, -11)
        side = "right" if place[0] < 0 else "left"
        text = {"ha": side, "fontsize": 8.5, "color": "#0072B2", "zorder": 6}
        label = axes.annotate(_short(score.value), (i, score.value), place, textcoords="offset points", **text)
        label.set_path_effects([patheffects.withStroke(linewidth=2.5, foreground="white")])
    axes.set_ylim(0, 1.12 if absolute else axes.get_ylim()[1] * 1.1)
    if not absolute and first is not None and first.value:
        scale = first.value
        relative = axes.secondary_yaxis("right", functions=(lambda y: y / scale, lambda y: y * scale))
        relative.set_ylabel("relative to ∅", fontsize=9)
        relative.spines["right"].set_visible(True)
