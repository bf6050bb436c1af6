"""A probe's figures as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from calibrated_sd.context_analysis.probe_plan import CONTROLS, HEDGED

_CHANGES = (("marker", "markers"), ("neutral", "neutral words"), ("marker_minus_neutral", "markers − neutral"))
_BESIDE = (("held_out", "held-out markers"), ("other_tokens", "other tokens"), ("mass_ratio", "marker mass, ratio"))


def level_tables(document: Mapping[str, Any]) -> list[Table]:
    """One row per level: changes of log-probability in nats against no context, and the ratio of marker masses."""
    levels = {level: figures for level, figures in document["levels"].items() if level != "none"}
    tables = []
    for title, columns in (
        (
            f"Change of log-probability by the context, nats (95 % over {document['counts']['problems']} problems)",
            _CHANGES,
        ),
        ("Beside it (* control)", _BESIDE),
    ):
        table = _table(title)
        table.add_column("context", no_wrap=True)
        for _, heading in columns:
            table.add_column(heading)
        for level, figures in levels.items():
            name = f"{level}*" if level in (*CONTROLS, HEDGED) else level
            table.add_row(name, *(interval_text(figures[key], signed=key != "mass_ratio") for key, _ in columns))
        tables.append(table)
    return tables if levels else []


def contrast_table(document: Mapping[str, Any]) -> Table | None:
    """One row per control: what the right solution does beyond it; None where that was not measured."""
    table = _table("Solution minus control, nats: below 0 where knowing the answer silences doubt")
    for heading in ("solution minus", "markers", "markers − neutral", "p (sign flips)"):
        table.add_column(heading)
    for control, figures in document["contrasts"].items():
        p_value = figures["marker_minus_neutral"]["p_value"]
        table.add_row(
            control,
            interval_text(figures["marker"]),
            interval_text(figures["marker_minus_neutral"]),
            "" if p_value is None else f"{p_value:.3g}",
        )
    return table if table.row_count else None


def interval_text(shown: Mapping[str, Any], signed: bool = True) -> str:
    """A figure in short: ``"+0.15 [+0.06, +0.23]"``."""
    number = "{:+.2f}".format if signed else "{:.2f}".format
    if shown["value"] is None:
        return "–"
    if shown["lo"] is None or shown["hi"] is None:
        return number(shown["value"])
    return f"{number(shown['value'])} [{number(shown['lo'])}, {number(shown['hi'])}]"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE, pad_edge=False, show_edge=False)
