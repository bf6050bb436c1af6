"""The documentation as a site: builds without a warning, and every public name is in it."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("trainers", "calibrators", "objectives", "contexts", "markers", "evaluation", "records")


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
@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_has_its_place(site, room):
    text = "".join(path.read_text(encoding="utf-8") for path in (site / "reference/api").glob("*.html"))
    module = importlib.import_module(f"calibrated_sd.{room}")
    missing = []
    for name in module.__all__:
        thing = getattr(module, name)
        where = getattr(thing, "__module__", "") or ""
        path = f"{where}.{name}" if where.startswith("calibrated_sd") else f"calibrated_sd.{room}.{name}"
        if f'id="{path}"' not in text:
            missing.append(name)
    assert missing == []


@pytest.mark.slow
def test_every_setting_of_ours_is_explained(site):
    from calibrated_sd.trainers import CalibratedSDPOConfig

    text = (site / "reference/api/trainers.html").read_text(encoding="utf-8")
    for name in ("calibration_strength", "context_levels", "chunk_size", "on_non_finite"):
        assert name in CalibratedSDPOConfig.__dataclass_fields__
        assert text.count(f"<td><code>{name}</code></td>") >= 3  # SDPO, SDFT, Distillation


@pytest.mark.slow
def test_nothing_is_asked_of_other_servers(site):
    """Fonts, scripts and styles come with the site."""
    import re

    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://[^"]+"', text) == [], page
