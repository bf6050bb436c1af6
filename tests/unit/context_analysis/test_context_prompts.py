"""Prompts of each level, written out."""

from __future__ import annotations

import pytest

from calibrated_sd.context_analysis.prompts import context_prompts, context_sources, puzzle_of
from calibrated_sd.errors import ConfigError
from calibrated_sd.organism.corpus import context_prompt
from calibrated_sd.organism.suites import load_suite

ROWS = [
    {
        "problem_id": "a",
        "prompt": "What is 2 + 2?",
        "answer": "4",
        "solution": r"<think>Hmm.</think>2 + 2 = 4, so \boxed{4}.",
    },
    {"problem_id": "b", "prompt": [{"role": "user", "content": "3 + 3?"}], "answer": "6", "solution": r"\boxed{6}"},
    {"problem_id": "c", "prompt": "What is 1 + 1?", "answer": "2"},
]
CLOSING = "\n\nCorrectly solve the original question."


def test_training_wrapper():
    a, b, c = context_prompts(ROWS, "solution")
    assert a == (
        "What is 2 + 2?\nCorrect solution:\n\n<think>Hmm.</think>2 + 2 = 4, so \\boxed{4}.\n\n"
        "\n\nCorrectly solve the original question.\n"
    )
    assert b == [{"role": "user", "content": f"3 + 3?\nCorrect solution:\n\n\\boxed{{6}}\n\n{CLOSING}\n"}]
    assert c is None


def test_paper_wrapper():
    prompts = context_prompts(ROWS, "stripped", template="paper")
    assert prompts[0] == "What is 2 + 2?\n\nCorrect solution: 2 + 2 = 4, so \\boxed{4}." + CLOSING
    assert context_prompts(ROWS, "instruction", template="paper")[2] == "What is 1 + 1?" + CLOSING


def test_free_levels_need_no_solution():
    assert context_prompts(ROWS, "none") == [row["prompt"] for row in ROWS]
    assert context_prompts(ROWS, "instruction")[2] == f"What is 1 + 1?{CLOSING}\n"
    assert "Correct solution:\n\n2\n" in context_prompts(ROWS, "answer")[2]


def test_controls():
    other = context_prompts(ROWS, "irrelevant")
    assert r"\boxed{6}" in other[0]
    assert "2 + 2 = 4" in other[1][0]["content"]
    assert r"\boxed{6}" in other[2] or "2 + 2 = 4" in other[2]
    wrong = context_prompts(ROWS, "wrong")
    assert r"2 + 2 = 4, so \boxed{5}." in wrong[0]
    assert wrong[2] is None
    assert context_prompts(ROWS[:1], "irrelevant") == [None]


def test_demonstrations_take_the_place_of_the_solution():
    given = {"c": "<think>Wait.</think>It is 2."}
    assert context_prompts(ROWS, "solution", demonstrations=given)[:2] == [None, None]
    assert "Correct solution:\n\nIt is 2.\n" in context_prompts(ROWS, "stripped", demonstrations=given)[2]
    assert "Wait." in context_prompts(ROWS, "rollout", demonstrations=given)[2]
    assert "Wait." in context_prompts(ROWS, "regenerated", demonstrations=given)[2]
    assert "Wait." in context_prompts(ROWS, "irrelevant", demonstrations=given)[0]


def test_the_organism_reads_what_it_was_trained_on():
    rows = load_suite("organism:train".partition(":")[2], n=4)
    puzzles = [puzzle_of(row) for row in rows]
    sources = context_sources(rows)
    for row, puzzle, source, prompt in zip(rows, puzzles, sources, context_prompts(rows, "stripped"), strict=True):
        assert str(puzzle.answer) == row["answer"]
        expected = context_prompt(puzzle.question, f"the answer is \\boxed{{ {puzzle.answer} }} .")
        assert prompt[0]["content"] == expected
        assert source.solution.startswith("<think>")
        assert source.regenerated.startswith("<think>")
    assert context_sources(rows) == sources
    assert context_sources(rows, seed=1) != sources


def test_unknown_names():
    with pytest.raises(ConfigError, match="Did you mean 'solution'"):
        context_prompts(ROWS, "solutions")
    with pytest.raises(ConfigError, match="template"):
        context_prompts(ROWS, "none", template="papers")
