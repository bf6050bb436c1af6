"""Evaluation suites and the reward."""

import pytest

from calibrated_sd.errors import ConfigError
from calibrated_sd.organism.suites import (
    SUITES,
    correctness_reward,
    load_suite,
    suite_problems,
    training_problems,
)


def test_training_sets_are_nested_and_seeded():
    assert training_problems(8) == training_problems(64)[:8]
    assert training_problems(64) != training_problems(64, seed=1)


def test_out_of_distribution_suites_share_no_problem_and_no_parameter_with_training():
    trained = {p.problem_id for p in training_problems(10_000)}
    for suite in SUITES:
        if suite != "train":
            assert not trained & {p.problem_id for p in suite_problems(suite, 10_000)}
    assert {p.split for p in suite_problems("heldout", 10_000)} == {"heldout"}


def test_problem_ids_are_unique_over_all_suites():
    rows = load_suite("organism", n=50)
    assert len({r["problem_id"] for r in rows}) == len(rows) == 200


def test_an_unknown_suite_suggests_the_nearest():
    with pytest.raises(ConfigError, match="far_linear"):
        suite_problems("far_liner", 3)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("so \\boxed{ 12 } .", 1.0),
        ("first \\boxed{ 3 } then \\boxed{ 12 } .", 1.0),  # the last box counts
        ("first \\boxed{ 12 } then \\boxed{ 3 } .", 0.0),
        ("\\boxed{12}", 1.0),
        ("no box 12", 0.0),
        ("cut \\boxed{ 12", 0.0),
        ("", 0.0),
    ],
)
def test_the_reward_reads_the_last_complete_box(text, right):
    assert correctness_reward([text], answer=["12"]) == [right]


def test_reward_reads_text_and_messages():
    message = [{"role": "assistant", "content": "\\boxed{ 4 }"}]
    assert correctness_reward([message, "\\boxed{ 5 }", "nothing"], answer=["4", "4", "4"]) == [1.0, 0.0, 0.0]
