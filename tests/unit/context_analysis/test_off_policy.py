"""D_ug, D_sg and their controls, from records made by hand."""

import pytest
from ladder_kit import problem, record

from calibrated_sd.context_analysis.off_policy import (
    INSTRUCTION,
    Answer,
    as_rows,
    build_off_policy,
    match_tokens,
    once,
    right_answers,
)
from calibrated_sd.context_analysis.off_policy_report import off_policy_figures
from calibrated_sd.context_analysis.selection import problem_key

PROBLEMS = [problem(name) for name in "abcd"]
SCREEN = [
    record("a", 0, correct=False, text="screen a0"),
    record("a", 1, n_tokens=100, markers=10, text="screen a1"),
    record("b", 0, n_tokens=60, markers=6, text="screen b0"),
    record("d", 0, n_tokens=50, text="screen d0"),
]
NONE = [
    record("a", 0, n_tokens=30, markers=3, text="none a0"),
    record("b", 0, n_tokens=80, finish="length", text="none b0"),
    record("c", 0, correct=False, text="none c0"),
]
SOLUTION = [
    record("a", 0, n_tokens=20, context="solution", text="guided a0"),
    record("a", 1, n_tokens=28, context="solution", text="guided a1"),
    record("b", 0, correct=False, context="solution"),
    record("b", 1, n_tokens=10, context="solution", text="guided b1"),
    record("c", 0, n_tokens=10, context="solution", text="guided c0"),
]


def built(**options):
    return build_off_policy(PROBLEMS, [SCREEN, NONE], [SOLUTION], **options)


def texts(rows):
    return [a.completion for a in rows]


def test_one_pair_per_problem_of_the_first_right_answers():
    found = built()
    assert texts(found.sets["D_ug"]) == ["screen a1", "screen b0"]  # screening samples come first, as in the paper
    assert texts(found.sets["D_sg"]) == ["guided a0", "guided b1"]
    assert found.skipped == {"no right unguided answer": 1, "no right guided answer": 1}  # c and d
    assert found.n_cut == 1  # none b0
    assert texts(built(n=1).sets["D_ug"]) == ["screen a1"]
    assert built(n=1).skipped["enough pairs"] == 1


def test_length_matched_pairs_are_the_closest():
    found = built()
    # a: 100 or 30 without, 20 or 28 with a solution; 30 and 28 are closest. b: 60 and 10 is all there is.
    assert [(a.completion, b.completion) for a, b in found.closest] == [
        ("none a0", "guided a1"),
        ("screen b0", "guided b1"),
    ]
    assert texts(built(tolerance=0.1).sets["D_ug_length_matched"]) == ["none a0"]  # 2/30 < 0.1 < 50/60
    shown = off_policy_figures(found)["length_matched"]
    assert shown["n_tokens_difference"]["value"] == pytest.approx((2 + 50) / 2)
    assert shown["mean_length_gap"]["value"] == pytest.approx(26)
    assert shown["legacy_difference"]["value"] == pytest.approx((3 + 6) / 2)
    assert shown["length_ratio"]["value"] == pytest.approx(90 / 38)


def test_token_matched_sets_come_as_near_as_examples_allow():
    found = built()
    figures = off_policy_figures(found)
    # D_ug has 100 + 60 tokens, D_sg 20 + 10. One example of D_ug at least, in the seeded order.
    assert len(found.sets["D_ug_token_matched"]) == 1
    # D_sg grows: 20, 10, then the spare guided a1 (28) = 58, then all again: 78, 88, 116, 136, 146, 174. 160 − 146 = 14
    # and 174 − 160 = 14 are equal, so the smaller set is taken: 8 examples.
    assert texts(found.sets["D_sg_token_matched"]) == ["guided a0", "guided b1", "guided a1"] * 2 + [
        "guided a0",
        "guided b1",
    ]
    assert figures["token_matched"]["D_sg_token_matched"]["residual_tokens"] == 146 - 160
    shown = figures["sets"]["D_sg_token_matched"]
    assert (shown["examples"], shown["different_examples"], shown["problems"], shown["tokens"]) == (8, 3, 2, 146)


def test_a_subset_does_not_look_at_length_and_depends_on_the_seed():
    rows = [Answer(("s", str(i)), "", 10, {}, "none", 0) for i in range(20)]
    kept = {seed: match_tokens(rows, [], 52, seed) for seed in range(4)}
    assert all(len(rows) == 5 for rows in kept.values())  # 50 is nearer to 52 than 60
    assert len({tuple(a.key for a in rows) for rows in kept.values()}) > 1
    assert kept[0] == match_tokens(rows, [], 52, 0)


def test_figures_of_a_set_are_per_problem():
    shown = off_policy_figures(built())["sets"]["D_ug"]
    assert shown["n_tokens"]["value"] == 80
    assert shown["legacy_per_response"]["value"] == 8
    assert shown["legacy_per_1k"]["value"] == pytest.approx(1000 * 16 / 160)
    assert (shown["tokens"], shown["n_tokens"]["n"]) == (160, 2)


def test_a_repeated_text_is_one_answer():
    found, _ = right_answers([record("a", 0, text="same"), record("a", 1, text="same"), record("a", 2, text="other")])
    assert texts(found[("s", "a")]) == ["same", "other"]


def test_the_instruction_stands_once():
    doubled = [
        {"role": "system", "content": INSTRUCTION},
        {"role": "user", "content": f"What is 2 + 2?\n{INSTRUCTION}"},
    ]
    assert once(doubled) == [{"role": "user", "content": f"What is 2 + 2?\n{INSTRUCTION}"}]
    assert once(once(doubled)) == once(doubled)
    assert once(f"{INSTRUCTION}\nWhat?\n{INSTRUCTION}") == f"What?\n{INSTRUCTION}"
    assert once("What?") == "What?"
    assert once("What?", add=True) == f"What?\n{INSTRUCTION}"
    assert once(r"Put it in \boxed{}.", add=True) == r"Put it in \boxed{}."


def test_rows_are_chats_where_the_problem_is_one():
    found = built()
    by_key = {problem_key(p): p for p in PROBLEMS}
    assert as_rows(found.sets["D_sg"], by_key)[0] == {
        "prompt": [{"role": "user", "content": "question a"}],
        "completion": [{"role": "assistant", "content": "guided a0"}],
        "problem_id": "a",
        "answer": "4",
        "context": "solution",
        "n_tokens": 20,
    }
    as_text = {key: {**p, "prompt": "question"} for key, p in by_key.items()}
    assert as_rows(found.sets["D_sg"], as_text)[0]["completion"] == "guided a0"


def test_the_opening_of_the_thinking_is_part_of_the_answer():
    by_key = {problem_key(p): p for p in PROBLEMS}
    answers, _ = right_answers([record("a", 0, text="maybe</think>4"), record("a", 1, text="<think> 4</think>4")])
    rows = as_rows(answers["s", "a"], by_key, opening="<think>\n", template_kwargs={"enable_thinking": True})
    shown = [row["completion"][0]["content"] for row in rows]
    assert shown == ["<think>\nmaybe</think>4", "<think> 4</think>4"]
    assert rows[0]["chat_template_kwargs"] == {"enable_thinking": True}  # TRL hands them to the template


def test_nothing_in_common_gives_empty_sets_and_figures():
    found = build_off_policy(PROBLEMS, [SCREEN], [[]])
    assert found.sets == {"D_ug": [], "D_sg": []}
    assert off_policy_figures(found)["pairs"]["n_pairs"] == 0
