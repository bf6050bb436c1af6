"""The table of the early warning, from the JSON that ``csd monitor --output`` writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibrated_sd.errors import DataError
from calibrated_sd.records import read_json
from calibrated_sd.reports.published.markdown import PublishedTable, score_text
from calibrated_sd.reports.sweep_folder import score_of
from calibrated_sd.reports.tables import MISSING

RATES = (
    ("hit_rate", "hit rate ↑", 2),
    ("false_alarm_rate", "false alarms ↓", 2),
    ("in_time", "hits before the onset ↑", 2),
)
LEADS = (("lead", "lead, steps ↑", 1), ("lead_from_last_good", "lead on the last good evaluation, steps", 1))


def early_warning_table(file: Path, options: Mapping[str, Any]) -> PublishedTable:
    """All signals together, each alone and, where thresholds were chosen, the defaults beside them.

    Args:
        file: the JSON of `csd monitor`.
        options: none.

    Raises:
        DataError: another kind of file.
    """
    content = read_json(file)
    if not isinstance(content, Mapping) or content.get("kind") != "early_warning":
        raise DataError(f"{file} was not written by `csd monitor --output`. Name a file that was.")
    fit = content.get("fit") or {}
    rows = [_row("all signals" + (", chosen thresholds" if fit else ""), content["summary"], None)]
    if fit:
        rows.append(_row("all signals, default thresholds", fit["defaults"]["summary"], None))
    rows += [_row(f"{name} alone", summary, summary.get("first")) for name, summary in content["signals"].items()]
    summary = content["summary"]
    criterion = content["criterion"]
    notes = [
        "A run collapses if its last OOD accuracy is below the base model's by "
        f"{criterion['collapse_standard_errors']:g} standard errors, paired by question; its onset is the first evaluated step at "
        f"least {100 * criterion['onset_drop']:g} points below. Lead: onset minus first alarm, over hits with an onset.",
    ]
    if fit:
        notes.append(
            f"Thresholds were chosen on the first half of the arms ({fit['halves']['first']['n_runs']} runs) and are reported on the "
            f"second half alone: the warning **{fit['verdict']}** (hit rate at least {criterion['hit_rate_at_least']:g}, false alarms at most "
            f"{criterion['false_alarm_rate_at_most']:g})."
        )
    if content["left_out"]:
        notes.append(f"{len(content['left_out'])} runs left out; the file says why.")
    return PublishedTable(
        ("signals", *(heading for _, heading, _ in (*RATES, *LEADS)), "fires first, of the hits"),
        tuple(rows),
        f"{summary['n_runs']} runs of {summary['n_arms']} arms ({content['over']}), {summary['n_collapsing']} of them collapse; value [95 % "
        "interval]: rates by Wilson over runs (seeds of an arm are alike), leads by bootstrap over arms.",
        notes=tuple(notes),
    )


def _row(name: str, summary: Mapping[str, Any], first: int | None) -> tuple[str, ...]:
    cells = []
    for key, _, digits in (*RATES, *LEADS):
        figure = summary.get(key)
        text = score_text(score_of(figure), digits) if isinstance(figure, Mapping) else MISSING
        if key in ("hit_rate", "false_alarm_rate") and text != MISSING:
            text += f" of {figure['n']}"
        cells.append(text)
    return (name, *cells, MISSING if first is None else f"{first} of {summary['n_hits']}")
