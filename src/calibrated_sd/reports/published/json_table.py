"""A table of figures that stand in any JSON file: ``csd probe``, ``csd ladder``, ``csd evaluate``, a script of the docs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibrated_sd.errors import ConfigError, unknown_name
from calibrated_sd.records import read_json
from calibrated_sd.reports.canvas import span
from calibrated_sd.reports.html import measure
from calibrated_sd.reports.published.markdown import PublishedTable, counts_text, seeds_of
from calibrated_sd.reports.sweep_folder import score_of


def figures_table(file: Path, options: Mapping[str, Any]) -> PublishedTable:
    """One row per entry of a mapping in the file, one column per figure of the entry.

    Args:
        file: the JSON file.
        options: ``rows`` (dotted path to the mapping, e.g. ``levels``), ``columns`` (heading → dotted path below an entry;
            the path may lead to a figure or to a number or text), ``labels`` (key → name of the row; those given are the rows, in
            this order), ``first`` (heading of the first column).

    Raises:
        ConfigError: a path that leads nowhere, or options missing.
    """
    content = read_json(file)
    columns = options.get("columns")
    if not isinstance(columns, Mapping) or not columns or not isinstance(options.get("rows", ""), str):
        raise ConfigError(
            "A table of kind 'figures' needs 'columns' (heading: path) and 'rows' (path of a mapping). Add them."
        )
    entries = _at(content, str(options.get("rows") or ""), file)
    if not isinstance(entries, Mapping):
        raise ConfigError(f"{options.get('rows')!r} in {file} is no mapping of rows. Name one: {', '.join(content)}.")
    labels = options.get("labels") or {key: key for key in entries}
    rows, scores = [], []
    for key, label in labels.items():
        if key not in entries:
            raise unknown_name(f"row of {file}", key, entries)
        cells = []
        for heading, path in columns.items():
            found = _at(entries[key], str(path), None)
            cells.append(_text(found, heading))
            if isinstance(found, Mapping):
                scores.append(score_of(found))
        rows.append((str(label), *cells))
    for i, (heading, path) in enumerate(columns.items(), 1):
        if all(row[i] == "–" for row in rows):
            raise ConfigError(
                f"The path {path!r} of the column {heading!r} leads to nothing in any row of {file}. Correct it."
            )
    seeds = seeds_of(score.method for score in scores)
    over = f"; {span(seeds)} training seed{'' if seeds == [1] else 's'}" if seeds and seeds != [1] else ""
    return PublishedTable(
        (str(options.get("first", "")), *map(str, columns)),
        tuple(rows),
        f"{counts_text(scores, 'problems')}{over}; value [95 % interval].",
    )


def _at(content: Any, path: str, file: Path | None) -> Any:
    """What stands at a dotted path; None where it leads nowhere, an error if a file is named."""
    for key in path.split(".") if path else ():
        if not isinstance(content, Mapping) or key not in content:
            if file is not None:
                raise unknown_name(f"path in {file}", path, content if isinstance(content, Mapping) else ())
            return None
        content = content[key]
    return content


def _text(found: Any, heading: str) -> str:
    if found is None:
        return "–"
    if isinstance(found, (str, bool)):
        return str(found)
    if isinstance(found, int):
        return f"{found:,}"
    shown = measure(heading.replace("−", "_minus_"), found)
    return f"{shown.value} {shown.interval}".strip()
