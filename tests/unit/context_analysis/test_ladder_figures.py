"""Prompts of the rungs, and figures and checks of a ladder made by hand."""

import pytest
from ladder_kit import problem, record

from calibrated_sd.context_analysis.ladder_prompts import (
    add_sampled_solutions,
    add_written_solutions,
    complete_rows,
    parse_ladder,
    stripped_solution,
)
from calibrated_sd.context_analysis.ladder_table import interval_text, ladder_figures, ratio_rows, table_rows
from calibrated_sd.errors import ConfigError
from calibrated_sd.organism.suites import load_suite


def level(context, right, tokens, markers):
    """Two samples of each of eight problems; problem i has i more tokens, so that intervals are not points."""
    return [
        record(f"p{i}", sample, correct=i < right, n_tokens=tokens + i, markers=markers + i % 2, context=context)
        for i in range(8)
        for sample in (0, 1)
    ]


LADDER = {
    "none": level("none", 2, 100, 10),
    "stripped": level("stripped", 6, 90, 9),
    "regenerated": level("regenerated", 8, 30, 1),
    "solution": level("solution", 8, 20, 0),
}


@pytest.fixture(scope="module")
def found():
    return ladder_figures(LADDER)


def test_levels_are_ordered_and_checked():
    assert parse_ladder("wrong, solution,none") == ("none", "solution", "wrong")
    for text, message in (("solutoin", "Did you mean 'solution'"), ("none,none", "none twice"), ("", "at least one")):
        with pytest.raises(ConfigError, match=message):
            parse_ladder(text)
    with pytest.raises(ConfigError, match="Unknown context level 'rollout'"):
        parse_ladder("rollout")


def test_what_is_left_of_a_solution():
    assert stripped_solution(problem("a", "<think>maybe 4?</think> It is 4.")) == "It is 4."
    assert stripped_solution(problem("a", "maybe 4?</think> It is 4.")) == "It is 4."
    assert stripped_solution(problem("a", "<think>all thinking</think>")) is None
    assert stripped_solution(problem("a", "2 + 2 = 4")) == "The final answer is \\boxed{4}."
    assert stripped_solution(problem("a")) is None
    puzzle = load_suite("heldout", n=1)[0]
    shown = stripped_solution({**puzzle, "solution": "x = 3"})
    assert shown == f"the answer is \\boxed{{ {puzzle['answer']} }} ."


def test_solutions_come_from_the_file_or_from_the_first_right_sample():
    rows = [problem("a", "written"), problem("b")]
    assert [row["solution"] for row in add_written_solutions(rows)] == ["written", None]
    samples = {("s", "a"): [record("a", 0, correct=False), record("a", 1, text="sampled")]}
    assert [row["solution"] for row in add_sampled_solutions(rows, samples)] == ["sampled", None]
    puzzle = load_suite("heldout", n=1)
    assert f"\\boxed{{ {puzzle[0]['answer']} }}" in add_written_solutions(puzzle)[0]["solution"]


def test_all_levels_have_the_same_problems():
    rows = [
        problem("a", "<think>t</think> so 4"),
        problem("b", "<think>t</think>"),
        problem("c", "x" * 90 + "</think>4"),
    ]
    kept, by_level, left_out = complete_rows(
        rows,
        ("none", "stripped", "solution"),
        template="paper",
        seed=0,
        too_long=lambda row: len(row["prompt"][0]["content"]) > 140,
    )
    assert [row["problem_id"] for row in kept] == ["a"]
    assert left_out == {"nothing to show for level stripped": 1, "prompt of level solution too long": 1}
    assert [row["prompt"][0]["content"] for rows in by_level.values() for row in rows] == [
        "question a",
        "question a\n\nCorrect solution: so 4\n\nCorrectly solve the original question.",
        "question a\n\nCorrect solution: <think>t</think> so 4\n\nCorrectly solve the original question.",
    ]


def test_figures_and_ratios(found):
    # none: tokens 100 … 107, mean 103.5; markers 10, 11, 10, …, mean 10.5. solution: 23.5 tokens, 0.5 markers.
    none = found["levels"]["none"]
    assert none["n_tokens"]["value"] == pytest.approx(103.5)
    assert none["legacy_per_response"]["value"] == pytest.approx(10.5)
    assert none["legacy_per_1k"]["value"] == pytest.approx(1000 * 10.5 / 103.5)
    assert none["accuracy"]["value"] == pytest.approx(2 / 8)
    ratios = found["ratios_to_none"]["solution"]
    assert ratios["n_tokens"]["value"] == pytest.approx(23.5 / 103.5)
    assert ratios["legacy_per_1k"]["value"] == pytest.approx((0.5 / 23.5) / (10.5 / 103.5))
    assert ratios["legacy_per_1k"]["lo"] < ratios["legacy_per_1k"]["value"] < ratios["legacy_per_1k"]["hi"]
    assert ratios["held_out_per_1k"]["value"] is None  # nothing over nothing
    assert found["differences_to_none"]["solution"]["accuracy"]["value"] == pytest.approx(6 / 8)


