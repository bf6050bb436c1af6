"""House rules that a machine can check."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import calibrated_sd

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT / "src").as_posix())
def test_files_are_short_and_named_after_what_they_hold(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
    assert path.stem not in {"utils", "helpers", "common", "core", "misc"}


def test_files_of_tests_are_short_too():
    long = [p.name for p in (ROOT / "tests").rglob("*.py") if len(p.read_text(encoding="utf-8").splitlines()) > 300]
    assert not long


def test_public_names_exist_and_the_package_imports_without_torch():
    for name in calibrated_sd.__all__:
        assert getattr(calibrated_sd, name) is not None
    code = "import sys, calibrated_sd, calibrated_sd.records; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reports_and_records_load_no_torch():
    code = (
        "import sys, calibrated_sd.reports.build, calibrated_sd.experiments.claims, calibrated_sd.evaluation.metrics\n"
        "assert not {'torch', 'transformers', 'trl'} & set(sys.modules), sorted({'torch', 'trl'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


IN_OTHER_ENVIRONMENTS = ["peer_cases.py"]
"""Modules that `csd bench` runs where a peer is installed; here they cannot be imported."""


def test_every_module_imports():
    for path in SOURCES:
        if path.name in IN_OTHER_ENVIRONMENTS:
            continue
        name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        importlib.import_module(name)


def test_layers():
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([str(linter)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_one_file_imports_trl_experimental():
    importers = [
        p.name
        for p in SOURCES
        if re.search(r"^\s*(from|import) trl\.experimental", p.read_text(encoding="utf-8"), re.M)
    ]
    assert set(importers) == {"_trl.py"}


@pytest.mark.parametrize("pattern", [r"/work/", r"/home/\w+", r"/root/"])
def test_no_absolute_paths_in_sources_recipes_and_docs(pattern):
    files = [
        p
        for folder in ("src", "recipes", "docs")
        for p in (ROOT / folder).rglob("*")
        if p.suffix in {".py", ".md", ".yaml", ".json"}
    ]
    found = [p.name for p in [*files, ROOT / "README.md"] if re.search(pattern, p.read_text(encoding="utf-8"))]
    found = [name for name in found if name != "recipes.py"]  # holds the pattern that refuses such paths
    assert not found


def test_links_in_the_docs_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not target.startswith(("http", "mailto")):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_version_is_stated_once_in_meaning():
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f'version = "{calibrated_sd.__version__}"' in pyproject
    assert f"version: {calibrated_sd.__version__}" in citation
    released = re.findall(r"^## \[(\d[^\]]*)\] - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert released[0][0] == calibrated_sd.__version__, "the changelog's latest release is another version"
    assert f"date-released: {released[0][1]}" in citation


def test_the_two_sets_of_versions_differ_where_vllm_needs_it_only():
    def pins(name):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        return dict(line.split("==") for line in lines if line and not line.startswith("#"))

    ours, vllms = pins("constraints.txt"), pins("constraints-vllm.txt")
    assert {name for name in ours.keys() | vllms.keys() if ours.get(name) != vllms.get(name)} == {
        "transformers",
        "numpy",
        "vllm",
    }
