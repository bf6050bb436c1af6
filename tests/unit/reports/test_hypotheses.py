"""Each check decides made-up figures by hand; the table says what has not run and what is partial."""

from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from synthetic_published import make_study

from archived_study import make_archived_study
from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.reports.published.hypotheses import (
    CHECKS,
    Study,
    falls,
    gamed,
    hypotheses_table,
    level,
    raised,
    retains,
    standard_errors,
    worse_when_matched,
)
from calibrated_sd.reports.scores import Score


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("hypotheses") / "claims")


@pytest.fixture
def study(folder):
    return Study(folder)


def set_row(study, arm, metric, **values):
    rows = study.folder.summary
    place = (rows.arm == arm) & (rows.metric == metric) & (rows.suite == "ood") & (rows.seed == "all")
    if not place.any():
        new = {
            "arm": arm,
            "seed": "all",
            "suite": "ood",
            "step": 16,
            "metric": metric,
            "n": 273,
            "unit": "x",
            "method": "m",
        }
        study.folder.summary = pd.concat([rows, pd.DataFrame([new])], ignore_index=True)
        return set_row(study, arm, metric, **values)
    for key, value in values.items():
        study.folder.summary.loc[place, key] = str(value) if key == "p_value" else value
    return None


def test_standard_errors_by_hand():
    # Half the interval is 0.0196 = 1.96 · 0.01: the value is 5 errors below 0.
    assert standard_errors(Score(-0.05, -0.0696, -0.0304)) == pytest.approx(-5)
    assert standard_errors(Score(-0.05)) is None
    assert standard_errors(Score(-0.05, -0.05, -0.05)) is None


@pytest.mark.parametrize(("p", "verdict"), [((0.02, 0.9), "holds"), ((0.03, 0.9), "fails"), ((0.9, 0.9), "fails")])
def test_raised_corrects_over_its_own_family(study, p, verdict):
    """Two arms: the smaller p is doubled, 0.02 → 0.04 and 0.03 → 0.06."""
    for arm, value in zip(("mix_to_floor", "hybrid"), p, strict=True):
        set_row(study, arm, "ood_difference_vs_sdpo", p_value=value)
    found = raised(study, {"arms": ["mix_to_floor", "hybrid"], "against": "sdpo"})
    assert found.verdict == verdict
    assert "+0.58" in found.told  # mix-to-floor's 0.79 − 0.21


def test_raised_does_not_count_what_is_significantly_lower(study):
    set_row(study, "hybrid", "ood_difference_vs_sdpo", p_value=0.0001, value=-0.2)
    assert raised(study, {"arms": ["hybrid"], "against": "sdpo"}).verdict == "fails"


def test_raised_without_p_values_is_not_decidable(study):
    study.folder.summary = study.folder.summary.drop(columns="p_value")
    assert raised(study, {"arms": ["hybrid"], "against": "sdpo"}).verdict == "not decidable"


@pytest.mark.parametrize(
    ("sdpo", "floor", "verdict"),
    [(-0.31, -0.29, "holds"), (-0.29, -0.29, "fails"), (-0.31, -0.31, "fails"), (-0.31, 0.5, "holds")],
)
def test_falls_counts_three_standard_errors(study, sdpo, floor, verdict):
    """Half widths of 0.196: one error is 0.1, three are 0.3."""
    for arm, value in (("sdpo", sdpo), ("mix_to_floor", floor)):
        set_row(study, arm, "ood_difference_vs_base", value=value, lo=value - 0.196, hi=value + 0.196)
    found = falls(study, {"arms": ["sdpo"], "not": ["mix_to_floor"]})
    assert found.verdict == verdict
    assert f"{10 * sdpo:+.1f} SE".replace("-", "−") in found.told


@pytest.mark.parametrize(
    ("lo", "hi", "verdict"),
    [(-0.02, 0.02, "holds"), (0.01, 0.02, "holds"), (-0.03, 0.02, "not decidable"), (0.001, 0.04, "fails")],
)
def test_level_is_an_equivalence(study, lo, hi, verdict):
    set_row(study, "hybrid", "ood_difference_vs_sdpo", value=(lo + hi) / 2, lo=lo, hi=hi)
    assert level(study, {"arm": "hybrid", "against": "sdpo", "margin": 0.025}).verdict == verdict


@pytest.mark.parametrize(("retention", "verdict"), [(0.71, "holds"), (0.89, "holds"), (0.69, "fails"), (0.91, "fails")])
def test_retains(study, retention, verdict):
    set_row(study, "neutral", "retention", value=retention, lo=retention - 0.01, hi=retention + 0.01)
    assert retains(study, {"arms": ["neutral"], "target": 0.8, "margin": 0.1}).verdict == verdict


def test_retains_needs_every_arm(study):
    found = retains(study, {"arms": ["neutral", "sdpo"], "target": 0.8, "margin": 0.1})
    assert (found.verdict, found.reason) == ("not decidable", "an arm's retention was not measured")


