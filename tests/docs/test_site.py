"""The documentation as a site: builds without a warning, and every public name is in it."""

import dataclasses
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from calibrated_sd import trainers
from compat.public_api import public, rooms

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_it_builds_strictly_with_every_page(site):
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert {path for path in pages if not (site / path).is_file()} == set()


@pytest.mark.slow
@pytest.mark.parametrize("room", rooms())
def test_every_public_name_has_its_place(site, room):
    text = "".join(path.read_text(encoding="utf-8") for path in (site / "reference/api").glob("*.html"))
    module = importlib.import_module(f"calibrated_sd.{room}")
    missing = []
    for name in public(module):
        thing = getattr(module, name)
        where = getattr(thing, "__module__", "") or ""
        path = f"{where}.{name}" if where.startswith("calibrated_sd") else f"calibrated_sd.{room}.{name}"
        if f'id="{path}"' not in text:
            missing.append(name)
    assert missing == []


@pytest.mark.slow
def test_every_setting_of_ours_is_explained(site):
    """The settings that a config has and its parent in TRL lacks stand in the table under its name, each once, with a text."""
    text = (site / "reference/api/trainers.html").read_text(encoding="utf-8")
    configs = [getattr(trainers, name) for name in trainers.__all__ if name.endswith("Config")]
    assert {config.__name__ for config in configs} == {
        f"Calibrated{m}Config" for m in ("Distillation", "SDFT", "SDPO", "SFT")
    }
    for config in configs:
        theirs = {name for base in config.__mro__ if base.__module__.startswith("trl.") for name in names_of(base)}
        table = text.split(f'id="{config.__module__}.{config.__qualname__}"')[1].partition("</table>")[0]
        rows = re.findall(r"<tr>\s*<td><code>(\w+)</code></td>\s*<td>.*?</td>\s*<td>(.*?)</td>", table, re.S)
        assert sorted(name for name, told in rows if told) == sorted(names_of(config) - theirs), config.__name__


def names_of(config):
    return {field.name for field in dataclasses.fields(config)}


@pytest.mark.slow
def test_the_campaigns_are_on_the_site(site):
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    commands = re.findall(r"^- \*\*[^*]+\*\*, `([^`]*pytest[^`]*)`:", contributing, re.M)
    text = (site / "reference/fault_tests.html").read_text(encoding="utf-8")
    assert re.findall(r"<strong>[^<]+</strong>, <code>([^<]*pytest[^<]*)</code>:", text) == commands
    assert any("full_disk" in command for command in commands)


@pytest.mark.slow
def test_nothing_is_asked_of_other_servers(site):
    """Fonts, scripts and styles come with the site."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://[^"]+"', text) == [], page
