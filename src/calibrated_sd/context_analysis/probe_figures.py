"""From the lines of a probe to figures: paired differences whose unit is the problem, and the contrasts that matter.

Within a problem the values of its markers are averaged; the interval comes from drawing problems again, the same ones on
both sides. Tokens are never drawn: the markers of one text share its prompt, and hundreds of them are not hundreds of
observations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from calibrated_sd.context_analysis.probe_plan import CONTROLS
from calibrated_sd.evaluation.statistics import (
    Figure,
    mean_interval,
    paired_difference,
    rate_per_1k_interval,
    ratio_interval,
)

NATS = "nats"
SOLUTION = "solution"
"""The level that the controls are set against: they show as much text, or the same words, without its content."""
Row = Mapping[str, Any]
Rows = Mapping[tuple[str, int], Row]
"""Lines of one level by (problem, text)."""


def probe_figures(rows: Iterable[Row]) -> dict[str, Any]:
    """All figures of a probe.

    Args:
        rows: the lines of ``probe.jsonl``.

    Returns:
        ``levels``: level → figures. On every level ``marker_mass_per_1k`` (expected markers per 1000 tokens of the text);
        beside `none` also, each as level minus none,

        * ``marker``: log-probability of a marker, the whole word;
        * ``neutral``: of the neutral words at the same places; ``marker_minus_neutral``;
        * ``held_out``: of held-out markers; ``other_tokens``: of every other token;
        * ``mass_ratio``, ``neutral_mass_ratio``: mass under the level over mass without context;
        * ``by_phrase``: ``marker`` for each phrase.

        ``base_density``: :func:`base_density`. ``contrasts``: control → ``marker`` and ``marker_minus_neutral`` under the right solution minus under
        that control, with the p-value of a sign-flip test. ``counts``: problems, texts, markers.
    """
    rows = list(rows)
    by_level: dict[str, dict[tuple[str, int], Row]] = {}
    for row in rows:
        by_level.setdefault(row["level"], {})[f"{row['suite']}/{row['problem_id']}", row["trace"]] = row
    free = by_level.get("none", {})
    levels = {
        level: _level_figures(found, free) if level != "none" else _mass_figures(found)
        for level, found in by_level.items()
    }
    contrasts = {
        control: _beyond(by_level[SOLUTION], by_level[control], free)
        for control in CONTROLS
        if SOLUTION in by_level and control in by_level
    }
    return {
        "base_density": base_density(rows),
        "levels": levels,
        "contrasts": contrasts,
        "counts": _counts(free),
    }


def base_density(rows: Iterable[Row]) -> Figure:
    """How often the model doubts by itself, per 1000 tokens without context.

    Of its own samples: the markers in them. Of built texts, whose doubt was put in: the marker mass along the worked
    solution without that doubt, because doubt breeds doubt. Of other texts: the marker mass along them.
    """
    free = {(f"{row['suite']}/{row['problem_id']}", row["trace"]): row for row in rows if row["level"] == "none"}
    samples = all(row["is_sample"] for row in free.values())
    plain = any("plain_tokens" in row for row in free.values())
    if samples:
        what, count, tokens = "markers in own samples", lambda row: len(row["markers"]), "tokens"
    elif plain:
        free = {key: row for key, row in free.items() if "plain_tokens" in row}
        what, count, tokens = (
            "expected markers along plain solutions",
            lambda row: row["plain_marker_mass"],
            "plain_tokens",
        )
    else:
        what, count, tokens = "expected markers along the texts", lambda row: row["marker_mass"], "tokens"
    return rate_per_1k_interval(
        _by_problem(free, count), _by_problem(free, lambda row: row[tokens]), unit=f"{what} per 1k tokens"
    )


def _mass_figures(found: Rows) -> dict[str, Any]:
    mass, tokens = _by_problem(found, lambda row: row["marker_mass"]), _by_problem(found, lambda row: row["tokens"])
    return {"marker_mass_per_1k": rate_per_1k_interval(mass, tokens, unit="expected markers per 1k tokens")}


def _level_figures(found: Rows, free: Rows) -> dict[str, Any]:
    found = {key: row for key, row in found.items() if key in free}
    here = {key: free[key] for key in found}
    phrases = sorted({slot["phrase"] for row in here.values() for slot in row["markers"]})
    return {
        **_mass_figures(found),
        "marker": _difference(_marker(found), _marker(here)),
        "neutral": _difference(_neutral(found), _neutral(here)),
        "marker_minus_neutral": _difference(_gap(found), _gap(here)),
        "held_out": _difference(_marker(found, "held_out"), _marker(here, "held_out")),
        "other_tokens": _difference(_other(found), _other(here)),
        "mass_ratio": _ratio(found, here, "marker_mass"),
        "neutral_mass_ratio": _ratio(found, here, "neutral_mass"),
        "by_phrase": {
            phrase: _difference(_marker(found, phrase=phrase), _marker(here, phrase=phrase)) for phrase in phrases
        },
    }


def _beyond(found: Rows, other: Rows, free: Rows) -> dict[str, Any]:
    """The right solution minus a control, on the texts that have both. What is without context cancels out."""
    keys = [key for key in found if key in other and key in free]
    a, b = {key: found[key] for key in keys}, {key: other[key] for key in keys}
    shown: dict[str, Any] = {}
    for name, pick in (("marker", _marker), ("marker_minus_neutral", _gap)):
        result = paired_difference(pick(a), pick(b), unit=NATS)
        shown[name] = {**result.figure, "p_value": result.p_value}
    return shown


def _by_problem(found: Rows, value: Callable[[Row], float]) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for (problem, _), row in found.items():
        values.setdefault(problem, []).append(value(row))
    return values


def _slots(found: Rows, pick: Callable[[Mapping[str, Any]], float | None], kind: str) -> dict[str, list[float]]:
    """One value per slot of each problem; problems without any are left out."""
    values: dict[str, list[float]] = {}
    for (problem, _), row in found.items():
        picked = [value for slot in row[kind] if (value := pick(slot)) is not None]
        if picked:
            values.setdefault(problem, []).extend(picked)
    return values


def _marker(found: Rows, kind: str = "markers", phrase: str | None = None) -> dict[str, list[float]]:
    return _slots(found, lambda slot: slot["logp"] if phrase in (None, slot["phrase"]) else None, kind)


def _neutral(found: Rows) -> dict[str, list[float]]:
    return _slots(found, lambda slot: slot["neutral_logp"], "markers")


def _gap(found: Rows) -> dict[str, list[float]]:
    """log p(marker) − mean log p(neutral word), at slots that have neutral words."""
    return _slots(
        found, lambda slot: None if slot["neutral_logp"] is None else slot["logp"] - slot["neutral_logp"], "markers"
    )


def _other(found: Rows) -> dict[str, list[float]]:
    sums = _by_problem({key: row for key, row in found.items() if row["other_tokens"]}, lambda row: row["other_logp"])
    counts = _by_problem(
        {key: row for key, row in found.items() if row["other_tokens"]}, lambda row: row["other_tokens"]
    )
    return {problem: [sum(sums[problem]) / sum(counts[problem])] for problem in sums}


def _difference(a: Mapping[str, Sequence[float]], b: Mapping[str, Sequence[float]]) -> Figure:
    return paired_difference(a, b, unit=NATS).figure


def _ratio(found: Rows, here: Rows, name: str) -> Figure:
    """Σ mass under the level / Σ mass without context; texts count by their length."""
    if any(row[name] is None for row in here.values()):
        return mean_interval({}, unit="ratio")
    sums = [
        {problem: [sum(values)] for problem, values in _by_problem(rows, lambda row: row[name]).items()}
        for rows in (found, here)
    ]
    return ratio_interval(*sums)


def _counts(free: Rows) -> dict[str, int]:
    slots = [slot for row in free.values() for slot in row["markers"]]
    return {
        "problems": len({problem for problem, _ in free}),
        "texts": len(free),
        "tokens": sum(row["tokens"] for row in free.values()),
        "markers": len(slots),
        "markers_with_neutral_words": sum(slot["neutral_logp"] is not None for slot in slots),
        "held_out": sum(len(row["held_out"]) for row in free.values()),
    }
