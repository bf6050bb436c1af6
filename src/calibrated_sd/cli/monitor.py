"""`csd monitor`: would the monitor have warned, and how early? Over the logs of finished runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from calibrated_sd.cli.console import console, error_console, quiet_libraries
from calibrated_sd.errors import ConfigError, DataError, OutputError, shortened, unknown_name

KIND = "early_warning"


def monitor_command(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Outputs of csd reproduce and csd sweep.")],
    output: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Where the result goes.")] = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="Choose thresholds on one half of the arms, report them on the other.")
    ] = False,
    signals: Annotated[
        str | None,
        typer.Option(
            help='Changes to what is watched, as JSON or a JSON file: {"density": {"low": 0.6}, "entropy": null}.'
        ),
    ] = None,
    baseline: Annotated[
        int | None, typer.Option(help="Logs that make the baseline; by default as CollapseMonitor.")
    ] = None,
    smoothing: Annotated[float | None, typer.Option(help="Weight of the past, from 0 to below 1.")] = None,
    patience: Annotated[int | None, typer.Option(help="Logs in a row below the threshold.")] = None,
    if_exists: Annotated[
        str, typer.Option("--if-exists", help="What to do if the file is there: raise or overwrite.")
    ] = "raise",
) -> None:
    """Replay CollapseMonitor over finished runs: hits, false alarms and lead time, and which signal warns first.

    A run collapses if its last accuracy out of distribution is below the base model's by 3 standard errors, paired by
    question; the onset is the first evaluated step that is below by 10 points. --fit splits the arms by their names,
    chooses thresholds on the first half and reports the second half only, beside the defaults.

    Examples:

      csd monitor study/claims study/hybrids --fit --output early_warning.json

      csd monitor strength-out --signals '{"density": {"low": 0.7, "high": 0.9}, "length": null}' --patience 1
    """
    quiet_libraries()
    if output is not None:
        _check_file(output, if_exists)
    from calibrated_sd.experiments.early_warning import Settings
    from calibrated_sd.experiments.early_warning_study import early_warning
    from calibrated_sd.records import write_json
    from calibrated_sd.trainers.monitoring.collapse_detector import CollapseDetector, read_signals

    default = Settings(read_signals(_changes(signals)))
    settings = Settings(
        default.signals,
        default.baseline if baseline is None else baseline,
        default.smoothing if smoothing is None else smoothing,
        default.patience if patience is None else patience,
    )
    CollapseDetector(settings.signals, settings.baseline, settings.smoothing, settings.patience)  # refuses bad ones
    document = early_warning(folders, settings, fitted=fit)
    _show(document)
    if output is not None:
        write_json(output, document)
        console.print(f"result: {output}", markup=False, highlight=False)


def _changes(text: str | None) -> dict[str, Any] | None:
    """The mapping that --signals gives, as text or as the name of a file."""
    if text is None:
        return None
    from calibrated_sd.records import read_json

    try:
        changes = json.loads(text) if text.lstrip().startswith("{") else read_json(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"--signals is not valid JSON ({error}): {shortened(text, plain=True)}. Quote it as a whole for the shell."
        ) from error
    if not isinstance(changes, dict):
        raise ConfigError(f'--signals must be a JSON object, e.g. {{"density": {{"low": 0.6}}}}, got {text}.')
    return changes


def _check_file(path: Path, if_exists: str) -> None:
    """Refuse an output that is there before anything is computed; only our own file is replaced."""
    if if_exists not in ("raise", "overwrite"):
        raise unknown_name("if_exists", if_exists, ("raise", "overwrite"))
    if not path.exists():
        return
    if if_exists == "raise":
        raise OutputError(f"{path} exists. Nothing was changed. Give another file, or add --if-exists overwrite.")
    from calibrated_sd.records import read_object

    try:
        ours = path.is_file() and read_object(path).get("kind") == KIND
    except (DataError, AttributeError):
        ours = False
    if not ours:
        raise OutputError(f"{path} was not written by csd monitor, so it is not overwritten. Give another file.")


def _show(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    wide = console if console.is_terminal else Console(width=200)  # a pipe has no width: no cell is folded there
    fitted = document["fit"]
    n = document["summary"]
    title = f"early warning, {document['over']}: {n['n_runs']} runs of {n['n_arms']} arms, {n['n_collapsing']} collapse"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("watched", no_wrap=True)
    for heading in ("hits", "hit rate", "false alarms", "false-alarm rate", "lead, steps", "fires first in"):
        table.add_column(heading, justify="right")
    table.add_row("all, thresholds chosen" if fitted else "all", *_cells(n), "")
    if fitted:
        table.add_row("all, as given", *_cells(fitted["defaults"]["summary"]), "")
    for name, row in document["signals"].items():
        table.add_row(f"{name} of these, alone", *_cells(row), f"{row['first']} of {row['n_collapsing']}")
    for name, row in fitted["alone"].items() if fitted else ():
        table.add_row(f"{name} chosen alone", *_cells(row["summary"]), "")
    wide.print(table)
    if fitted:
        bars = document["criterion"]
        console.print(
            f"The warning {fitted['verdict']} (bar: hit rate at least {bars['hit_rate_at_least']:g}, false alarms at most "
            f"{bars['false_alarm_rate_at_most']:g}). Chosen on the other half: {_python(document['settings'])}",
            markup=False,
            highlight=False,
        )
        if fitted["not_fitted"]:
            console.print(
                f"Not logged in these runs, so left as given: {', '.join(fitted['not_fitted'])}.",
                markup=False,
                highlight=False,
            )
    for reason in document["left_out"]:
        error_console.print(f"left out: {reason}", markup=False, highlight=False)


def _cells(row: dict[str, Any]) -> list[str]:
    others = row["n_runs"] - row["n_collapsing"]
    return [
        f"{row['n_hits']} of {row['n_collapsing']}",
        _figure(row["hit_rate"], ".2f"),
        f"{row['n_false_alarms']} of {others}",
        _figure(row["false_alarm_rate"], ".2f"),
        _figure(row["lead"], ".1f"),
    ]


def _figure(shown: dict[str, Any], how: str) -> str:
    if shown["value"] is None:
        return "–"
    if shown["lo"] is None:
        return f"{shown['value']:{how}}"
    return f"{shown['value']:{how}} [{shown['lo']:{how}}, {shown['hi']:{how}}]"


def _python(settings: dict[str, Any]) -> str:
    """The settings as arguments of CollapseMonitor."""
    signals = {
        name: None if signal is None else {"low": signal["low"], "high": signal["high"]}
        for name, signal in settings["signals"].items()
    }
    rest = ", ".join(f"{key}={settings[key]!r}" for key in ("baseline", "smoothing", "patience"))
    return f"CollapseMonitor(trainer, signals={signals!r}, {rest})"
