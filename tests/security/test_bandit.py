"""bandit finds nothing in the source; what it is told to leave alone stands with its reason in `pyproject.toml`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def bandit(folder):
    return subprocess.run(
        [sys.executable, "-m", "bandit", "-q", "-c", str(ROOT / "pyproject.toml"), "-r", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_source_is_clean():
    found = bandit(ROOT / "src")
    assert found.returncode == 0, found.stdout


def test_the_settings_leave_bandit_awake(tmp_path):
    (tmp_path / "careless.py").write_text(
        "import pickle, subprocess, tempfile, yaml\n"
        "def careless(text):\n"
        "    subprocess.run(text, shell=True)\n"  # B602
        "    yaml.load(text, yaml.Loader)\n"  # B506
        "    tempfile.mktemp()\n"  # B306
        "    return pickle.loads(text)\n"  # B301
    )
    found = bandit(tmp_path)
    assert found.returncode == 1
    for rule in ("B602", "B506", "B306", "B301"):
        assert rule in found.stdout
