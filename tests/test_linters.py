"""The linters of CONTRIBUTING.md are quiet, with the settings in pyproject.toml; import-linter and bandit have tests beside this one."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 900
"""Seconds that mypy may take from a cold cache on a busy machine."""


def run(module, *words, cwd=ROOT):
    """Exit status and all that was printed."""
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=PATIENCE)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("words", [("check",), ("format", "--check")], ids=" ".join)
def test_ruff_is_quiet(words):
    status, said = run("ruff", *words)
    assert status == 0, said


def test_ruff_would_complain(tmp_path):
    (tmp_path / "bad.py").write_text("import os\nx = {'a':1}\n", encoding="utf-8")
    settings = ("--config", str(ROOT / "pyproject.toml"), "--no-cache", str(tmp_path))
    status, said = run("ruff", "check", *settings)
    assert status == 1, said
    assert "F401" in said
    status, said = run("ruff", "format", "--check", *settings)
    assert status == 1, said
    assert "bad.py" in said


@pytest.mark.slow
def test_mypy_is_quiet():
    status, said = run("mypy")
    assert status == 0, said
    assert "no issues found" in said
