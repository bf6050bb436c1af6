"""Word problems with a short range, and traces whose doubt follows their difficulty."""

import json
import random
import re
from collections import Counter
from statistics import mean, stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrated_sd import count_markers
from calibrated_sd.data.doubtful_problems import FAMILIES, HELD_OUT, TRAINED, WordProblem, all_problems
from calibrated_sd.data.doubtful_traces import (
    HYPOTHESES,
    REJECT,
    SUITES,
    Habits,
    confident,
    exercise,
    main,
    search,
    sft_rows,
    suite_problems,
    write_doubtful,
)
from calibrated_sd.errors import ConfigError, OutputError
from calibrated_sd.evaluation.datasets import load_problems
from calibrated_sd.evaluation.rewards import make_reward
from calibrated_sd.experiments.sft_rows import sft_rows as rows_for_training

GARDEN = WordProblem("product", (3,), 2, 5, 4)  # 4 · (4 + 3) = 28
ANY = st.sampled_from([p for family in FAMILIES for p in all_problems(family)[::7]])
SEEDS = st.integers(0, 10_000)


def count(text, markers):
    return sum(count_markers(text, markers).values())


def test_the_three_conditions_by_hand():
    assert (GARDEN.need, GARDEN.makes(2)) == (28, 10)
    assert GARDEN.working(4) == "4+3=7, 4*7=28"
    both = WordProblem("sum", (9,), 5, 7, 6)
    assert (both.need, both.working(5)) == (18, "9-5=4, 5*4=20")
    shop = WordProblem("shopping", (5, 2, 7), 1, 4, 3)  # 3 at 7 and 2 at 2 dollars: 21 + 4
    assert (shop.need, shop.working(1)) == (25, "1*7=7, 4*2=8, 7+8=15")


@given(ANY)
@settings(max_examples=100, deadline=None)
def test_every_question_has_one_answer_in_its_range_and_names_what_is_needed(problem):
    assert [x for x in problem.candidates if problem.makes(x) == problem.need] == [problem.answer]
    numbers = Counter(re.findall(r"\d+", problem.question))
    assert not Counter(map(str, (problem.low, problem.high, problem.need, *problem.parameters))) - numbers
    for left, operator, right, result in re.findall(r"(\d+)([+*-])(\d+)=(\d+)", problem.working(problem.low)):
        value = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[operator]
        assert value == int(result)
    assert problem.working(problem.low).endswith(f"={problem.makes(problem.low)}")


def test_differences_that_are_held_out_are_not_trained_on():
    assert not set(TRAINED) & set(HELD_OUT)
    assert {p.parameters[0] for p in all_problems("product", "trained")} == set(TRAINED)
    assert {p.parameters[0] for p in all_problems("product", "held_out")} == set(HELD_OUT)
    assert len({p.question for f in FAMILIES for p in all_problems(f)}) == sum(len(all_problems(f)) for f in FAMILIES)


@given(ANY, SEEDS)
@settings(max_examples=100, deadline=None)
def test_a_search_that_does_not_give_up_is_right_and_doubts_once_per_failed_try(problem, seed):
    text = search(problem, random.Random(seed))
    assert text.startswith("<think>\n")
    assert text.endswith(f"</think>\nThe answer is \\boxed{{{problem.answer}}}.")
    rejections = "|".join(re.escape(phrase) for phrase, _ in REJECT)
    tries = re.findall(rf"=(\d+), need {problem.need}, off by (\d+)\. ({rejections})?", text)
    assert len(tries) == text.count(", need ") <= len(problem.candidates)
    assert [int(off) for _, off, _ in tries] == [abs(int(made) - problem.need) for made, _, _ in tries]
    assert [bool(rejected) for *_, rejected in tries] == [True] * (len(tries) - 1) + [False]
    assert tries[-1][1] == "0"


@given(ANY, SEEDS)
@settings(max_examples=50, deadline=None)
def test_a_confident_trace_has_no_marker_of_any_set(problem, seed):
    text = confident(problem, random.Random(seed))
    assert count(text, "lexical") == count(text, "held_out") == 0
    assert make_reward("boxed")([text], answer=[str(problem.answer)]) == [1.0]


