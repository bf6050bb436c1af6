"""Levels and how mixtures of them are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrated_sd.contexts import CONTEXTS, Sources, parse_levels
from calibrated_sd.errors import ConfigError

FULL = Sources(rollout="<think>r1</think>r2", solution="s1</think>s2")


@pytest.mark.parametrize(
    ("level", "demo", "shown"),
    [
        ("none", "rollout", ""),
        ("rollout", "rollout", "<think>r1</think>r2"),
        ("solution", "rollout", "s1</think>s2"),
        ("stripped", "rollout", "r2"),
        ("stripped", "solution", "s2"),
    ],
)
def test_what_each_level_shows(level, demo, shown):
    assert CONTEXTS[level].demonstration(Sources(FULL.rollout, FULL.solution, demo)) == shown


def test_levels_without_their_source_are_missing():
    assert {name: context.demonstration(Sources()) for name, context in CONTEXTS.items()} == {
        "none": "",  # needs nothing
        "stripped": None,
        "solution": None,
        "rollout": None,
    }


def test_a_demonstration_that_is_all_thinking_is_missing_once_stripped():
    assert CONTEXTS["stripped"].demonstration(Sources(rollout="<think>only this</think>")) is None


def test_which_levels_read_the_solution_column():
    needing = {
        (name, demo) for name in CONTEXTS for demo in ("rollout", "solution") if CONTEXTS[name].needs_solution(demo)
    }
    assert needing == {("solution", "rollout"), ("solution", "solution"), ("stripped", "solution")}
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
