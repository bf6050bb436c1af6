"""`csd markers`: count expressions of doubt in any JSONL file of completions."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer

from calibrated_sd.cli.console import console
from calibrated_sd.errors import ConfigError, DataError

TEXT_KEYS = ("completion", "text", "response", "output")
"""Where the text is looked for, in this order, when --text-key is not given."""

MAX_UNITS = 2000
"""More resampling units than this are first pooled at random into this many: the interval hardly moves, its cost does."""


def markers_command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.jsonl", help="One JSON object per line.")],
    text_key: Annotated[
        str | None,
        typer.Option(
            help="Field that holds the text: a string, or a list of chat messages, of which the assistant's "
            f"count. Default: the first of {', '.join(TEXT_KEYS)} that exists."
        ),
    ] = None,
    prompt_key: Annotated[
        str | None,
        typer.Option(help="Field that holds the prompt; markers quoted from it are not counted (legacy counts all)."),
    ] = None,
    markers: Annotated[
        str | None, typer.Option(help="A marker set of your own (YAML file), counted beside the three that ship.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Count expressions of doubt in completions, per response and per 1000 tokens, with 95 % intervals.

    Three counts stand side by side: `legacy` (the ten substrings of arXiv:2603.24472, for comparison with the paper),
    `lexical` (the same idea with word boundaries and word senses) and `held_out` (doubt in other words, which no
    calibrator is ever given). Lengths are the rows' `n_tokens`, or words if any row lacks it. Intervals resample
    questions (`problem_id`), or rows if any row lacks it. Files of lm-eval (--log_samples) are read as they are.

    Examples:

      csd markers outputs/runs/base/seed_0/eval/step_0/completions.jsonl

      csd markers generations.jsonl --text-key answer --prompt-key question --markers my_markers.yaml --json
    """
    from calibrated_sd.markers import MARKER_SETS, MarkerSet

    sets = {name: MarkerSet.load(name) for name in MARKER_SETS}
    if markers is not None and markers not in sets:
        own = MarkerSet.load(markers)
        if own.name in sets:
            raise ConfigError(
                f"The marker set {markers} is named {own.name!r}, like one that ships with the package, so their counts "
                "could not be told apart. Give it another name."
            )
        sets[own.name] = own
    reports = [_report(path, sets, text_key, prompt_key) for path in files]
    if as_json:
        typer.echo(json.dumps({"files": reports}, indent=2, ensure_ascii=False))
    else:
        for report in reports:
            _show(report)


def _report(path: Path, sets: dict[str, Any], text_key: str | None, prompt_key: str | None) -> dict[str, Any]:
    """Counts and figures of one file."""
    from calibrated_sd.evaluation.lm_eval import is_lm_eval_row, read_lm_eval
    from calibrated_sd.markers import count_markers
    from calibrated_sd.records import read_jsonl

    rows = read_jsonl(path, check_version=False)
    if not rows:
        raise DataError(
            f"{path} holds no rows, so there is nothing to count. Give a file with one JSON object per line."
        )
    if text_key is None and is_lm_eval_row(rows[0]):  # one row per sample instead of one per document and filter
        rows = [{k: row[k] for k in ("completion", "problem_id")} for row in read_lm_eval(path)]
    key = text_key or next((k for k in TEXT_KEYS if k in rows[0]), None)
    if key is None:
        raise DataError(
            f"{path} has none of the fields {', '.join(TEXT_KEYS)}. Its first row has: {_names(rows[0])}. "
            "Name the field that holds the text with --text-key."
        )
    texts = [_text(row, key, path, i, assistant=True) for i, row in enumerate(rows, 1)]
    prompts = [
        _text(row, prompt_key, path, i, assistant=False) if prompt_key else None for i, row in enumerate(rows, 1)
    ]

    units, by = _units(rows)
    lengths, measure = _lengths(rows, texts)
    n_units = len(set(units))
    pooled = _pool(units)
    report: dict[str, Any] = {
        "file": str(path),
        "rows": len(rows),
        "text_key": key,
        "length_unit": measure,
        "length": sum(lengths),
        "resampled": by,
        by: n_units,
        "sets": {},
    }
    for name, marker_set in sets.items():
        counts = [count_markers(text, marker_set, prompt) for text, prompt in zip(texts, prompts, strict=True)]
        phrases: Counter[str] = Counter()
        for count in counts:
            phrases.update(count)
        kinds: Counter[str] = Counter()
        for phrase, n in phrases.items():
            kinds[marker_set.kinds[phrase]] += n
        totals = [sum(count.values()) for count in counts]
        word = "token" if measure == "n_tokens" else "word"
        report["sets"][name] = {
            "version": marker_set.version,
            "hash": marker_set.hash,
            "mode": marker_set.mode,
            "count": sum(totals),
            "per_response": _figure(totals, [1] * len(rows), pooled, n_units, by, "markers per response", 1.0),
            "per_1k": _figure(totals, lengths, pooled, n_units, by, f"markers per 1k {word}s", 1000.0),
            "by_kind": dict(kinds.most_common()) if any(kinds) else {},
            "by_phrase": dict(phrases.most_common()),
        }
    return report


def _names(row: dict[str, Any]) -> str:
    return ", ".join(map(str, row)) or "no fields at all"