class Matched:
    def __init__(self, series, value, half, *, reached=True):
        self.series, self.target, self.reached, self.low, self.high = series, 0.8, reached, 0.3, 0.4
        self.accuracy = Score(value, value - half, value + half) if reached else Score(None)


class Point:
    name, scores = "a", {"accuracy": Score(0.4, 0.3, 0.5)}

    def has(self, metric):
        return True


@pytest.mark.parametrize(
    ("own", "verdict"),
    [
        (Matched("bonus", 0.5, 0.05), "holds"),
        (Matched("bonus", 0.58, 0.05), "fails"),
        (Matched("bonus", 0.0, 0.0, reached=False), "not decidable"),
    ],
)
def test_worse_when_matched(study, monkeypatch, own, verdict):
    """The best rival is at 0.65 ± 0.05: its lower bound is 0.60."""

    sweep = SimpleNamespace(
        series={name: [Point()] for name in ("bonus", "a", "b")},
        matched=[own, Matched("a", 0.65, 0.05), Matched("b", 0.55, 0.05)],
    )
    monkeypatch.setattr("calibrated_sd.reports.published.hypotheses.load_sweep_folder", lambda path: sweep)
    found = worse_when_matched(study, {"series": "bonus", "rivals": ["a", "b"], "target": 0.8})
    assert found.verdict == verdict
    assert found.told.startswith("a at 0.8: 0.65")
    if not own.reached:
        assert "0.30 to 0.40" in found.told
        assert "0.40 [0.30, 0.50]" in found.told


@pytest.mark.parametrize(
    ("retention", "held_out", "verdict"),
    [(1.0, 0.65, "holds"), (1.0, 0.75, "fails"), (1.3, 0.65, "fails"), (1.0, None, "not decidable")],
)
def test_gamed(study, monkeypatch, retention, held_out, verdict):
    sweep = SimpleNamespace(series={"projection": [SimpleNamespace(name="mix_to_floor")]})
    score = None if held_out is None else Score(held_out, held_out - 0.02, held_out + 0.02)
    set_row(study, "mix_to_floor", "retention", value=retention, lo=retention, hi=retention)
    monkeypatch.setattr("calibrated_sd.reports.published.hypotheses.load_sweep_folder", lambda path: sweep)
    monkeypatch.setattr("calibrated_sd.reports.published.hypotheses.density_ratio", lambda *args: score)
    assert gamed(study, {}).verdict == verdict


ENTRY = {"id": "H1", "statement": "It falls", "criterion": "3 SE", "from": "claims", "check": "falls", "arms": ["sdpo"]}


def write(folder, *entries):
    file = folder.parent / "hypotheses.yaml"
    file.write_text(yaml.safe_dump({"hypotheses": list(entries)}))
    return file


def test_the_table_counts_verdicts_and_says_what_has_not_run(folder):
    (folder.parent / "begun").mkdir()
    (folder.parent / "begun/manifest.json").write_text("{}")  # runs are kept, results are not computed yet
    later = [{**ENTRY, "id": "H2", "from": "later"}, {**ENTRY, "id": "H3", "from": "begun"}]
    table = hypotheses_table(write(folder, ENTRY, *later), {})
    assert [row[2] for row in table.rows] == ["**holds**", "**not run**", "**not run**"]
    assert table.conditions.startswith("1 holds, 2 not run.")


def test_a_partial_study_decides_nothing(tmp_path):
    folder = make_study(tmp_path / "claims", missing=[("sdpo", 102)])
    table = hypotheses_table(write(folder, ENTRY), {})
    (row,) = table.rows
    assert row[2] == "**not decidable**"
    assert "2 of 3, partial" in row[4]
    assert "−0.570" in row[3]  # what was measured is shown all the same
    assert table.notes == ("H1: fewer finished seeds than planned.",)


def test_differences_that_no_table_has_come_from_the_archive(tmp_path):
    folder = make_archived_study(tmp_path / "claims")
    entry = {**ENTRY, "check": "level", "arm": "winner", "against": "policy_gradient", "margin": 0.9}
    (row,) = hypotheses_table(write(folder, entry), {}).rows
    assert row[2] == "**holds**"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"check": "fall"}, ConfigError, "falls"),
        ({"criterion": None}, ConfigError, "needs 'criterion'"),
        ({"arms": ["sdp"]}, ConfigError, "sdpo"),
    ],
)
def test_what_a_user_can_get_wrong(folder, change, error, message):
    entry = {key: value for key, value in {**ENTRY, **change}.items() if value is not None}
    with pytest.raises(error, match=message):
        hypotheses_table(write(folder, entry), {})


def test_files_that_list_nothing(tmp_path):
    with pytest.raises(DataError, match="There is no"):
        hypotheses_table(tmp_path / "none.yaml", {})
    (tmp_path / "empty.yaml").write_text("hypotheses: 3")
    with pytest.raises(DataError, match="no list"):
        hypotheses_table(tmp_path / "empty.yaml", {})
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        hypotheses_table(tmp_path / "bad.yaml", {})


def test_every_check_says_when_it_holds():
    for check, _ in CHECKS.values():
        assert check.__doc__.startswith("Holds if")
