"""Derived files again from what a study's folder holds: its `manifest.json` and its archive (or runs). No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibrated_sd.errors import DataError
from calibrated_sd.experiments.collect import load_run
from calibrated_sd.experiments.reproduce import write_claims
from calibrated_sd.experiments.sweep_plan import Evaluation, Sweep, SweepArm
from calibrated_sd.experiments.sweep_results import write_sweep_results
from calibrated_sd.records import read_json


def recompute(directory: str | Path) -> None:
    """Write `claims.json` and `summary.csv` (reproduce), or `results.json` and `results.csv` (sweep), anew.

    Equal archives give equal bytes. Provenance is not about this computation but about the runs, so it is kept from the
    old file, or taken from the manifest where there is none.

    Raises:
        DataError: no manifest, one of another kind, or no runs.
    """
    directory = Path(directory)
    manifest = read_json(directory / "manifest.json")
    kind = manifest.get("kind")
    if kind == "reproduce":
        old = _old(directory / "claims.json")
        block = (old or manifest)["provenance"]
        write_claims(
            directory,
            load_run(directory),
            best=manifest["best"],
            profile=manifest["profile"],
            command=block["command"],
            block=block,
        )
    elif kind == "sweep":
        write_sweep_results(directory, sweep_of(manifest), _old(directory / "results.json"))
    else:
        raise DataError(
            f"{directory / 'manifest.json'} is of kind {kind!r}. Only folders of `csd reproduce` and `csd sweep` can be "
            "computed again from their runs; give one of these."
        )


def _old(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.is_file() else None


def sweep_of(manifest: Mapping[str, Any]) -> Sweep:
    """The sweep that a manifest describes: every arm with all its settings, so no recipe file is needed.

    Raises:
        DataError: the manifest lacks the plan, or has fields that this release does not know.
    """
    try:
        plan = dict(manifest["plan"])
        arms = tuple(SweepArm(**arm) for arm in plan.pop("arms"))
        evaluation = {**plan.pop("evaluation")}
        evaluation["eval_steps"] = tuple(evaluation["eval_steps"])
        lists = {key: tuple(value) for key, value in plan.items() if key in ("seeds", "fields", "targets")}
        return Sweep(**{**plan, **lists, "arms": arms, "evaluation": Evaluation(**evaluation)})
    except (KeyError, TypeError) as error:
        names = ", ".join(field.name for field in dataclasses.fields(Sweep))
        raise DataError(
            f"The manifest's plan does not describe a sweep of this release ({error}). It should have {names}; use the "
            "calibrated-sd release that wrote the folder."
        ) from error
