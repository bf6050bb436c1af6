"""From the runs of a sweep to ``results.csv`` (tidy) and ``results.json`` (what plots and page show). No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from calibrated_sd.errors import DataError
from calibrated_sd.experiments.archive import run_states, stored_runs
from calibrated_sd.experiments.collect import OOD, RunData, evaluations, summarise_run
from calibrated_sd.experiments.grid import point_text
from calibrated_sd.experiments.matching import Cells, Levels, difference, match, resample, retention_figure
from calibrated_sd.experiments.runner import OK, runs_made_at, status_of
from calibrated_sd.experiments.sweep import RUNS, apart, suites_of, sweep_jobs
from calibrated_sd.experiments.sweep_plan import BASE, Sweep
from calibrated_sd.records import figure, read_object, write_json
from calibrated_sd.records.files import write_bytes

FIGURES = ("value", "lo", "hi", "n", "unit", "method")
TESTS = ("p_value", "p_holm")
"""Of the differences alone; Holm-corrected over all arms of the sweep that are compared with the same one."""
POINT_METRICS = ("accuracy", "markers_per_1k", "length", "markers_per_response", "held_out_per_1k", "truncated_share")
"""Metrics of the pooled out-of-distribution suites that every point carries in ``results.json``."""


def write_sweep_results(directory: Path, sweep: Sweep, old: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write both files from the finished runs of this sweep; returns the content of ``results.json``.

    Args:
        directory: the folder.
        sweep: what it holds.
        old: its ``results.json`` if nothing has been run since; provenance, and failures whose folders are gone, are
            taken from it.

    Raises:
        DataError: the base model or every arm is missing.
    """
    data = load_sweep_runs(directory, sweep)
    summary = summarise_run(data)
    levels = ood_levels(data)
    retention = {name: retention_figure(level, levels[BASE]) for name, level in levels.items()}
    table = tidy_results(summary, sweep, retention, data)
    write_bytes(directory / "results.csv", table.to_csv(index=False).encode())
    matched, differences = matched_rows(sweep, levels)
    failed = failed_runs(directory, sweep)
    names = {(run["arm"], run["seed"]) for run in failed}
    failed += [run for run in (old or {}).get("failed", []) if (run["arm"], run["seed"]) not in names]
    names = {(run["arm"], run["seed"]) for run in failed}
    if old is None:
        block = read_object(directory / "manifest.json", "provenance")["provenance"]
        block = {**block, "runs_made_at": runs_made_at(directory)}
    else:
        block = old["provenance"]
    results = {
        "schema_version": 1,
        "kind": "sweep_results",
        "arms": _points(sweep, data, summary, retention),
        "starts": {name: getattr(sweep.start_of(name), "name", None) for name in sweep.series},
        "matched": matched,
        "differences": differences,
        "failed": failed,
        "unfinished": [
            f"{job.recipe['arm']}/seed_{job.recipe['seed']}"
            for job in sweep_jobs(sweep, directory)
            if status_of(job.folder) != OK and (job.recipe["arm"], job.recipe["seed"]) not in names
        ],
        "other_runs": _other_runs(directory, sweep),
        "provenance": block,
    }
    write_json(directory / "results.json", results)
    return results


def load_sweep_runs(directory: Path, sweep: Sweep) -> RunData:
    """All evaluations of the finished runs that belong to this sweep.

    Raises:
        DataError: the base model has not been evaluated, or no other run has finished.
    """
    runs = stored_runs(directory)
    planned = [job.folder.relative_to(directory / RUNS).as_posix() for job in sweep_jobs(sweep, directory)]
    records, words = evaluations(runs[name] for name in planned if name in runs and runs[name].status == OK)
    arms = {record["arm"] for record in records}
    if BASE not in arms or len(arms) == 1:
        what = "base model's evaluation" if BASE not in arms else "trained arms"
        raise DataError(
            f"{directory} lacks the {what}, without which a sweep shows nothing. Look below {directory / 'failed'} for "
            "errors, and run the same command with --if-exists resume."
        )
    ood = tuple(suite["name"] for suite in suites_of(sweep) if suite["role"] != "train")
    calibrated = tuple(arm.name for arm in sweep.arms if arm.trainer.get("calibration_strength"))
    return RunData(directory, ood, records, [], calibrated, words=words)


def ood_levels(data: RunData) -> dict[str, Levels]:
    """Resampled accuracy and density of every arm at its last step, on the questions that all arms answered."""
    tables: dict[str, dict[str, pd.DataFrame]] = {}
    for arm in data.arms:
        frame = data.final(arm)
        frame = frame.assign(question=[f"{s}/{p}" for s, p in zip(frame.suite, frame.problem_id, strict=True)])
        grouped = frame.groupby(["seed", "question"])
        tables[arm] = {name: grouped[name].mean().unstack("question") for name in ("correct", "lexical", "n_tokens")}
    shared = sorted(set.intersection(*(set(t["correct"].dropna(axis=1).columns) for t in tables.values())))
    if not shared:
        raise DataError("The arms share no graded out-of-distribution question, so they cannot be compared.")
    return resample(
        {
            arm: Cells(*(np.asarray(t[name][shared], dtype=float) for name in ("correct", "lexical", "n_tokens")))
            for arm, t in tables.items()
        }
    )


