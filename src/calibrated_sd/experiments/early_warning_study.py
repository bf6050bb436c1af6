"""What `csd monitor` writes: the early warning over the runs of whole output folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calibrated_sd.errors import DataError
from calibrated_sd.evaluation.question_tables import N_PAIRED
from calibrated_sd.experiments.early_warning import (
    FALSE_ALARM_BAR,
    HIT_RATE_BAR,
    Settings,
    assess,
    collect_cases,
    judge,
    run_rows,
)
from calibrated_sd.experiments.early_warning_fit import SECOND, fit, half_of
from calibrated_sd.experiments.provenance import provenance
from calibrated_sd.experiments.runner import runs_made_at
from calibrated_sd.experiments.watched_runs import COLLAPSE_SE, ONSET_DROP, read_study
from calibrated_sd.records import SCHEMA_VERSION


def early_warning(
    directories: Sequence[str | Path],
    settings: Settings | None = None,
    *,
    fitted: bool = False,
    command: str | None = None,
    n_resamples: int = N_PAIRED,
) -> dict[str, Any]:
    """Replay the monitor over every finished run below these folders.

    Args:
        directories: output folders of `csd reproduce` and `csd sweep`, with their runs or with their archive.
        settings: of the detector; with `fitted`, whose signals are fitted, and what the result is compared with.
        fitted: choose thresholds on the first half of the arms, and report the second half only.
        command: recorded in the provenance.
        n_resamples: of every bootstrap.

    Returns:
        The document described in ``docs/how-to/set_the_alarm.md``. `settings`, `summary` and `signals` are the result: all
        runs under the given settings or, fitted, the second half under the chosen ones.

    Raises:
        DataError: a folder without runs or without a base model; nothing to replay; nothing to fit.
        ConfigError: settings out of range; too many signals to fit.
    """
    given = settings or Settings()
    cases, left_out = collect_cases(map(read_study, directories), given.signals, n_resamples=n_resamples)
    if not cases:
        raise DataError(
            f"None of the runs in {', '.join(map(str, directories))} logs a signal that is watched, so there is nothing to "
            f"replay. Left out: {'; '.join(left_out)}."
        )
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": "early_warning",
        "folders": [str(directory) for directory in directories],
        "criterion": {
            "collapse_standard_errors": COLLAPSE_SE,
            "onset_drop": ONSET_DROP,
            "hit_rate_at_least": HIT_RATE_BAR,
            "false_alarm_rate_at_most": FALSE_ALARM_BAR,
        },
    }
    if fitted:
        found = fit(cases, given, n_resamples=n_resamples)
        used: Settings = found.pop("settings")
        document |= {"over": "second half of the arms", **found.pop("chosen"), "fit": found}
    else:
        used = given
        document |= {"over": "all runs", **assess(cases, given, n_resamples=n_resamples), "fit": None}
    rows = run_rows(cases, used)
    if fitted:
        for row, case in zip(rows, cases, strict=True):
            row["half"] = half_of(case.run.arm)
            row["default_alarm"] = judge(case, given)["alarm"]
        rows.sort(key=lambda row: row["half"] == SECOND)
    made_at = sorted({commit for directory in directories for commit in runs_made_at(Path(directory))})
    return {
        **document,
        "runs": rows,
        "left_out": left_out,
        "provenance": {**provenance(command=command), "runs_made_at": made_at},
    }
