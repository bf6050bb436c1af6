"""Figures of published folders: what each mark means, what they say in words."""

import pytest
from synthetic_published import make_study

from calibrated_sd.errors import ConfigError
from calibrated_sd.records import read_json, write_json
from calibrated_sd.reports.canvas import drawn_from
from calibrated_sd.reports.coverage import coverage_methods, draw_coverage
from calibrated_sd.reports.forest import kind_of
from calibrated_sd.reports.published.figures import picture
from calibrated_sd.reports.published.listing import Entry
from calibrated_sd.reports.published.measured import load_measured
from calibrated_sd.reports.scores import Score


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("figures")
    make_study(root / "study", missing=[("hybrid", 101)])
    return root


@pytest.mark.parametrize(
    ("lo", "hi", "kind"),
    [
        (-0.6, -0.5, "below"),
        (-0.02, -0.01, "below"),  # small, but a difference
        (0.01, 0.2, "above"),
        (-0.025, 0.025, "level"),
        (-0.026, 0.025, "open"),
        (0.0, 0.03, "open"),
        (None, None, "open"),
    ],
)
def test_where_an_interval_lies(lo, hi, kind):
    assert kind_of(Score(0.0, lo, hi)) == kind


def test_a_forest_of_two_folders(root):
    drawing = picture(
        root, Entry("f", "forest", ("study", "study"), {"titles": ["A", "B"], "arms": ["sdpo", "hybrid"]})
    ).draw()
    assert drawing.alt.count("SDPO, c = s: −0.57 [−0.60, −0.54]") == 2
    assert drawing.conditions.startswith(
        "grey band: ±0.025 · n = 273 questions · 3 training seeds · 95 % bootstrap intervals"
    )
    assert "csd reproduce --recipe study/claims --full @ 0123456789" in drawing.conditions
    one = picture(root, Entry("f", "forest", ("study",), {"arms": ["sdpo"]})).draw()
    assert drawing.height > one.height  # a row for each arm


def test_arms_without_a_difference_are_counted(root, tmp_path):
    make_study(tmp_path / "study", arms=["sdpo", "hybrid"], missing=[("hybrid", seed) for seed in (100, 101, 102)])
    drawing = picture(tmp_path, Entry("f", "forest", ("study",), {})).draw()
    assert "1 arm without a difference not drawn" in drawing.conditions


def test_methods_of_the_coverage_figure_come_from_the_plan(root):
    assert coverage_methods(load_measured(root / "study")) == {
        "policy gradient": {8: "policy_gradient_8", 64: "policy_gradient", 334: "policy_gradient_334"},
        "SDPO, c = s": {8: "sdpo_8", 64: "sdpo", 334: "sdpo_334"},
    }


def test_methods_of_a_sweep_are_arms_with_equal_settings(root, tmp_path):
    make_study(tmp_path, arms=["sdpo", "policy_gradient"])
    manifest = read_json(tmp_path / "manifest.json")
    manifest["plan"] = {"arms": [
        {"name": "sdpo", "trainer": {"a": 1}, "steps": 16, "data": {"n_problems": 64}},
        {"name": "policy_gradient", "trainer": {"a": 1}, "steps": 16, "data": {"n_problems": 8}},
        {"name": "base", "trainer": {"a": 2}, "steps": 16, "data": {"n_problems": 8}},
    ]}  # fmt: skip
    write_json(tmp_path / "manifest.json", manifest)
    assert coverage_methods(load_measured(tmp_path)) == {"policy gradient": {8: "policy_gradient", 64: "sdpo"}}


def test_the_coverage_figure_in_words(root):
    folder = load_measured(root / "study")
    drawing = draw_coverage(folder, coverage_methods(folder))
    assert "In-domain, SDPO, c = s: 0.50 at 8, 0.63 at 64, 0.66 at 334" in drawing.alt
    assert "Out of distribution, policy gradient: 0.80 at 8, 0.91 at 64, 0.92 at 334" in drawing.alt
    assert "× 2 samples" in drawing.conditions
    assert draw_coverage(folder, {}).png.startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["forest", "coverage", "trajectory", "ood_vs_markers", "suites", "ladder"])
def test_a_picture_carries_the_hash_of_its_data(root, tmp_path, kind):
    found = picture(root, Entry("p", kind, ("study",), {}))
    (tmp_path / "p.png").write_bytes(found.draw().png)
    assert drawn_from(tmp_path / "p.png") == found.fingerprint
    (tmp_path / "q.png").write_bytes(b"no image")
    assert drawn_from(tmp_path / "q.png") is None
    assert drawn_from(tmp_path / "absent.png") is None


def test_arms_and_sources_that_cannot_be_meant(root):
    for entry in (
        Entry("p", "trajectory", ("study", "study"), {}),
        Entry("p", "trajectory", ("study",), {"arms": ["nobody"]}),
        Entry("p", "forest", ("study",), {"arms": ["nobody"]}),
        Entry("p", "forest", ("study",), {"titles": ["A", "B"]}),
        Entry("p", "coverage", ("study",), {"methods": {"SDPO": {8: "nobody"}}}),
    ):
        with pytest.raises(ConfigError):
            picture(root, entry)
