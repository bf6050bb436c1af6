"""Claims about what is learnt off-policy (C3, C4), who teaches (C8), how fast and how many words (C9)."""

import pytest
from claims_kit import by_hand, data, fewer_resamples, rows  # noqa: F401

from calibrated_sd.experiments.claim_checks.teachers import over_evaluations
from calibrated_sd.experiments.claims import CHECKS, evaluate_claims

BASE = rows("base", 0.8, 8, 80, step=0)
MATCHED = "_token_matched"


def sft(d_ug, d_sg, d_ug_matched, d_sg_matched):
    accuracies = {"d_ug": d_ug, "d_sg": d_sg, "d_ug" + MATCHED: d_ug_matched, "d_sg" + MATCHED: d_sg_matched}
    return data(BASE, *(rows(f"sft_{name}", accuracy, 4, 50, step=4) for name, accuracy in accuracies.items()))


@pytest.mark.parametrize(
    ("run", "guided", "unguided"),
    [
        (sft(0.8, 0.3, 0.8, 0.3), "shown", "shown"),
        (sft(0.8, 0.3, 0.8, 0.8), "not shown", "not shown"),  # D_sg harms at its own number of tokens alone
        (sft(0.8, 0.3, 0.3, 0.3), "shown", "not shown"),  # too few examples harm D_ug as well
        (sft(0.3, 0.95, 0.3, 0.9), "contradicted", "contradicted"),
        (data(BASE, rows("sft_d_sg", 0.3, 0, 20)), "not run", "not run"),
    ],
)
def test_off_policy(run, guided, unguided):
    assert CHECKS["guided_sft_collapses"](run, "best")[1] == guided
    assert CHECKS["unguided_sft_holds"](run, "best")[1] == unguided


def test_off_policy_figures_by_hand():
    run = sft(0.7, 0.3, 0.65, 0.4)  # shares of the same questions
    figures, _ = CHECKS["guided_sft_collapses"](run, "best")
    assert {name: by_hand(f) for name, f in figures.items()} == {
        "ood_sft_d_sg_minus_base": -0.5,
        "ood_sft_d_sg_token_matched_minus_base": -0.4,
    }
    figures, _ = CHECKS["unguided_sft_holds"](run, "best")
    assert by_hand(figures["ood_sft_d_ug_minus_sft_d_sg"]) == 0.4
    assert by_hand(figures["ood_sft_d_ug_minus_sft_d_sg_token_matched"]) == 0.3
    assert by_hand(figures["ood_sft_d_ug_token_matched_minus_sft_d_sg"]) == 0.35
    assert by_hand(figures["ood_sft_d_ug_minus_base"]) == -0.1


def curve(arm, accuracies, tokens, markers=4, seed=0):
    """Evaluations after 10, 20 and 30 steps."""
    return [
        row
        for step, accuracy in zip((10, 20, 30), accuracies, strict=True)
        for row in rows(arm, accuracy, markers, tokens, step=step, seed=seed)
    ]


FROZEN = curve("sdpo_slow", (0.8, 0.6, 0.2), 60)


@pytest.mark.parametrize(
    ("ema", "expected"),
    [
        (curve("sdpo_slow_ema", (0.8, 0.3, 0.2), 40), "shown"),  # both end at the floor; the mean decides
        (curve("sdpo_slow_ema", (0.8, 0.3, 0.2), 60), "not shown"),  # as long
        (curve("sdpo_slow_ema", (0.8, 0.6, 0.2), 40), "not shown"),  # as good
        (curve("sdpo_slow_ema", (0.9, 0.7, 0.5), 40), "contradicted"),
        (curve("sdpo_slow_ema", (0.8, 0.3, 0.2), 70), "contradicted"),  # longer
        ([], "not run"),
    ],
)
def test_frozen_teacher(ema, expected):
    assert CHECKS["frozen_teacher_is_better"](data(FROZEN, ema), "best")[1] == expected


def test_the_mean_over_evaluations_by_hand():
    run = data(FROZEN, curve("sdpo_slow_ema", (0.8, 0.3, 0.2), 40), curve("sdpo_slow_live", (0.6, 0.2, 0.2), 30))
    figures, _ = CHECKS["frozen_teacher_is_better"](run, "best")
    assert by_hand(figures["ood_frozen_minus_ema"]) == 0.1  # (0 + 0.3 + 0) / 3
    assert by_hand(figures["length_frozen_minus_ema"]) == 20
    assert by_hand(figures["ood_frozen_minus_live"]) == 0.2  # (0.2 + 0.4 + 0) / 3


