"""Verdicts come from intervals: shown, contradicted, not shown and not run are all reachable."""

from pathlib import Path

import pytest
from claims_kit import OOD, N, data, fewer_resamples, rows  # noqa: F401

from calibrated_sd.experiments.claims import CHECKS, evaluate_claims, hard_problems, load_claims, standard_error
from calibrated_sd.experiments.collect import RunData, contrast_rows, summarise_run


def ladder(none, stripped, solution, screen=0.3):
    made = []
    for level, (accuracy, markers, tokens) in {"none": none, "stripped": stripped, "solution": solution}.items():
        made += rows("base", accuracy, markers, tokens, step=0, suites=("family",), context=level, samples=1)
    if screen is not None:
        for row in rows("base", screen, 8, 80, step=0, suites=("family",), samples=8):
            made.append({**row, "suite": "screen", "correct": row["sample"] < screen * 8})
    return made


BASE = rows("base", 0.8, 8, 80, step=0)
COLLAPSED = rows("sdpo", 0.3, 0, 20)
HEALTHY_PG = rows("policy_gradient", 0.9, 8, 80)
GOOD_LADDER = ladder((0.5, 8, 80), (0.8, 7, 78), (1.0, 0, 25))


def verdict(check, run):
    return CHECKS[check](run, "best")[1]


def test_degradation_is_shown_where_accuracy_and_density_fall():
    assert verdict("sdpo_degrades", data(BASE, COLLAPSED)) == "shown"


def test_degradation_is_contradicted_by_an_improvement():
    assert verdict("sdpo_degrades", data(BASE, rows("sdpo", 0.95, 8, 80))) == "contradicted"


def test_degradation_is_not_shown_if_only_accuracy_falls():
    assert verdict("sdpo_degrades", data(BASE, rows("sdpo", 0.3, 8, 80))) == "not shown"


def test_degradation_is_not_shown_without_a_difference():
    assert verdict("sdpo_degrades", data(BASE, rows("sdpo", 0.8, 0, 20))) == "not shown"


@pytest.mark.parametrize(
    ("policy_gradient", "expected"),
    [
        (HEALTHY_PG, "shown"),
        (rows("policy_gradient", 0.9, 2, 80), "not shown"),  # it lost its markers
        (rows("policy_gradient", 0.5, 8, 80), "contradicted"),  # it fell far below the base model
    ],
)
def test_policy_gradient(policy_gradient, expected):
    assert verdict("policy_gradient_holds", data(BASE, COLLAPSED, policy_gradient)) == expected


def test_missing_arms_and_files_are_not_run():
    run = data(BASE)
    assert {check: verdict(check, run) for check in CHECKS} == dict.fromkeys(CHECKS, "not run")


def test_ladder_claims():
    run = data(BASE, ladder_records=GOOD_LADDER)
    assert verdict("ladder_style", run) == "shown"
    assert verdict("ladder_accuracy", run) == "shown"
    upside_down = data(BASE, ladder_records=ladder((0.9, 2, 30), (0.5, 4, 50), (0.2, 9, 90)))
    assert verdict("ladder_style", upside_down) == "contradicted"
    assert verdict("ladder_accuracy", upside_down) == "contradicted"


def test_accuracy_ladder_needs_both_steps():
    flat = data(BASE, ladder_records=ladder((0.5, 8, 80), (0.5, 7, 78), (1.0, 0, 25)))
    assert verdict("ladder_accuracy", flat) == "not shown"


def test_hard_problems_are_chosen_by_screening_samples_alone():
    run = data(BASE, ladder_records=GOOD_LADDER)  # screen 0.3: 3 of 8 samples right, within [1/8, 1/2]
    assert len(hard_problems(run)) == N
    easy = data(BASE, ladder_records=ladder((0.0, 8, 80), (0.8, 7, 78), (1.0, 0, 25), screen=1.0))
    assert hard_problems(easy) == []


def test_milder_context_has_all_three_verdicts():
    between = rows("sdpo_stripped", 0.6, 7, 70)
    assert verdict("stripped_is_milder", data(BASE, COLLAPSED, between)) == "shown"
    assert verdict("stripped_is_milder", data(BASE, COLLAPSED, rows("sdpo_stripped", 1.0, 7, 70))) == "contradicted"
    assert verdict("stripped_is_milder", data(BASE, COLLAPSED, rows("sdpo_stripped", 0.3, 7, 70))) == "not shown"


def test_specificity_by_hand():
    # markers: "wait" 12 → 0 and "hmm" 8 → 0 per response, a mean change of 10; other words: "the" 1 → 1 and
    # "red" 2 → 1, a mean change of ½
    before = rows("base", 0.8, 10, 80, step=0, text="wait " * 12 + "hmm " * 8 + "the red red")
    after = rows("sdpo", 0.3, 0, 20, text="the red")
    figures, found = CHECKS["shift_is_specific"](data(before, after), "best")
    assert figures["mean_change_markers"]["value"] == 10
    assert figures["mean_change_other_words"]["value"] == 0.5
    assert found == "shown"  # 10 ≥ 3 · ½, and the intervals [8, 12] and [0, 1] do not touch


