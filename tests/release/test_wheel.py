"""What is released: the wheel holds all that the commands need, and the commands run from it, away from the repository.

The suite unpacks the wheel and runs commands on it with the packages at hand. The long form installs it into a new
environment, with everything that it declares, and reproduces from there: `pytest -m study tests/release`.
"""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from calibrated_sd import __version__

ROOT = Path(__file__).parents[2]
DATA = (".py", ".typed", ".yaml", ".txt", ".json", ".safetensors", ".jinja", ".j2", ".mplstyle")
LEFT_OUT = ("__pycache__",)


def files_below(folder, root):
    found = [p.relative_to(root).as_posix() for p in folder.rglob("*") if p.is_file()]
    return {name for name in found if not any(part in name for part in LEFT_OUT)}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Source archive and wheel; the wheel is built from the archive, so that the archive is complete."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out / f"calibrated_sd-{__version__}.tar.gz", out / f"calibrated_sd-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def unpacked(built, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(built[1]) as wheel:
        wheel.extractall(folder)
    return folder


def run(command, cwd, **environment):
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def test_the_wheel_holds_the_package_and_the_recipes(unpacked):
    package = files_below(ROOT / "src", ROOT / "src")
    assert {Path(name).suffix for name in package} <= set(DATA)  # a new kind of file: does the wheel take it?
    recipes = {f"calibrated_sd/_recipes/{name}" for name in files_below(ROOT / "recipes", ROOT / "recipes")}
    held = {name for name in files_below(unpacked, unpacked) if ".dist-info/" not in name}
    assert held == package | recipes
    assert len(recipes) > 100


def test_the_wheel_says_what_it_is(unpacked):
    [information] = unpacked.glob("*.dist-info")
    metadata = (information / "METADATA").read_text(encoding="utf-8")
    assert f"Version: {__version__}" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Dist: trl<1.17,>=1.16" in metadata
    assert "csd = calibrated_sd.cli.main:main" in (information / "entry_points.txt").read_text(encoding="utf-8")
    assert list(information.rglob("LICENSE"))


def test_the_source_archive_has_tests_docs_and_constraints(built):
    with tarfile.open(built[0]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE", "mkdocs.yml", "pyproject.toml"),
        *("constraints.txt", "constraints-vllm.txt", "docs/index.md", "tests/conftest.py", "recipes/organism/reproduce.yaml"),
    ):  # fmt: skip
        assert name in held


@pytest.mark.slow
def test_commands_run_from_the_wheel(unpacked, tmp_path):
    code = "import sys, calibrated_sd; print(calibrated_sd.__file__); from calibrated_sd.cli.main import main; main()"
    csd = [sys.executable, "-c", code]
    where = {"PYTHONPATH": str(unpacked)}
    listed = run([*csd, "ls"], tmp_path, **where)
    assert listed.startswith(str(unpacked))  # not the repository's
    assert "organism/reproduce" in listed
    run([*csd, "validate", "organism/reproduce"], tmp_path, **where)
    run(
        [*csd, "evaluate", "--model", "organism", "--suite", "organism", "--n", "1", "--limit", "4", "--output", "out"],
        tmp_path,
        **where,
    )
    assert (tmp_path / "out" / "metrics.json").is_file()


@pytest.mark.study
def test_a_new_environment_reproduces_from_the_wheel(built, tmp_path):
    run([sys.executable, "-m", "venv", "new"], tmp_path)
    python, csd = tmp_path / "new" / "bin" / "python", tmp_path / "new" / "bin" / "csd"
    run([python, "-m", "pip", "install", "-q", str(built[1]), "-c", str(ROOT / "constraints.txt")], tmp_path)
    where = run([python, "-c", "import calibrated_sd; print(calibrated_sd.__file__)"], tmp_path, PYTHONPATH="")
    assert where.startswith(str(tmp_path / "new"))
    run([csd, "reproduce", "--quick", "--output", "out"], tmp_path, PYTHONPATH="")
    for name in ("claims.json", "summary.csv", "report.html", "figures/ood_vs_markers.png"):
        assert (tmp_path / "out" / name).stat().st_size > 0
