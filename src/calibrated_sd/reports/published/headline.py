"""The headline of a page: a sentence written by hand whose numbers must be those of the claims it rests on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from calibrated_sd.errors import unknown_name
from calibrated_sd.reports.published.claims_table import read_claims
from calibrated_sd.reports.published.listing import Headline
from calibrated_sd.reports.published.markdown import seeds_of
from calibrated_sd.reports.scores import finite

_NOT_PROSE = re.compile(r"`[^`]*`|\]\([^)]*\)|https?://\S+|<[^>]*>")
_NUMBER = re.compile(
    r"(?<![\w.:/])(?P<sign>[−+-]?)(?P<digits>\d+(?:,\d{3})*(?:\.(?P<decimals>\d+))?)(?![\w/])(?P<percent>\s?%)?"
)


def headline_problems(root: Path, headline: Headline, sentence: str) -> list[str]:
    """What is wrong with a headline; empty where every claim is shown and every number is one of its figures.

    A number may be a value or bound (rounded as it is written; of a share also in points), n, the number of training seeds,
    "95 %", or one of the listed settings. At least one figure of each claim must stand there with its interval.

    Args:
        root: the published folder.
        headline: what the listing says.
        sentence: the text between the markers.

    Raises:
        ConfigError: a claim that ``claims.json`` does not have.
        DataError: no ``claims.json``.
    """
    claims = read_claims(root / headline.source)
    problems = []
    figures: list[Mapping[str, Any]] = []
    written = list(_numbers(sentence))
    if not written:
        return ["the headline holds no number. Write a sentence with a figure of the claim and its interval."]
    for name in headline.claims:
        if name not in claims:
            raise unknown_name("claim under 'headline'", name, claims)
        claim = claims[name]
        if claim.get("verdict") != "shown":
            problems.append(f"claim {name} is {claim.get('verdict')!r}, not 'shown'")
        ours = [figure for figure in (claim.get("ours") or {}).values() if isinstance(figure, Mapping)]
        figures += ours
        if not any(all(_stands(written, figure, key) for key in ("value", "lo", "hi")) for figure in ours):
            problems.append(f"no figure of claim {name} stands there with its value and both bounds")
    for text, value, decimals, percent in written:
        if percent and value == 95:
            continue
        if not (_is_figure(value, decimals, text, figures) or value in _counts(figures) or value in headline.settings):
            problems.append(f"{text} is no figure of {', '.join(headline.claims)}")
    return problems


def _numbers(sentence: str) -> Iterable[tuple[str, float, int, bool]]:
    """(as written, value, decimals, whether in per cent) of every number that is prose: not in code, links or names."""
    for found in _NUMBER.finditer(_NOT_PROSE.sub(" ", sentence)):
        value = float(found["digits"].replace(",", ""))
        value = -value if found["sign"] in ("−", "-") else value
        yield f"{found['sign']}{found['digits']}", value, len(found["decimals"] or ""), bool(found["percent"])


def _equal(value: float, decimals: int, text: str, wanted: float | None) -> bool:
    """Whether a number as written is `wanted` rounded to its decimals; without a sign it may be the size of a negative one."""
    if wanted is None:
        return False
    rounded = float(f"{wanted:.{decimals}f}")
    return value == rounded or (text[0].isdigit() and value == abs(rounded))


def _meanings(figure: Mapping[str, Any], key: str) -> list[float]:
    value = finite(figure.get(key))
    if value is None:
        return []
    return [value, 100 * value] if figure.get("unit") == "share" else [value]


def _stands(written: list[tuple[str, float, int, bool]], figure: Mapping[str, Any], key: str) -> bool:
    return any(
        _equal(value, decimals, text, wanted)
        for wanted in _meanings(figure, key)
        for text, value, decimals, _ in written
    )


def _is_figure(value: float, decimals: int, text: str, figures: list[Mapping[str, Any]]) -> bool:
    wanted = (meaning for figure in figures for key in ("value", "lo", "hi") for meaning in _meanings(figure, key))
    return any(_equal(value, decimals, text, one) for one in wanted)


def _counts(figures: list[Mapping[str, Any]]) -> set[float]:
    counts = {float(figure["n"]) for figure in figures if figure.get("n")}
    return counts | {float(n) for n in seeds_of(str(figure.get("method")) for figure in figures)}
