"""Comparisons from the archive: the same as those of the table, where the table has them."""

import numpy as np
import pytest

from archived_study import LEVELS, QUESTIONS, make_archived_study, samples
from calibrated_sd.records.archive import ARCHIVE
from calibrated_sd.reports.archived_samples import add_samples
from calibrated_sd.reports.published.measured import load_measured
from calibrated_sd.reports.published.moonshot import moonshot_table
from calibrated_sd.reports.published.paired import contrast, density_ratio
from calibrated_sd.reports.published.sweep_tables import points_table
from calibrated_sd.reports.scores import Scores


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_archived_study(tmp_path_factory.mktemp("paired") / "study")


@pytest.fixture
def scores(study):
    folder = load_measured(study)
    assert add_samples(folder)
    return Scores(folder)


def rows_of(arm, where):
    seeds = (0,) if arm == "base" else (3, 4)
    rows = [row for seed in seeds for row in samples({"arm": arm, "seed": seed}, 0)]
    return [row for row in rows if (row["suite"] == "train") == (where == "in_domain")]


@pytest.mark.parametrize("arm", [arm for arm in LEVELS if arm != "base"])
def test_a_comparison_from_samples_is_that_of_the_table(scores, arm):
    """`csd sweep` writes OOD − base; without the table the samples give value and interval again."""
    written = contrast(scores, arm, "base").score
    rows = scores.folder.summary
    scores.folder.summary = rows[~rows["metric"].str.contains("difference")]
    again = contrast(scores, arm, "base")
    assert (again.score.value, again.score.lo, again.score.hi, again.score.n) == pytest.approx(
        (written.value, written.lo, written.hi, written.n)
    )
    assert again.p_value is None


@pytest.mark.parametrize("where", ["in_domain", "ood"])
def test_the_value_is_a_difference_of_means(scores, where):
    a, b = (np.mean([row["correct"] for row in rows_of(arm, where)]) for arm in ("winner", "policy_gradient"))
    found = contrast(scores, "winner", "policy_gradient", where).score
    assert found.value == pytest.approx(a - b)
    assert found.lo <= found.value <= found.hi
    assert found.n == QUESTIONS * (1 if where == "in_domain" else 3)
    opposite = contrast(scores, "policy_gradient", "winner", where).score
    assert opposite.value == pytest.approx(b - a)


def test_the_ratio_of_densities_by_hand(scores):
    def density(arm):
        rows = rows_of(arm, "ood")
        return sum(row["markers"]["held_out"] for row in rows) / sum(row["n_tokens"] for row in rows)

    found = density_ratio(scores, "sdpo", "held_out")
    assert found.value == pytest.approx(density("sdpo") / density("base"))
    assert found.lo <= found.value <= found.hi
    base = density_ratio(scores, "base", "held_out")
    assert base.value == pytest.approx(1)


def test_without_an_archive_nothing_is_made_up(study, tmp_path):
    for name in ("manifest.json", "results.json", "results.csv"):
        (tmp_path / name).write_bytes((study / name).read_bytes())
    folder = load_measured(tmp_path)
    assert not add_samples(folder)
    assert contrast(Scores(folder), "winner", "policy_gradient", "in_domain") is None
    assert density_ratio(Scores(folder), "sdpo", "held_out") is None
    assert (study / ARCHIVE).is_file()


def test_tables_use_them(study):
    table = moonshot_table(study, {})  # the only arm that is no landmark
    assert table.columns[1:3] == ("winner", "policy_gradient")
    assert "–" not in [row[3] for row in table.rows]
    assert "not decidable" not in table.notes[0]
    assert "paired interval" not in points_table(study, {}).notes[-1]


def test_training_logs_and_seeds_come_along(scores):
    rows = scores.folder.training
    assert set(rows["arm"]) == {"sdpo", "policy_gradient", "winner"}
    assert sorted(rows[(rows["arm"] == "sdpo") & (rows["seed"] == 3)]["epistemic/per_response"]) == [3.0, 4.0]
