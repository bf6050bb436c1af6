"""The page and the files around it: complete, partial, hostile, checked."""

import base64
import re
import shutil
from html.parser import HTMLParser

import pytest
from synthetic_folder import make_folder, put_into_every_text
from typer.testing import CliRunner

from calibrated_sd.cli.main import app
from calibrated_sd.errors import DataError, OutputError
from calibrated_sd.records import read_json, write_json
from calibrated_sd.reports import build_report, check_report, load_folder
from calibrated_sd.reports.html import claim_cards, measure

HOSTILE = '<script>alert(1)</script> wait <img src=x onerror=alert(2)> " onmouseover="alert(3) {{ 7 * 7 }} \ud800'


class Tags(HTMLParser):
    """All start tags of a page with their attributes, and its visible text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(complete):
    return Tags((complete / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def small(tmp_path):
    return make_folder(tmp_path / "run", arms=["sdpo"], seeds=[0], n=2, samples=1)


def test_figures_and_page_are_written_and_nothing_is_left_half_done(complete):
    for name in ("trajectory", "ood_vs_markers", "ladder", "suites"):
        assert (complete / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert not list(complete.rglob("*.tmp"))


def test_the_page_names_every_arm_claim_verdict_and_criterion(complete, page):
    for arm in read_json(complete / "manifest.json")["arms"]:
        assert arm["label"] in page.text
    for claim in read_json(complete / "claims.json")["claims"]:
        for key in ("id", "statement", "verdict", "criterion"):
            assert claim[key] in page.text
        assert claim["paper"]["text"] in page.text
    assert "model organism" in page.text
    assert "mechanism, not scale" in page.text


def test_the_page_has_the_promised_sections(page):
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert ids == [
        "about",
        "claims",
        "summary",
        "figures",
        "examples",
        "suppression",
        "rebuild",
        "provenance",
        "limits",
    ]
    linked = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert linked == [f"#{section}" for section in ids]


def test_the_page_needs_no_network_and_runs_no_script(page):
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/png;base64,", "#")), (tag, value)
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_every_figure_is_inline_with_alt_text_and_conditions(complete, page):
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 4
    files = {file.read_bytes() for file in (complete / "figures").glob("*.png")}
    assert {base64.b64decode(image["src"].partition(",")[2]) for image in images} == files
    assert all(len(image["alt"]) > 40 for image in images)
    assert page.text.count("csd reproduce --output out @ 0123456789") == 4  # once under each figure


def test_hostile_text_stays_text_everywhere(small):
    put_into_every_text(small, HOSTILE)
    raw = build_report(small).read_text(encoding="utf-8")
    parsed = Tags(raw)
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert not any("onerror" in attributes or "onmouseover" in attributes for _, attributes in parsed.tags)
    assert "<script>alert(1)</script>" in parsed.text
    assert "{{ 7 * 7 }}" in parsed.text


def test_the_base_model_alone_gives_a_page_that_says_it_is_partial(small):
    for run in (small / "runs").iterdir():
        if run.name != "base":
            shutil.rmtree(run)
    for name in ("claims.json", "examples.jsonl", "traces.jsonl"):
        (small / name).unlink()
    parsed = Tags(build_report(small).read_text(encoding="utf-8"))
    assert "PARTIAL" in parsed.text
    assert "Arm sdpo, seed 0: not run." in parsed.text
    assert "There is no claims.json yet" in parsed.text


def test_a_manifest_and_nothing_else_gives_a_page(tmp_path):
    write_json(tmp_path / "manifest.json", {"schema_version": 1, "kind": "reproduce"})
    assert "Missing: all evaluations." in build_report(tmp_path).read_text(encoding="utf-8")


def test_smoke_runs_are_marked_in_title_banner_claims_and_table(broken):
    raw = (broken / "report.html").read_text(encoding="utf-8")
    assert "<title>calibrated-sd: reproduction report (SMOKE RUN (quick profile) · PARTIAL)</title>" in raw
    assert "too small to conclude anything" in raw
    assert "failed; 0 of 1 seed finished" in raw


def test_equal_data_give_equal_bytes(small):
    first = build_report(small).read_bytes()
    assert build_report(small).read_bytes() == first


def test_check_passes_after_a_build_and_fails_after_any_change(small):
    assert check_report(small).problems == (
        "report.html is missing",
        "summary.md is missing",
        "figures/ holds no figure",
    )
    build_report(small)
    assert check_report(small).problems == ()
    (small / "claims.json").unlink()
    assert check_report(small).problems == ("report.html was made from other data",)
    (small / "runs/sdpo/seed_0/eval/step_12/completions.jsonl").unlink()
    assert check_report(small).problems == ("report.html was made from other data", "summary.md differs from the data")


def test_a_folder_that_cannot_be_written_is_a_user_error_and_keeps_the_old_page(small):
    (small / "report.html").write_text("the old page")
    (small / "figures").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match="cannot be written"):
        build_report(small)
    assert (small / "report.html").read_text() == "the old page"
    assert not list(small.rglob("*.tmp"))


def test_a_build_that_dies_while_writing_leaves_the_old_page_whole(small, monkeypatch):
    def dies(source, target):
        raise KeyboardInterrupt

    (small / "report.html").write_text("the old page")
    monkeypatch.setattr("calibrated_sd.reports.build.draw_all", lambda folder, scores: [])
    monkeypatch.setattr("calibrated_sd.reports.build.SUMMARY", "report.html")  # the page is the first file written
    monkeypatch.setattr("calibrated_sd.records.files.os.replace", dies)
    with pytest.raises(KeyboardInterrupt):
        build_report(small)
    assert (small / "report.html").read_text() == "the old page"
    assert not list(small.rglob("*.tmp"))


def test_comparisons_stand_before_the_levels_behind_them(small):
    claims = read_json(small / "claims.json")
    level = claims["claims"][0]["ours"]["markers none − s"]
    claims["claims"][0]["ours"] = {f"markers_{i}": level for i in range(5)} | {"markers_none_minus_solution": level}
    write_json(small / "claims.json", claims)
    card = claim_cards(load_folder(small))[0]
    assert [m.name for m in card.main] == ["markers none − solution", "markers 0", "markers 1", "markers 2"]
    assert [m.name for m in card.rest] == ["markers 3", "markers 4"]


def test_a_claim_whose_verdict_is_no_known_word_counts_as_not_run(small):
    claims = read_json(small / "claims.json")
    claims["claims"][0]["verdict"] = "certainly"
    del claims["claims"][1]["paper"], claims["claims"][1]["ours"]
    write_json(small / "claims.json", claims)
    cards = claim_cards(load_folder(small))
    assert [card.verdict for card in cards] == ["not run", "not shown", "contradicted", "not run"]
    assert cards[1].paper == ""


@pytest.mark.parametrize(
    ("name", "figure", "words"),
    [
        ("ood_sdpo_minus_base", (-0.5674, -0.6, -0.53, "share"), ("OOD SDPO − base", "−0.57", "[−0.60, −0.53]", "")),
        (
            "markers_solution_over_none",
            (0.016, 0.01, 0.02, "ratio"),
            ("markers solution / none", "0.02", "[0.01, 0.02]", ""),
        ),
        ("length_none", (88.57, 85.4, 91.8, "tokens"), ("length none", "88.6", "[85.4, 91.8]", "tokens")),
        ("length_none", (None, None, None, "tokens"), ("length none", "–", "", "tokens")),
    ],
)
def test_figures_of_claims_in_words(name, figure, words):
    value, lo, hi, unit = figure
    result = measure(name, {"value": value, "lo": lo, "hi": hi, "n": 9, "unit": unit, "method": "m"})
    assert (result.name, result.value, result.interval, result.unit) == words


class TestCommand:
    def test_it_builds_prints_the_table_and_the_path(self, small):
        result = CliRunner().invoke(app, ["report", str(small)])
        assert result.exit_code == 0
        assert "OOD pooled" in result.output
        assert (small / "report.html").is_file()

    def test_check_writes_nothing_and_fails_until_the_report_is_built(self, small):
        before = sorted(small.rglob("*"))
        result = CliRunner().invoke(app, ["report", str(small), "--check"])
        assert result.exit_code == 1
        assert "report.html is missing" in result.output
        assert sorted(small.rglob("*")) == before
        build_report(small)
        assert CliRunner().invoke(app, ["report", str(small), "--check"]).exit_code == 0

    def test_markdown_goes_to_the_screen_alone(self, small):
        result = CliRunner().invoke(app, ["report", str(small), "--markdown"])
        assert re.search(r"^\| arm \| in-domain ↑", result.output, re.MULTILINE)
        assert not (small / "report.html").exists()

    def test_another_folder_is_refused(self, tmp_path):
        result = CliRunner().invoke(app, ["report", str(tmp_path)])
        assert isinstance(result.exception, DataError)