def matched_rows(sweep: Sweep, levels: Mapping[str, Levels]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every series at every retention target, and its difference from the first series there."""
    rows: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    base = levels[BASE]
    if not base.density:
        return rows, differences
    curves = {name: [arm for arm in arms if arm.name in levels] for name, arms in sweep.series.items()}
    for target in sweep.targets:
        found = []
        for name, arms in curves.items():
            if not arms:
                continue
            start = sweep.start_of(name)
            points, places = [levels[arm.name] for arm in arms], [arm.point for arm in arms]
            if start is not None and start.name in levels:
                points, places = [levels[start.name], *points], [0.0, *places]
            found.append(match(name, points, places, base, target))
        rows += [
            {
                "series": m.series,
                "target": m.target,
                "reached": m.reached,
                "accuracy": m.accuracy,
                "strength": m.strength,
                "share_of_resamples": round(m.share, 4),
                "retention_range": [round(m.low, 4), round(m.high, 4)],
            }
            for m in found
        ]
        differences += [
            {"series": m.series, "against": found[0].series, "target": target, "accuracy": difference(m, found[0])}
            for m in found[1:]
        ]
    return rows, differences


def tidy_results(
    summary: pd.DataFrame, sweep: Sweep, retention: Mapping[str, Mapping[str, Any]], data: RunData
) -> pd.DataFrame:
    """``results.csv``: ``arm``, every swept field, then ``seed, suite, step, metric, value, lo, hi, n, unit, method, p_value, p_holm``.

    Landmarks have the values of their own settings; the base model, which is not trained, has none.
    """
    extra = pd.DataFrame(
        [
            {"arm": arm, "seed": "all", "suite": OOD, "step": data.final_step(arm), "metric": "retention", **shown}
            for arm, shown in retention.items()
        ]
    )
    rows = pd.concat([summary, extra], ignore_index=True)
    arms = {arm.name: arm for arm in sweep.arms}
    for field in sweep.fields:
        values = {}
        for name, arm in arms.items():
            given = {**sweep.defaults, **arm.trainer, **arm.data, "max_steps": arm.steps, **arm.swept}
            values[name] = given.get(field)
        rows[field] = rows["arm"].map(values)
    columns = ["arm", *sweep.fields, "seed", "suite", "step", "metric", *FIGURES, *TESTS]
    order = {name: i for i, name in enumerate([BASE, *arms])}
    rows = rows.assign(_order=rows["arm"].map(order)).sort_values("_order", kind="stable")
    return rows.reindex(columns=columns)


def failed_runs(directory: Path, sweep: Sweep) -> list[dict[str, Any]]:
    """Arm, seed, error and folder of every run that was put apart."""
    rows = []
    for job in sweep_jobs(sweep, directory):
        folder = apart(directory, job)
        if (folder / "run.json").is_file() and status_of(job.folder) != OK:
            error = str(read_object(folder / "run.json").get("error") or "no error was recorded")
            where = folder.relative_to(directory).as_posix()
            rows.append({"arm": job.recipe["arm"], "seed": job.recipe["seed"], "error": error, "folder": where})
    return rows


def _other_runs(directory: Path, sweep: Sweep) -> list[str]:
    """Runs that are in no arm of this sweep file (it was changed since); they are left out of the results."""
    planned = {job.folder.relative_to(directory / RUNS).as_posix() for job in sweep_jobs(sweep, directory)}
    return sorted(set(run_states(directory)) - planned)


def _points(
    sweep: Sweep, data: RunData, summary: pd.DataFrame, retention: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One entry for the base model and each arm with results: where it stands, and its figures."""
    frame = summary[(summary.suite == OOD) & summary.metric.isin(POINT_METRICS)]
    entries: list[dict[str, Any]] = []
    plans: list[tuple[str, dict[str, Any]]] = [
        (BASE, {"label": "base model", "series": None, "point": None, "swept": {}})
    ]
    plans += [(a.name, {"label": a.label, "series": a.series, "point": a.point, "swept": a.swept}) for a in sweep.arms]
    for name, place in plans:
        if name not in data.arms:
            continue
        rows = frame[(frame.arm == name) & (frame.step == data.final_step(name))]
        pooled = rows[rows.seed == "all"].set_index("metric")
        seeds: dict[str, dict[str, float]] = {}
        for row in rows[rows.seed != "all"].itertuples():
            seeds.setdefault(str(row.seed), {})[str(row.metric)] = float(row.value)  # type: ignore[arg-type]
        entries.append(
            {
                "name": name,
                **place,
                "mark": "" if place["series"] is None else point_text(place["point"]),
                "figures": {metric: _figure(pooled.loc[metric]) for metric in POINT_METRICS if metric in pooled.index},
                "retention": retention[name],
                "by_seed": seeds,
                "n_seeds": int(data.final(name).seed.nunique()),
            }
        )
    return entries


def _figure(row: pd.Series) -> dict[str, Any]:
    value, lo, hi = (None if pd.isna(row[key]) else float(row[key]) for key in ("value", "lo", "hi"))
    return figure(value, lo, hi, int(row["n"]), str(row["unit"]), str(row["method"]))
