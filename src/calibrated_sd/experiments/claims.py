"""Verdicts on the paper's claims, computed from intervals and never set by hand. No torch.

Each check (`claim_checks`) takes the run's data and returns the figures it looked at and one verdict:

* ``shown``: the criterion in ``claims.yaml`` holds;
* ``contradicted``: the interval excludes the claimed direction;
* ``not shown``: neither;
* ``not run``: the arms or files it needs are absent.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import Any

import yaml

from calibrated_sd.experiments.claim_checks import (
    CHECKS,
    CONTRADICTED,
    NOT_RUN,
    NOT_SHOWN,
    Figures,
    hard_problems,
    standard_error,
)
from calibrated_sd.experiments.collect import RunData

__all__ = ["CHECKS", "evaluate_claims", "hard_problems", "load_claims", "standard_error"]

LEVEL = 0.025
"""Two accuracies are called level where the interval of their difference lies within ± this."""


def load_claims() -> dict[str, dict[str, Any]]:
    """The claims as written in ``claims.yaml``."""
    return yaml.safe_load((files("calibrated_sd.experiments") / "claims.yaml").read_text(encoding="utf-8"))


def evaluate_claims(data: RunData, best: str, command: str) -> list[dict[str, Any]]:
    """One entry per claim for ``claims.json``.

    ``reason`` says what the likely cause is where a claim is not shown, contradicted, or can never be run here; ``notes``
    say of some figures whether they are level.
    """
    entries = []
    for claim_id, claim in load_claims().items():
        check = CHECKS.get(claim.get("check", ""))
        ours, verdict = check(data, best) if check else ({}, NOT_RUN)
        entry = {
            "id": claim_id,
            "statement": claim["statement"],
            "paper": claim["paper"],
            "ours": ours,
            "verdict": verdict,
            "criterion": claim["criterion"],
            "command": command,
        }
        failed = verdict in (NOT_SHOWN, CONTRADICTED)
        if reason := claim.get("likely_reason" if failed else "never_run" if verdict == NOT_RUN else ""):
            entry["reason"] = reason
        if notes := level_notes(ours, claim.get("level", ())):
            entry["notes"] = notes
        entries.append(entry)
    return entries


def level_notes(figures: Figures, names: Iterable[str]) -> list[str]:
    """For each of these differences that was measured: level, different, or not distinguished."""
    notes = []
    for name in names:
        if name in figures:
            low, high = figures[name]["lo"], figures[name]["hi"]
            if low >= -LEVEL and high <= LEVEL:
                said = f"level (the interval lies within ±{100 * LEVEL:g} points)"
            elif low > 0 or high < 0:
                said = "different (the interval excludes 0)"
            else:
                said = f"not distinguished (the interval includes 0 and leaves ±{100 * LEVEL:g} points)"
            notes.append(f"{name}: {said}")
    return notes