def test_every_evaluation_counts_once_on_questions_asked_in_all_and_seeds_that_finished():
    few = [r for r in rows("sdpo_slow", 1.0, 4, 50, step=10) if r["problem_id"] in ("far-0", "far-1")]
    last = rows("sdpo_slow", 0.0, 4, 50, step=30, samples=4)
    other = rows("sdpo_slow", 1.0, 4, 50, step=10, seed=1)
    run = data(few, last, other)
    assert over_evaluations(run, "sdpo_slow", "correct") == {0: {"far-0": 0.5, "far-1": 0.5}}


FAST = [*rows("sdpo", 0.3, 1, 30, step=10), *rows("sdpo", 0.25, 0, 20, step=16)]


def delay(at_10=(0.7, 8, 80), at_30=(0.3, 0, 20), *more):
    slow = [*rows("sdpo_slow", *at_10, step=10), *rows("sdpo_slow", *at_30, step=30)]
    return data(BASE, FAST, slow, *more, last_step=16, steps={"sdpo_slow": 30, "sdpo": 16})


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (delay(), "shown"),
        (delay(at_10=(0.3, 8, 80)), "not shown"),  # as bad as the fast one by then
        (delay(at_10=(0.7, 1, 30)), "not shown"),  # as sure as the fast one by then
        (delay(at_30=(0.8, 8, 80)), "not shown"),  # it did not come
        (delay(at_30=(1.0, 8, 80)), "contradicted"),
        (delay(at_10=(0.1, 8, 80)), "contradicted"),
        (data(BASE, FAST), "not run"),
        (data(BASE, rows("sdpo", 0.3, 0, 20, step=16), curve("sdpo_slow", (0.8, 0.5, 0.3), 50)), "not run"),
    ],
)
def test_a_lower_rate_only_delays(run, expected):
    assert CHECKS["lower_rate_only_delays"](run, "best")[1] == expected


def test_delay_by_hand():
    figures, _ = CHECKS["lower_rate_only_delays"](delay(), "best")
    assert by_hand(figures["ood_slow_minus_fast_step_10"]) == 0.4
    # markers are 8 ½ and 1 ½ on average, tokens 81 and 31
    assert figures["markers_per_1k_slow_minus_fast_step_10"]["value"] == pytest.approx(8500 / 81 - 1500 / 31)
    assert by_hand(figures["ood_slow_minus_base"]) == -0.5


def test_top_k_is_called_level_or_not():
    run = delay(
        (0.7, 8, 80), (0.3, 0, 20), rows("sdpo_top20", 0.25, 0, 20, step=16), rows("sdpo_top5", 0.1, 0, 20, step=16)
    )
    entry = next(e for e in evaluate_claims(run, "best", "csd reproduce") if e["id"] == "C9")
    assert entry["verdict"] == "shown"
    assert "reason" not in entry
    top20, top5 = entry["notes"]
    assert top20.startswith("ood_top20_minus_full: level")
    assert top5.startswith("ood_top5_minus_full: different")


def test_policy_gradient_at_the_papers_ratio_is_reported_and_decides_nothing():
    arms = (BASE, rows("sdpo", 0.3, 0, 20), rows("policy_gradient", 0.9, 8, 80))
    figures, verdict = CHECKS["policy_gradient_holds"](data(*arms, rows("policy_gradient_low", 0.1, 0, 20)), "best")
    assert verdict == CHECKS["policy_gradient_holds"](data(*arms), "best")[1] == "shown"
    assert by_hand(figures["ood_policy_gradient_low_minus_base"]) == -0.7


def test_a_reason_is_given_where_a_claim_fails_or_can_never_be_run():
    entries = {e["id"]: e for e in evaluate_claims(delay(at_30=(0.8, 8, 80)), "best", "csd reproduce")}
    assert entries["C9"]["verdict"] == "not shown"
    assert entries["C9"]["reason"]
    assert entries["C10"]["verdict"] == "not run"
    assert "thinking switch" in entries["C10"]["reason"]
    assert entries["C3"]["verdict"] == "not run"
    assert "reason" not in entries["C3"]  # it can be run, with --full
