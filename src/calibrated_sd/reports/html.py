"""The report page: one HTML file, images inline, no script, nothing loaded from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import PackageLoader, StrictUndefined, Template
from jinja2.sandbox import SandboxedEnvironment

from calibrated_sd.reports.canvas import Drawing, standing
from calibrated_sd.reports.folder import BASE, ReproduceFolder
from calibrated_sd.reports.highlight import SHADES, color_limit, example_problems, traces
from calibrated_sd.reports.scores import OOD, Score, Scores, finite
from calibrated_sd.reports.tables import PLAIN_ARM, SummaryTable, number

VERDICTS = ("shown", "not shown", "contradicted", "not run")


@dataclass(frozen=True)
class Measure:
    """A figure of a claim, in words."""

    name: str
    value: str
    interval: str
    unit: str
    n: str
    method: str


@dataclass(frozen=True)
class Card:
    """A claim with its verdict."""

    id: str
    statement: str
    verdict: str
    paper: str
    criterion: str
    command: str
    main: tuple[Measure, ...]
    rest: tuple[Measure, ...]


@dataclass(frozen=True)
class Tile:
    """An arm's OOD accuracy and markers, large, at the top of the page."""

    label: str
    role: str
    accuracy: str
    accuracy_interval: str
    markers: str
    markers_interval: str


def page_template(name: str) -> Template:
    """A template of the package. Whatever is put into it is escaped, and a missing value is an error."""
    environment = SandboxedEnvironment(
        loader=PackageLoader("calibrated_sd.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def render_page(folder: ReproduceFolder, scores: Scores, table: SummaryTable, drawings: list[Drawing]) -> str:
    """The page as text. Equal inputs give equal bytes: no time of rendering is written."""
    cards = claim_cards(folder)
    limit = color_limit(folder.traces)
    return page_template("report.html.j2").render(
        folder=folder,
        warning=standing(folder),
        tiles=tiles(folder, scores),
        cards=[card for card in cards if card.verdict != "not run"],
        not_run=[card for card in cards if card.verdict == "not run"],
        verdict_counts=[(verdict, sum(card.verdict == verdict for card in cards)) for verdict in VERDICTS],
        table=table,
        figures=[(drawing, base64.b64encode(drawing.png).decode("ascii")) for drawing in drawings],
        problems=example_problems(folder),
        traces=traces(folder, limit),
        limit=limit,
        shades=range(1, SHADES + 1),
        provenance=list(flat(folder.provenance)),
    )


def claim_cards(folder: ReproduceFolder) -> list[Card]:
    """The entries of ``claims.json``. An unknown verdict counts as not run: a page must not invent one."""
    cards = []
    for claim in folder.claims:
        verdict = str(claim.get("verdict"))
        paper = claim.get("paper")
        ours = claim.get("ours")
        measures = [measure(name, figure) for name, figure in ours.items()] if isinstance(ours, Mapping) else []
        # Comparisons decide; levels only explain them.
        measures.sort(key=lambda m: not any(sign in m.name for sign in (" − ", " / ", "ratio", "change", "gap")))
        cards.append(
            Card(
                id=str(claim.get("id", "")),
                statement=str(claim.get("statement", "")),
                verdict=verdict if verdict in VERDICTS else "not run",
                paper=str(paper.get("text", "")) if isinstance(paper, Mapping) else str(paper or ""),
                criterion=str(claim.get("criterion") or ""),
                command=str(claim.get("command") or ""),
                main=tuple(measures[:4]),
                rest=tuple(measures[4:]),
            )
        )
    return cards


def measure(name: str, figure: Any) -> Measure:
    """A figure ``{value, lo, hi, n, unit, method}`` in words; "–" where it has no value."""
    figure = figure if isinstance(figure, Mapping) else {"value": figure}
    value, lo, hi = (finite(figure.get(key)) for key in ("value", "lo", "hi"))
    words = name.replace("_minus_", " − ").replace("_over_", " / ").replace("_", " ")
    words = words.replace("ood ", "OOD ").replace("sdpo", "SDPO")
    sizes = [abs(x) for x in (value, lo, hi) if x is not None]
    digits = 2 if not sizes or max(sizes) < 10 else 1 if max(sizes) < 100 else 0
    unit = str(figure.get("unit") or "")
    return Measure(
        name=words,
        value="–" if value is None else number(value, digits, signed=" − " in words),
        interval="" if lo is None or hi is None else f"[{number(lo, digits)}, {number(hi, digits)}]",
        unit="" if unit in ("share", "ratio") else unit,
        n=str(figure.get("n") or ""),
        method=str(figure.get("method") or ""),
    )


def tiles(folder: ReproduceFolder, scores: Scores) -> list[Tile]:
    """Base, plain SDPO and the arm named as best before the run, if they have been measured."""
    roles = {BASE: "before training", PLAIN_ARM: "plain self-distillation"}
    best = folder.manifest.get("best")
    if isinstance(best, str):
        roles[best] = "calibrated, named before the run"
    labels = {arm.name: arm.label for arm in folder.arms}
    found = []
    for arm, role in roles.items():
        accuracy, markers = scores.get(arm, OOD, "accuracy"), scores.get(arm, OOD, "markers_per_1k")
        if arm in labels and accuracy and accuracy.value is not None:
            found.append(Tile(labels[arm], role, *_words(accuracy, 2), *_words(markers, 0)))
    return found


def _words(score: Score | None, digits: int) -> tuple[str, str]:
    if score is None or score.value is None:
        return "–", ""
    if score.lo is None or score.hi is None:
        return number(score.value, digits), ""
    return number(score.value, digits), f"[{number(score.lo, digits)}, {number(score.hi, digits)}]"


def flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(name, value) rows of nested dicts, for a two-column table."""
    for key, value in data.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}: ")
        elif isinstance(value, (list, tuple)):
            yield name, ", ".join(map(str, value))
        else:
            yield name, "unknown" if value is None else str(value)
