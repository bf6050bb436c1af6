"""The table of claims: what is claimed, the verdict, and the figures that decide it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibrated_sd.errors import ConfigError, DataError, unknown_name
from calibrated_sd.records import read_json
from calibrated_sd.reports.canvas import span
from calibrated_sd.reports.html import VERDICTS, measure
from calibrated_sd.reports.published.arms_table import partial_warning
from calibrated_sd.reports.published.markdown import PublishedTable, seeds_of
from calibrated_sd.reports.published.measured import load_measured

COMPARES = ("_minus_", "_over_", "ratio", "change", "gap", "slope", "delay")
"""Words in the name of a figure that compares; levels only explain a verdict."""
MOST_FIGURES = 3
REASONS = ("reason", "likely_reason")


def read_claims(directory: Path) -> dict[str, dict[str, Any]]:
    """The entries of ``claims.json`` by id.

    Raises:
        DataError: no such file, or one without claims.
    """
    content = read_json(directory / "claims.json")
    claims = content.get("claims") if isinstance(content, Mapping) else None
    if not isinstance(claims, list) or not all(isinstance(claim, Mapping) and "id" in claim for claim in claims):
        raise DataError(f"{directory / 'claims.json'} holds no list of claims. Give one that `csd reproduce` wrote.")
    return {str(claim["id"]): dict(claim) for claim in claims}


def claims_table(directory: Path, options: Mapping[str, Any]) -> PublishedTable:
    """One row per claim.

    Args:
        directory: a folder with ``claims.json``.
        options: ``claims`` (ids, all by default), ``keys`` (id → names of the figures to show; the comparisons by default).

    Raises:
        ConfigError: an unknown claim or figure.
        DataError: no ``claims.json``.
    """
    claims = read_claims(directory)
    wanted = options.get("claims") or list(claims)
    keys = options.get("keys") or {}
    for name in (*wanted, *keys):
        if name not in claims:
            raise unknown_name("claim", name, claims)
    rows, reasons = [], []
    for name in wanted:
        claim = claims[name]
        figures = key_figures(claim, keys.get(name))
        verdict = claim.get("verdict")
        if verdict not in VERDICTS:
            raise DataError(
                f"The verdict of {name} in {directory / 'claims.json'} is {verdict!r}; known: {', '.join(VERDICTS)}."
            )
        counts = sorted({int(figure["n"]) for figure in figures.values() if figure.get("n")})
        seeds = seeds_of(str(figure.get("method")) for figure in figures.values())
        told = "; ".join(_figure_text(key, figure) for key, figure in figures.items())
        rows.append((
            name, str(claim.get("statement", "")), f"**{verdict}**", told or "–", span(counts) if counts else "–",
            span(seeds) if seeds else "–", str(claim.get("criterion") or "–"),
        ))  # fmt: skip
        reason = next((claim[key] for key in REASONS if claim.get(key)), None)
        if reason and verdict != "shown":
            reasons.append(f"{name}, {verdict}: {str(reason).strip()}")
        for note in claim.get("notes") or ():
            figure, _, said = str(note).partition(": ")
            reasons.append(f"{name}, {measure(figure, None).name}: {said}")
    counted = [f"{sum(claims[name].get('verdict') == verdict for name in wanted)} {verdict}" for verdict in VERDICTS]
    return PublishedTable(
        ("claim", "statement", "verdict", "figures [95 % interval]", "n", "seeds", "criterion"),
        tuple(rows),
        f"{', '.join(counted)}. Verdicts are computed from the intervals by the criterion; n: questions (of C1 and C2: problems of "
        "the ladder), seeds: training seeds that the interval covers.",
        _warning(directory),
        tuple(reasons),
    )


def _warning(directory: Path) -> str:
    """Says that arms have fewer finished seeds than planned, where the folder holds what is needed to know."""
    if not (directory / "summary.csv").is_file():
        return ""
    folder = load_measured(directory)
    return partial_warning(folder, [arm.name for arm in folder.arms])


def key_figures(claim: Mapping[str, Any], names: Any = None) -> dict[str, dict[str, Any]]:
    """The figures of a claim that a row shows: those named, else those that compare, else the first ones.

    Raises:
        ConfigError: a figure that the claim does not have.
    """
    ours = claim.get("ours")
    figures = {k: v for k, v in ours.items() if isinstance(v, Mapping)} if isinstance(ours, Mapping) else {}
    if names is not None:
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            if name not in figures:
                raise (
                    unknown_name(f"figure of claim {claim['id']}", name, figures)
                    if figures
                    else ConfigError(
                        f"Claim {claim['id']} has no figures, so {name!r} cannot be shown. Remove it from 'keys'."
                    )
                )
        return {name: dict(figures[name]) for name in names}
    comparing = [name for name in figures if any(sign in name for sign in COMPARES)]
    return {name: dict(figures[name]) for name in (comparing or list(figures))[:MOST_FIGURES]}


def _figure_text(name: str, figure: Mapping[str, Any]) -> str:
    shown = measure(name, figure)
    return " ".join(part for part in (shown.name, shown.value, shown.interval, shown.unit) if part)