def test_repair_is_corrected_for_all_arms():
    best = rows("best", 0.8, 8, 80)
    other = rows("other", 0.35, 8, 80)
    figures, found = CHECKS["calibrator_repairs"](data(BASE, COLLAPSED, best, other), "best")
    assert found == "shown"
    assert set(figures) == {"ood_best_minus_sdpo", "ood_other_minus_sdpo"}
    assert verdict("calibrator_repairs", data(BASE, COLLAPSED, rows("best", 0.3, 8, 80))) == "not shown"
    assert verdict("calibrator_repairs", data(BASE, COLLAPSED, rows("best", 0.05, 8, 80))) == "contradicted"


def test_pass_at_k_gap():
    assert verdict("pass_at_k_gap", data(BASE, COLLAPSED, HEALTHY_PG)) == "shown"
    assert verdict("pass_at_k_gap", data(BASE, COLLAPSED, rows("policy_gradient", 0.1, 8, 80))) == "contradicted"


def test_every_claim_has_a_criterion_and_its_check_exists():
    claims = load_claims()
    assert {"C1", "C2", "C5", "C6", "R1"} <= set(claims)
    for claim in claims.values():
        assert claim["criterion"]
        assert claim["paper"]["text"]
        assert claim["check"] in CHECKS if "check" in claim else claim["never_run"]
        assert "check" not in claim or claim["likely_reason"]
    assert {c["check"] for c in claims.values() if "check" in c} == set(CHECKS)


def test_entries_have_the_contracts_fields():
    entries = evaluate_claims(data(BASE, COLLAPSED, HEALTHY_PG, ladder_records=GOOD_LADDER), "best", "csd reproduce")
    for entry in entries:
        assert set(entry) - {"reason", "notes"} == {
            "id", "statement", "paper", "ours", "verdict", "criterion", "command"
        }  # fmt: skip
        assert entry["verdict"] in {"shown", "not shown", "contradicted", "not run"}
        for figure in entry["ours"].values():
            assert {"value", "lo", "hi", "n", "unit", "method"} <= set(figure)
    assert {e["id"]: e["verdict"] for e in entries}["C5"] == "shown"


def test_standard_error_by_hand():
    assert standard_error({"lo": 0.1, "hi": 0.1 + 2 * 1.96 * 0.05}) == pytest.approx(0.05)


def test_contrasts_are_paired_against_one_arm_and_corrected():
    run = data(BASE, COLLAPSED, HEALTHY_PG)
    found = {row["arm"]: row for row in contrast_rows(run, "base", "x")}
    assert set(found) == {"sdpo", "policy_gradient"}
    assert found["sdpo"]["value"] == pytest.approx(-0.5, abs=0.02)
    assert all(row["p_holm"] >= row["p_value"] for row in found.values())


def test_summary_pools_the_out_of_distribution_suites():
    table = summarise_run(data(BASE, COLLAPSED), n_resamples=200)
    pooled = table[(table.suite == "ood") & (table.metric == "accuracy")].set_index("arm").value
    assert pooled["base"] == pytest.approx(0.8, abs=0.02)
    assert pooled["sdpo"] == pytest.approx(0.3, abs=0.02)
    assert {"accuracy", "markers_per_response", "markers_per_1k", "held_out_per_1k", "length"} <= set(table.metric)


def test_summary_tests_every_arm_against_base_sdpo_and_policy_gradient():
    """Families of 2, 2 and 2: the smallest p-value of a family is doubled."""
    table = summarise_run(data(BASE, COLLAPSED, HEALTHY_PG), n_resamples=200)
    for against in ("base", "sdpo", "policy_gradient"):
        rows = table[table.metric == f"ood_difference_vs_{against}"]
        assert sorted(rows.arm) == sorted({"base", "sdpo", "policy_gradient"} - {against})
        assert rows.p_holm.min() == pytest.approx(2 * rows.p_value.min())
    assert table[table.metric == "accuracy"].p_value.isna().all()


def test_an_arm_that_was_not_finished_is_compared_with_nothing():
    """Its evaluation on the way has fewer questions than the base's last one: claims about it are not run."""
    on_the_way = [r for r in rows("sdpo", 0.3, 0, 20, step=5) if int(r["problem_id"].rpartition("-")[2]) < 30]
    unfinished = RunData(Path("nowhere"), OOD, [*BASE, *on_the_way, *HEALTHY_PG], [], last_step=10)
    assert unfinished.arms == ["base", "policy_gradient"]
    verdicts = {claim["id"]: claim["verdict"] for claim in evaluate_claims(unfinished, "best", "csd reproduce")}
    assert verdicts["C5"] == verdicts["C6"] == "not run"
    assert {row["arm"] for row in contrast_rows(unfinished, "base", "m")} == {"policy_gradient"}
    assert 5 in set(summarise_run(unfinished, n_resamples=50).step)  # what was measured is still in the table