def _text(row: dict[str, Any], key: str, path: Path, number: int, *, assistant: bool) -> str:
    """The text of a field: itself, or the joined contents of chat messages (only the assistant's if `assistant`)."""
    if key not in row:
        raise DataError(f"{path}, row {number}: there is no field {key!r}. The row has: {_names(row)}.")
    value = row[key]
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(message, dict) for message in value):
        if assistant and any(message.get("role") == "assistant" for message in value):
            value = [message for message in value if message.get("role") == "assistant"]
        parts = [part for message in value for part in _message_parts(message)]
        if all(isinstance(part, str) for part in parts):
            return "\n".join(parts)
    raise DataError(
        f"{path}, row {number}: the field {key!r} holds {type(value).__name__}, where a string or a list of chat messages "
        "is needed. Name another field with --text-key, or --prompt-key for the prompt."
    )


def _message_parts(message: dict[str, Any]) -> list[Any]:
    content = message.get("content")
    if isinstance(content, list):  # typed parts; those without text (images) have nothing to count
        content = [part["text"] for part in content if isinstance(part, dict) and "text" in part]
    return [
        *([message["reasoning_content"]] if message.get("reasoning_content") else []),
        *(content if isinstance(content, list) else [content] if content is not None else []),
    ]


def _units(rows: list[dict[str, Any]]) -> tuple[list[Any], str]:
    """What is resampled together: rows of one problem, or each row for itself unless every row names its problem.

    Ids are distinct within a suite only.
    """
    names = [row.get("problem_id") for row in rows]
    if all(isinstance(name, (str, int)) for name in names):
        return [f"{row.get('suite', '')}/{name}" for row, name in zip(rows, names, strict=True)], "questions"
    return list(range(len(rows))), "rows"


def _lengths(rows: list[dict[str, Any]], texts: list[str]) -> tuple[list[int], str]:
    """Tokens, if every row knows their number, else words: the two must not be mixed in one rate."""
    lengths = [row.get("n_tokens") for row in rows]
    if all(isinstance(n, int) and n >= 0 for n in lengths):
        return lengths, "n_tokens"  # type: ignore[return-value]
    return [len(text.split()) for text in texts], "whitespace-separated words"


def _pool(units: list[Any]) -> list[Any]:
    distinct = list(dict.fromkeys(units))
    if len(distinct) <= MAX_UNITS:
        return units
    import numpy as np

    places = np.random.default_rng(0).permutation(len(distinct)) % MAX_UNITS
    where = dict(zip(distinct, places.tolist(), strict=True))
    return [where[unit] for unit in units]


def _figure(
    counts: list[int], totals: list[int], pooled: list[Any], n_units: int, by: str, unit: str, scale: float
) -> dict[str, Any]:
    from calibrated_sd.evaluation.statistics import ratio_of_sums_interval

    above: dict[Any, list[int]] = defaultdict(list)
    below: dict[Any, list[int]] = defaultdict(list)
    for place, count, total in zip(pooled, counts, totals, strict=True):
        above[place].append(count)
        below[place].append(total)
    shown = ratio_of_sums_interval(above, below, unit=unit, scale=scale, rng=0)
    if n_units > 1 and not any(counts):  # resampling zeros gives zeros, which is no evidence of never
        return {**shown, "lo": None, "hi": None, "n": n_units, "method": f"none in {n_units} {by}: no interval"}
    method = str(shown["method"]).replace("paired ", "").replace("questions only, 1 seed", f"{by} only")
    if n_units > MAX_UNITS:
        method += f", pooled at random into {MAX_UNITS}"
    return {**shown, "n": n_units, "method": method}


def _show(report: dict[str, Any]) -> None:
    from rich.table import Table

    per = "1k tokens" if report["length_unit"] == "n_tokens" else "1k words"
    table = Table(title=report["file"], title_justify="left", title_style="bold")
    table.add_column("markers")
    for column in ("total", "per response", f"per {per}"):
        table.add_column(column, justify="right")
    for name, entry in report["sets"].items():
        table.add_row(name, str(entry["count"]), _interval(entry["per_response"]), _interval(entry["per_1k"]))
    console.print(table)
    for name, entry in report["sets"].items():
        if entry["by_phrase"]:
            shown = [f"{phrase} {n}" for phrase, n in list(entry["by_phrase"].items())[:10]]
            kinds = ", ".join(f"{kind} {n}" for kind, n in entry["by_kind"].items() if kind)
            console.print(f"{name}: {', '.join(shown)}" + (f"  ({kinds})" if kinds else ""), markup=False)
    unit = report["resampled"]
    sets = ", ".join(f"{name} v{entry['version']} {entry['hash']}" for name, entry in report["sets"].items())
    length = f"{report['length']} " + ("tokens (from n_tokens)" if report["length_unit"] == "n_tokens" else "words")
    console.print(
        f"{report['rows']} rows, {length}, text from {report['text_key']!r}. "
        f"Intervals: 95 % bootstrap over {report[unit]} {unit}. Marker sets: {sets}.",
        markup=False,
        highlight=False,
    )


def _interval(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "–"
    if figure["lo"] is None or figure["hi"] is None:
        return f"{figure['value']:.2f}"
    return f"{figure['value']:.2f} [{figure['lo']:.2f}, {figure['hi']:.2f}]"
