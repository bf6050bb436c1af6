"""How numbers are written in tables and on the page: one rounding for a value and its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calibrated_sd.reports.scores import Score, finite

MINUS = "−"
NOTHING = "–"


def number(value: float | None, digits: int, *, signed: bool = False) -> str:
    """``0.77``, ``−0.56``, with a plus sign if ``signed``; a dash where there is no number."""
    if value is None:
        return NOTHING
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.replace("-", "").replace("+", "")
    return text.replace("-", MINUS)


def interval(score: Score, digits: int, *, signed: bool = False) -> str:
    """``[0.73, 0.81]``; empty where there is no interval."""
    if not score.has_interval:
        return ""
    return f"[{number(score.lo, digits, signed=signed)}, {number(score.hi, digits, signed=signed)}]"


def with_interval(score: Score | None, digits: int, *, signed: bool = False) -> str:
    """``0.77 [0.73, 0.81]``."""
    if score is None or score.value is None:
        return NOTHING
    return f"{number(score.value, digits, signed=signed)} {interval(score, digits, signed=signed)}".strip()


def p_value(p: float | None) -> str:
    """``p < 0.001``, ``p = 0.007``, ``p = 0.39``; empty where there is none."""
    if p is None:
        return ""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def digits_for(*values: float | None) -> int:
    """Decimals that show about two significant digits of the largest value."""
    largest = max((abs(value) for value in values if value is not None), default=1.0)
    return 3 if largest < 0.095 else 2 if largest < 9.5 else 1 if largest < 950 else 0


def figure_in_words(figure: Mapping[str, Any]) -> str:
    """A figure of ``claims.json``: value and interval, with a sign where the interval could reach below zero."""
    value, lo, hi = (finite(figure.get(key)) for key in ("value", "lo", "hi"))
    if value is None:
        return NOTHING
    score = Score(value, lo, hi)
    return with_interval(score, digits_for(value, lo, hi), signed=min(value, value if lo is None else lo) < 0)


def duration(seconds: Any) -> str:
    """``38 s``, ``8 min 27 s``, ``1 h 5 min``."""
    value = finite(seconds)
    if value is None:
        return NOTHING
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
