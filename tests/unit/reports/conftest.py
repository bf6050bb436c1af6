"""Folders shared by the tests of the reports: one complete, one as an interrupted quick run leaves it."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_folder import make_folder

from calibrated_sd.reports import build_report


@pytest.fixture(scope="session")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four arms, two seeds, with its report. Not to be changed by a test."""
    folder = make_folder(
        tmp_path_factory.mktemp("reports") / "complete",
        arms=["policy_gradient", "sdpo", "projection"],
        summary=True,
    )
    build_report(folder)
    return folder


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quick run that was killed: one arm failed, one never started, no derived files. With its report."""
    folder = make_folder(
        tmp_path_factory.mktemp("reports") / "broken",
        arms=["sdpo", "projection"],
        seeds=[0],
        profile="quick",
        statuses={("sdpo", 0): "failed", ("projection", 0): "not run"},
    )
    for name in ("claims.json", "traces.jsonl", "examples.jsonl"):
        (folder / name).unlink()
    build_report(folder)
    return folder
