"""A completion is untrusted text: in a real browser, nothing in it runs. Needs Chromium; skipped where there is none."""

import shutil
import subprocess

import pytest
from synthetic_folder import make_folder, put_into_every_text

from calibrated_sd.reports import build_report

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")]

MARK = "document.documentElement.setAttribute('data-ran', 'yes')"
PAYLOAD = f'<script>{MARK}</script> wait <img src=x onerror="{MARK}"> " onmouseover="{MARK} <svg onload="{MARK}">'
POLICY = "Content-Security-Policy"


def runs_something(page, tmp_path):
    """Whether a script ran when the page was opened; asks the document itself."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
    ]
    done = subprocess.run(
        [*command, "--virtual-time-budget=3000", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "</html>" in done.stdout
    return 'data-ran="yes"' in done.stdout.partition("<head>")[0]  # the <html> tag, not the text of the page


def test_a_script_in_a_completion_does_not_run(tmp_path):
    folder = make_folder(tmp_path / "run", arms=["sdpo"], seeds=[0], n=2, samples=1)
    put_into_every_text(folder, PAYLOAD)
    page = build_report(folder)
    assert not runs_something(page, tmp_path)
    # Two locks, each enough by itself: the page forbids scripts, and the text is escaped.
    text = page.read_text(encoding="utf-8")
    open_page = tmp_path / "without_policy.html"
    open_page.write_text(text.replace(POLICY, "x"), encoding="utf-8")
    assert POLICY in text
    assert not runs_something(open_page, tmp_path)
    careless = tmp_path / "careless.html"
    careless.write_text(text.replace(POLICY, "x").replace("</body>", f"{PAYLOAD}</body>"), encoding="utf-8")
    assert runs_something(careless, tmp_path)  # the test can see it