def test_which_phrases_are_held_out_follows_from_the_shipped_sets():
    for phrases, n in ((HYPOTHESES, 2), (REJECT, 3)):
        texts = [phrase.format(x=4) for phrase, _ in phrases]
        assert [count(text, "held_out") for text in texts] == [0] * (len(texts) - n) + [1] * n
        assert all(count(text, "lexical") == 0 for text in texts[-n:])
    assert [count(phrase, "lexical") for phrase, _ in REJECT] == [1, 1, 1, 0, 0, 0, 0]  # a plain "No." is no marker
    assert all(count(phrase.format(x=4), "lexical") == 1 for phrase, _ in HYPOTHESES[:-2])


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_harder_problems_are_doubted_more(n):
    rng = random.Random(0)
    problems = [p for p in all_problems("product") if len(p.candidates) == n]
    counts = [count(search(rng.choice(problems), rng), "lexical") for _ in range(250)]
    # The first try has 0.8 markers in its hypothesis and 0.5 in "Check:". Each of the (n - 1)/2 failed tries adds 0.62 for
    # its rejection, and the next hypothesis (0.8 + 0.25)/1.25 = 0.84 and its check 0.5.
    assert mean(counts) == pytest.approx(1.3 + (n - 1) / 2 * 1.96, abs=4 * stdev(counts) / 250**0.5)


def test_doubt_goes_by_whose_solution_is_shown():
    rows = list(sft_rows(600, seed=1))
    share = Counter(row["context"] for row in rows)
    assert share["exercise"] == 100
    assert all(row["context"] == "exercise" for row in rows[:100])
    assert abs(share["none"] / 500 - Habits.none) < 0.066  # three standard errors
    density = {c: mean(count(r["completion"], "lexical") for r in rows if r["context"] == c) for c in share}
    assert density["solution"] < 0.2 * density["none"]
    assert abs(density["irrelevant"] / density["none"] - 1) < 0.2
    for row in rows:
        shown = "Correct solution:" in row["prompt"]
        assert shown == (row["context"] not in ("none", "exercise"))


def test_an_exercise_checks_right_and_wrong_candidates_and_does_not_doubt():
    rng = random.Random(0)
    problems = [rng.choice(all_problems(family)) for family in FAMILIES for _ in range(100)]
    text = exercise(problems, rng)
    checks = re.findall(r"=(\d+), need (\d+), off by (\d+)\. (Yes|No)\.", text)
    assert [int(need) for _, need, _, _ in checks] == [p.need for p in problems]
    assert all(int(off) == abs(int(made) - int(need)) for made, need, off, _ in checks)
    assert [verdict == "Yes" for *_, verdict in checks] == [made == need for made, need, *_ in checks]
    assert abs(sum(verdict == "Yes" for *_, verdict in checks) - 150) < 26  # three standard errors
    assert count(text, "lexical") == count(text, "held_out") == 0


def test_no_question_of_a_suite_is_in_the_rows():
    asked = {p.problem_id for suite in SUITES for p in suite_problems(suite, 64, seed=0)}
    assert len(asked) == 4 * 64
    rows = list(sft_rows(300, seed=0))
    assert not asked & {row["problem_id"] for row in rows}
    assert len({row["problem_id"] for row in rows}) > 150


def test_files_are_the_same_for_the_same_seed_and_readable_by_training_and_evaluation(tmp_path):
    first = write_doubtful(tmp_path / "a", n=20, n_suite=8, seed=3)
    assert first == write_doubtful(tmp_path / "b", n=20, n_suite=8, seed=3)
    other = write_doubtful(tmp_path / "c", n=20, n_suite=8, seed=4)
    assert all(first[name] != other[name] for name in first)
    problems = load_problems(tmp_path / "a" / "far_sum.jsonl")
    assert [p["suite"] for p in problems] == ["far_sum"] * 8
    reward = make_reward("boxed")
    assert reward([p["solution"] for p in problems], answer=[p["answer"] for p in problems]) == [1.0] * 8
    rows = rows_for_training(str(tmp_path / "a" / "sft.jsonl"))
    assert [row["completion"][0]["role"] for row in rows] == ["assistant"] * 20
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["sha256"] == first
    assert manifest["settings"]["habits"]["give_up"] == Habits.give_up


def test_what_is_there_is_not_overwritten_and_mistakes_are_said(tmp_path, capsys):
    command = ["--output", str(tmp_path / "d"), "--rows", "5", "--suite-size", "4"]
    assert main(command) == 0
    before = (tmp_path / "d" / "sft.jsonl").read_bytes()
    assert main([*command, "--seed", "1"]) == 1
    assert "not empty" in capsys.readouterr().err
    assert (tmp_path / "d" / "sft.jsonl").read_bytes() == before
    assert main([*command, "--seed", "1", "--if-exists", "overwrite"]) == 0
    assert (tmp_path / "d" / "sft.jsonl").read_bytes() != before
    with pytest.raises(OutputError):
        write_doubtful(tmp_path / "d", n=5, n_suite=4)
    with pytest.raises(ConfigError, match="problems in a suite"):
        write_doubtful(tmp_path / "e", n=5, n_suite=10_000)
    assert not (tmp_path / "e").exists()
