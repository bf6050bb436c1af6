"""Levels and how mixtures of them are written."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrated_sd.contexts import CONTEXTS, Sources, parse_levels
from calibrated_sd.errors import ConfigError

FULL = Sources(
    rollout="<think>r1</think>r2",
    solution="s1</think>s2 the answer is 4",
    answer="4.0",
    regenerated="<think>y1</think>y2",
    other="another problem's",
    wrong="the answer is 3",
)


@pytest.mark.parametrize(
    ("level", "demo", "shown"),
    [
        ("none", "rollout", ""),
        ("rollout", "rollout", "<think>r1</think>r2"),
        ("solution", "rollout", "s1</think>s2 the answer is 4"),
        ("regenerated", "rollout", "<think>y1</think>y2"),
        ("stripped", "rollout", "r2"),
        ("stripped", "solution", "s2 the answer is 4"),
        ("hint", "solution", "s1</think>s2"),  # half of 29 characters ends inside "the"
        ("answer", "rollout", "4.0"),
        ("irrelevant", "rollout", "another problem's"),
        ("wrong", "rollout", "the answer is 3"),
    ],
)
def test_what_each_level_shows(level, demo, shown):
    assert CONTEXTS[level].demonstration(replace(FULL, demo=demo)) == shown


def test_a_hint_shows_the_beginning_of_the_demonstration_with_its_thinking():
    sources = Sources(rollout="<think> try three </think> four", hint_fraction=0.6)
    assert CONTEXTS["hint"].demonstration(sources) == "<think> try three"
    assert CONTEXTS["hint"].demonstration(Sources(rollout="four")) is None  # not even one word fits


def test_an_answer_is_taken_out_of_the_solution_if_there_is_no_column():
    assert CONTEXTS["answer"].demonstration(Sources(solution=r"so \boxed{4}")) == "4"
    assert CONTEXTS["answer"].demonstration(Sources(solution="so four")) is None
    assert CONTEXTS["answer"].demonstration(Sources(rollout=r"so \boxed{4}")) is None  # a rollout is no reference


def test_a_wrong_solution_is_made_up_if_there_is_none():
    assert CONTEXTS["wrong"].demonstration(Sources(solution="the answer is 4")) == "the answer is 5"
    assert CONTEXTS["wrong"].demonstration(Sources(rollout="the answer is 6")) == "the answer is 7"
    assert CONTEXTS["wrong"].demonstration(Sources(solution="the answer is red")) is None


def test_levels_without_their_source_are_missing():
    assert {name: context.demonstration(Sources()) for name, context in CONTEXTS.items()} == {
        "none": "",  # needs nothing
        **dict.fromkeys(set(CONTEXTS) - {"none"}),
    }


def test_a_demonstration_that_is_all_thinking_is_missing_once_stripped():
    assert CONTEXTS["stripped"].demonstration(Sources(rollout="<think>only this</think>")) is None


def test_which_levels_read_the_solution_column():
    needing = {
        (name, demo) for name in CONTEXTS for demo in ("rollout", "solution") if CONTEXTS[name].needs_solution(demo)
    }
    assert needing == {
        *((name, "solution") for name in ("solution", "regenerated", "stripped", "hint", "irrelevant")),
        *((name, "rollout") for name in ("solution", "regenerated")),
    }
    assert [name for name, context in CONTEXTS.items() if context.is_free] == ["none"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("solution", {"solution": 1.0}),
        ("solution:0.7,none:0.3", {"solution": 0.7, "none": 0.3}),
        (" none : 0.3 , solution : .7 ", {"none": 0.3, "solution": 0.7}),
        ('{"solution": 0.7, "none": 0.3}', {"solution": 0.7, "none": 0.3}),
        ({"solution": 0.7, "none": 0.3}, {"solution": 0.7, "none": 0.3}),
        ("solution:1,none:0", {"solution": 1.0}),
        ("solution:0.3333333,none:0.6666667", {"solution": 0.3333333, "none": 0.6666667}),
    ],
)
def test_ways_to_write_a_mixture(written, meant):
    assert parse_levels(written) == meant
    assert list(parse_levels(written)) == list(meant)


def test_levels_without_weight_are_kept_for_a_schedule():
    assert parse_levels("stripped:1,none:0", keep_zero=True) == {"stripped": 1.0, "none": 0.0}
    assert list(parse_levels("answer:0,solution:1,none:0", keep_zero=True)) == ["answer", "solution", "none"]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("solutoin:1", "Did you mean 'solution'"),
        ("solution:0.7,none:0.2", "sum to 0.9, not 1"),
        ("solution:0.5,solution:0.5", "names 'solution' twice"),
        ("solution:-0.5,none:1.5", "the weight '-0.5'"),
        ("solution:lots,none:0.3", "the weight 'lots'"),
        ("solution:nan,none:1", "the weight 'nan'"),
        ("solution,none:0.3", "the part 'solution' has no weight"),
        ('{"solution": 0.7', "starts like a JSON object"),
        ("", "Unknown context level ''"),
        ({}, "sum to 0, not 1"),
    ],
)
def test_mistakes_are_explained(written, message):
    with pytest.raises(ConfigError) as error:
        parse_levels(written)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@given(st.dictionaries(st.sampled_from(sorted(CONTEXTS)), st.integers(1, 9), min_size=1))
def test_text_and_mapping_mean_the_same(parts):
    total = sum(parts.values())
    weights = {name: part / total for name, part in parts.items()}
    assert parse_levels(",".join(f"{name}:{weight!r}" for name, weight in weights.items())) == parse_levels(weights)


NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
ROOT = Path(__file__).parents[3]


def test_the_readme_counts_the_levels():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"\[context\]\(\S+\) has (\w+) levels", readme)[1] == NUMBERS[len(CONTEXTS)]


def test_the_page_has_a_row_for_each_level():
    page = (ROOT / "docs/reference/contexts.md").read_text(encoding="utf-8")
    levels = page.partition("## Levels")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", levels, re.M) == list(CONTEXTS)
