"""Tables of published folders: every cell as the files have it, partial ones say so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_published import make_study
from synthetic_sweep import make_sweep

from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.records import figure, read_json, write_json
from calibrated_sd.reports.published.arms_table import arms_table, of_base, summary_rows_table
from calibrated_sd.reports.published.claims_table import claims_table
from calibrated_sd.reports.published.markdown import PublishedTable
from calibrated_sd.reports.published.measured import load_measured
from calibrated_sd.reports.published.moonshot import is_better, moonshot_table, verdict
from calibrated_sd.reports.published.sweep_tables import is_gamed, matched_table, points_table
from calibrated_sd.reports.scores import Score


def rows(table: PublishedTable) -> dict[str, dict[str, str]]:
    """First cell → heading → cell."""
    assert all(len(row) == len(table.columns) for row in table.rows)
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


def interval(lo, value, hi):
    return Score(value, lo, hi, 10, "share", "covers questions and 3 seeds")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(
        tmp_path_factory.mktemp("tables") / "study",
        missing=[("hybrid", 101), ("neutral", 100), ("neutral", 101), ("neutral", 102)],
    )


class TestArms:
    def test_a_row_holds_levels_differences_and_seeds(self, study):
        found = rows(arms_table(load_measured(study), {}))["policy gradient"]
        assert found == {
            "arm": "policy gradient", "in-domain ↑": "0.93 [0.91, 0.95]", "OOD ↑": "0.91 [0.89, 0.93]",
            "OOD − base ↑": "+0.13 [0.10, 0.16] (p = 0.009)", "OOD − SDPO, c = s ↑": "+0.70 [0.67, 0.73] (p = 0.009)",
            "markers/1k ≈": "86.0 [81.7, 90.3]", "markers/response ≈": "8.6 [8.2, 9.0]", "held-out/1k ≈": "17.2 [16.3, 18.1]",
            "length": "90 [86, 94]", "seeds": "3",
        }  # fmt: skip

    def test_n_seeds_and_intervals_are_stated(self, study):
        table = arms_table(load_measured(study), {})
        assert table.conditions == (
            "n = 273 OOD questions × 2 samples (in-domain 64); 0 of 3 training seeds finished in every arm (100, 101, 102); "
            "value [95 % interval] over questions and seeds."
        )

    def test_missing_seeds_make_the_table_partial(self, study):
        table = arms_table(load_measured(study), {})
        assert rows(table)["0.3 policy gradient + 0.7 SDPO"]["seeds"] == "2 of 3, partial"
        assert rows(table)["SDPO + neutral, s = 1"]["OOD ↑"] == "–"
        assert rows(table)["SDPO + neutral, s = 1"]["seeds"] == "0 of 3, partial"
        assert table.warning == "Partial: 2 arms with fewer finished seeds than planned; it ranks nothing."
        assert arms_table(load_measured(study), {"arms": ["base", "sdpo"]}).warning == ""

    def test_arms_are_chosen_by_name_and_order(self, study):
        assert list(rows(arms_table(load_measured(study), {"arms": ["sdpo", "base"]}))) == [
            "SDPO, c = s",
            "base (step 0)",
        ]
        with pytest.raises(ConfigError, match="Did you mean 'sdpo'"):
            arms_table(load_measured(study), {"arms": ["sdpoo"]})
        with pytest.raises(ConfigError, match="Unknown arm under 'against'"):
            arms_table(load_measured(study), {"against": "nobody"})

    def test_a_comparison_that_no_file_holds_has_no_column(self, study):
        columns = arms_table(load_measured(study), {"against": ["hybrid_floor"]}).columns
        assert [column for column in columns if "−" in column] == ["OOD − base ↑"]

    def test_parts_of_the_summary(self, study):
        table = summary_rows_table(load_measured(study), {"arms": ["sdpo"], "suites": ["train"], "steps": "all"})
        # at step 3 four tenths of the way from the base model's 0.78 to 0.63
        assert table.rows == (
            ("SDPO, c = s", "3", "congruence, trained problems", "0.72 [0.70, 0.74]"),
            ("SDPO, c = s", "16", "congruence, trained problems", "0.63 [0.61, 0.65]"),
        )
        with pytest.raises(ConfigError, match="Unknown metric"):
            summary_rows_table(load_measured(study), {"metrics": ["acuracy"]})

    def test_a_folder_without_its_table_is_refused(self, study, tmp_path):
        write_json(tmp_path / "manifest.json", read_json(study / "manifest.json"))
        with pytest.raises(DataError, match=r"has no summary\.csv"):
            load_measured(tmp_path)
        write_json(tmp_path / "manifest.json", {"kind": "train"})
        with pytest.raises(DataError, match="kind 'train'"):
            load_measured(tmp_path)


class TestClaims:
    def test_verdict_figures_and_reasons(self, study):
        table = claims_table(study, {})
        found = rows(table)
        assert found["C5"]["verdict"] == "**shown**"
        assert (
            found["C5"]["figures [95 % interval]"] == "OOD SDPO − base −0.57 [−0.60, −0.53]"
        )  # the comparison, not the level
        assert (found["C5"]["n"], found["C5"]["seeds"]) == ("273", "3")
        assert found["C12"]["figures [95 % interval]"] == "mean change markers 0.68 [0.48, 1.26] per response"
        assert found["C10"]["figures [95 % interval]"] == "–"
        assert table.conditions.startswith("1 shown, 1 not shown, 0 contradicted, 1 not run.")
        assert table.warning.startswith("Partial: 2 arms")
        assert table.notes == (
            "C5, OOD top5 − full: level",
            "C12, not shown: in so small a vocabulary other words fall with the length",
            "C10, not run: needs such a model",
        )

    def test_claims_and_figures_are_chosen(self, study):
        table = claims_table(study, {"claims": ["C5"], "keys": {"C5": "ood_accuracy_base"}})
        assert list(rows(table)) == ["C5"]
        assert rows(table)["C5"]["figures [95 % interval]"] == "OOD accuracy base 0.78 [0.76, 0.81]"
        for options in ({"claims": ["C55"]}, {"keys": {"C5": "nothing"}}, {"keys": {"C10": "nothing"}}):
            with pytest.raises(ConfigError):
                claims_table(study, options)

    def test_an_invented_verdict_is_refused(self, study, tmp_path):
        claims = read_json(study / "claims.json")
        claims["claims"][0]["verdict"] = "certainly"
        write_json(tmp_path / "claims.json", claims)
        with pytest.raises(DataError, match="certainly"):
            claims_table(tmp_path, {})


class TestSweep:
    def test_matched_methods(self, tmp_path):
        table = matched_table(make_sweep(tmp_path, methods=2), {})
        found = rows(table)
        # synthetic_sweep: 0.35 + 0.4 · target − 0.03 for the second method, ± 0.03; reached at 0.9 · target
        assert found["projection"]["retention 0.5"] == "0.55 [0.52, 0.58] at strength 0.45"
        assert found["mixture"]["retention 0.8"] == "0.64 [0.61, 0.67] at strength 0.72"
        assert found["mixture"]["retention 0.95"] == "not reached (0.15–0.60)"
        assert found["mixture"]["− projection at 0.8"] == "−0.03 [−0.07, 0.01]"
        assert found["projection"]["− projection at 0.8"] == "–"
        # best: strength 1.5, 0.21 + 0.58; held-out there: density 80 / 6 ± 0.6
        assert found["projection"]["best strength: OOD ↑"].startswith("1.5: 0.79 [")
        assert found["projection"]["held-out/1k there ≈"] == "13.3 [12.7, 13.9]"
        assert "1 of 6 targets not reached." in table.notes
        with pytest.raises(ConfigError, match="Unknown target"):
            matched_table(tmp_path, {"targets": [0.6]})

    def test_points_and_gaming(self, tmp_path):
        folder = make_sweep(tmp_path, methods=1)
        results = read_json(folder / "results.json")
        gamed = results["arms"][-1]  # retention 80 / 81; its held-out markers are taken away
        gamed["figures"]["held_out_per_1k"] = figure(6.0, 5.5, 6.5, 273, "per 1k tokens", "")
        write_json(folder / "results.json", results)
        table = points_table(folder, {})
        last = table.rows[-1]
        assert last[:2] == ("projection", "1.5")
        assert last[-2] == "**gamed**"
        # 6 / 13.5; bounds crosswise: 5.5 / 14.1 and 6.5 / 12.9
        assert last[-3] == "0.44 [0.39, 0.50]"
        assert [row[-2] for row in table.rows[:-1]] == ["", *["no"] * 6]
        assert "wider than a paired interval" in table.notes[-1]
        with pytest.raises(ConfigError, match="Unknown curve"):
            points_table(folder, {"series": ["mixture"]})

    @pytest.mark.parametrize(
        ("retention", "held_out", "gamed"),
        [
            (interval(0.7, 1.0, 1.3), interval(0.4, 0.5, 0.69), True),
            (interval(0.7, 1.0, 1.3), interval(0.4, 0.5, 0.70), False),  # not less than 0.7
            (interval(0.7, 0.79, 1.3), interval(0.4, 0.5, 0.6), False),  # markers not kept
            (interval(1.1, 1.21, 1.3), interval(0.4, 0.5, 0.6), False),
            (None, interval(0.4, 0.5, 0.6), None),
            (interval(0.7, 1.0, 1.3), Score(0.5), None),
        ],
    )
    def test_what_counts_as_gamed(self, retention, held_out, gamed):
        assert is_gamed(retention, held_out) is gamed

    @given(st.tuples(*[st.floats(0.1, 10)] * 3).map(sorted), st.tuples(*[st.floats(0.1, 10)] * 3).map(sorted))
    def test_bounds_of_a_ratio_hold_for_every_pair_within_the_intervals(self, a, b):
        ratio = of_base(interval(*a), interval(*b))
        assert ratio.lo <= ratio.value <= ratio.hi
        assert all(ratio.lo <= x / y <= ratio.hi * (1 + 1e-12) for x in a for y in b)

    def test_unfinished_seeds_are_told(self, tmp_path):
        folder = make_sweep(tmp_path, methods=1, failed=True)
        manifest = read_json(folder / "manifest.json")
        write_json(folder / "manifest.json", {**manifest, "seeds": [0, 1, 2]})
        table = points_table(folder, {})
        assert table.rows[-1][-1] == "2 of 3, partial"
        assert table.warning.startswith("Partial: 7 arms with fewer")
        assert "1 runs failed" in table.warning


class TestMoonshot:
    @pytest.mark.parametrize(
        ("in_domain", "ood", "retention", "said"),
        [
            (interval(-0.01, 0.02, 0.05), interval(-0.01, 0.0, 0.03), interval(0.8, 1.0, 1.2), "reached"),
            (
                interval(-0.02, 0.02, 0.05),
                interval(-0.01, 0.0, 0.03),
                interval(0.8, 1.0, 1.2),
                "reached in point estimates",
            ),
            (
                interval(-0.02, 0.0, 0.05),
                interval(-0.05, -0.01, 0.03),
                interval(0.7, 0.8, 1.2),
                "reached in point estimates",
            ),
            (interval(-0.02, -0.001, 0.05), interval(0.0, 0.1, 0.2), interval(0.9, 1.0, 1.1), "missed"),
            (interval(0.0, 0.1, 0.2), interval(-0.05, -0.011, 0.03), interval(0.9, 1.0, 1.1), "missed"),
            (interval(0.0, 0.1, 0.2), interval(0.0, 0.1, 0.2), interval(1.1, 1.21, 1.3), "missed"),
            (None, interval(0.0, 0.1, 0.2), interval(0.9, 1.0, 1.1), "not decidable"),
        ],
    )
    def test_the_verdict_by_hand(self, in_domain, ood, retention, said):
        assert verdict(in_domain, ood, retention) == said

    @given(st.tuples(*[st.floats(-0.1, 0.1)] * 3).map(sorted), st.tuples(*[st.floats(-0.1, 0.1)] * 3).map(sorted))
    def test_better_means_above_zero_once_and_not_a_point_below_elsewhere(self, a, b):
        assert is_better(interval(*a), interval(*b)) == (max(a[0], b[0]) > 0 and min(a[0], b[0]) >= -0.01)

    def test_without_paired_differences_it_stays_open(self, study):
        table = moonshot_table(study, {"winner": "hybrid_floor"})
        assert rows(table)["accuracy in-domain"]["difference"] == "–"
        assert "Verdict: **not decidable**" in table.notes[0]
        assert "difference in-domain and ood" in table.notes[-1]
        with pytest.raises(ConfigError, match="Name one under 'winner'"):
            moonshot_table(study, {})
