"""The page and the figures, rebuilt from files: complete, partial, hostile."""

import re
import shutil

import pytest
from synthetic_folder import make_folder

from calibrated_sd.records import read_json, read_jsonl, write_jsonl
from calibrated_sd.reports.build import build_report


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("report") / "run")
    return folder, build_report(folder).read_text(encoding="utf-8")


def test_figures_and_page_are_written_and_nothing_is_left_half_done(built):
    folder, _ = built
    for name in ("trajectory", "ood_vs_markers", "ladder", "suites"):
        assert (folder / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert not list(folder.rglob("*.tmp"))


def test_the_page_names_every_arm_and_every_claim_with_its_verdict(built):
    folder, page = built
    for arm in read_json(folder / "manifest.json")["arms"]:
        assert arm["label"].split(",")[0].split("(")[0].strip() in page
    for claim in read_json(folder / "claims.json")["claims"]:
        assert claim["id"] in page
    assert "model organism" in page
    assert "mechanism" in page


def test_the_page_loads_nothing_from_the_network(built):
    _, page = built
    assert not re.search(r"""(?:src|href)=["']https?://(?!arxiv\.org)""", page)
    assert not re.search(r"@import|url\(\s*['\"]?https?:", page)


def test_a_script_in_a_completion_does_not_become_one(built, tmp_path):
    folder = tmp_path / "hostile"
    shutil.copytree(built[0], folder)
    rows = read_jsonl(folder / "examples.jsonl")
    rows[0]["completion"] = "<script>alert(1)</script> wait"
    write_jsonl(folder / "examples.jsonl", rows)
    page = build_report(folder).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_a_folder_with_the_base_model_alone_still_gives_a_page_that_says_it_is_partial(built, tmp_path):
    folder = tmp_path / "partial"
    shutil.copytree(built[0], folder)
    for run in (folder / "runs").iterdir():
        if run.name not in {"base"}:
            shutil.rmtree(run)
    for name in ("claims.json", "summary.csv", "examples.jsonl", "traces.jsonl"):
        (folder / name).unlink(missing_ok=True)
    page = build_report(folder).read_text(encoding="utf-8")
    assert re.search("partial", page, re.I)