def test_the_papers_orderings_are_checked_step_by_step(found):
    checks = {(c["claim"], c["statement"]): c for c in found["checks"]}
    assert [s for c, s in checks if c == "C1" and s.startswith("length")] == [
        "length, none > stripped",
        "length, stripped > regenerated",
        "length, regenerated > solution",
        "length, none > solution",
    ]
    assert [s for c, s in checks if c == "C2"] == [
        "accuracy, stripped > none",
        "accuracy, regenerated > stripped",
        "accuracy, solution > stripped",
        "accuracy, solution > none",
        "accuracy, s − ∅ ≥ 0.3",
    ]
    step = checks["C1", "length, stripped > regenerated"]
    assert step["value"] == pytest.approx(60)
    assert step["verdict"] == "shown"
    # Eight differences of one sign: 2 of 2^8 sign patterns are as extreme. Four steps, so Holm's largest factor is 4.
    assert step["p_value"] == pytest.approx(2 / 2**8)
    assert step["p_holm"] == pytest.approx(4 * 2 / 2**8)
    assert checks["C1", "legacy density, s/∅ ≤ 0.6"]["verdict"] == "shown"  # 0.21
    assert checks["C2", "accuracy, stripped > none"]["value"] == pytest.approx(4 / 8)


def test_the_opposite_order_is_called_contradicted_and_no_difference_not_shown():
    turned = ladder_figures({"none": LADDER["solution"], "solution": LADDER["none"]})
    verdicts = {c["statement"]: c["verdict"] for c in turned["checks"]}
    assert verdicts["length, none > solution"] == "contradicted"
    assert verdicts["legacy density, s/∅ ≤ 0.6"] == "contradicted"
    assert verdicts["accuracy, s − ∅ ≥ 0.3"] == "contradicted"
    same = ladder_figures({"none": LADDER["none"], "solution": LADDER["none"]})
    assert {c["verdict"] for c in same["checks"] if ">" in c["statement"]} == {"not shown"}


def test_controls_are_compared_with_none_but_are_no_rungs():
    found = ladder_figures({"none": LADDER["none"], "wrong": LADDER["stripped"]})
    assert set(found["ratios_to_none"]) == {"wrong"}
    assert found["checks"] == []


def test_ungraded_problems_are_left_out_of_differences_only():
    none = [dict(r, correct=None) if r["problem_id"] == "p0" else r for r in LADDER["none"]]
    found = ladder_figures({"none": none, "solution": LADDER["solution"]})
    shown = found["differences_to_none"]["solution"]["accuracy"]
    assert (shown["n"], shown["value"]) == (7, pytest.approx(6 / 7))  # p1 is right under both, p2 … p7 under one
    assert found["ratios_to_none"]["solution"]["n_tokens"]["n"] == 8


def test_the_printed_tables(found):
    headings, first, *_, last = table_rows(found)
    assert headings == ["context", "score", "length", "E(y)", "E per 1k"]
    assert first[0] == "(1) c = ∅"
    assert last[0] == "(2) c = s"
    assert first[2].startswith("104 [")
    assert ratio_rows(found)[1][1:4] == ["–"] * 3
    assert interval_text({"value": 13054.0, "lo": 12000.0, "hi": None}) == "13,054 [12,000, ∞]"


def test_a_ratio_of_few_markers_has_no_interval_and_proves_nothing():
    """1 marker without context and none with it: resampling alone would say 0 [0, 0]."""
    few = [record(f"p{i}", 0, correct=True, n_tokens=100, markers=int(i == 0), context="none") for i in range(8)]
    none = [record(f"p{i}", 0, correct=True, n_tokens=50, markers=0, context="solution") for i in range(8)]
    found = ladder_figures({"none": few, "solution": none})
    shown = found["ratios_to_none"]["solution"]["legacy_per_1k"]
    assert (shown["value"], shown["lo"], shown["hi"]) == (0.0, None, None)
    assert "1 markers without context are too few" in shown["method"]
    (check,) = [c for c in found["checks"] if c["statement"] == "legacy density, s/∅ ≤ 0.6"]
    assert check["verdict"] == "not shown"


def test_no_marker_under_a_context_still_leaves_an_upper_end():
    """16 samples × 10 markers without context, none in half as many tokens: 3.689 / (160 · 0.5) = 0.0461."""
    base = [
        record(f"p{i}", k, correct=True, n_tokens=100, markers=10, context="none") for i in range(8) for k in (0, 1)
    ]
    none = [
        record(f"p{i}", k, correct=True, n_tokens=50, markers=0, context="solution") for i in range(8) for k in (0, 1)
    ]
    shown = ladder_figures({"none": base, "solution": none})["ratios_to_none"]["solution"]
    assert shown["legacy_per_1k"]["hi"] == pytest.approx(3.689 / 80, abs=1e-4)
    assert shown["legacy_per_response"]["hi"] == pytest.approx(3.689 / 160, abs=1e-4)
