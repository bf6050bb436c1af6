"""Which problems a ladder is measured on."""

import pytest
from ladder_kit import passes, problem, record

from calibrated_sd.context_analysis.selection import CHUNK, Selector, first_correct, select_problems
from calibrated_sd.errors import ConfigError

RIGHT = {"a": 0, "b": 1, "c": 4, "d": 5, "e": 8, "f": 2}
"""Right ones of 8: the band [0.125, 0.5] holds 1 to 4, hence b, c and f."""


def draw(chunk, number):
    return [r for p in chunk for r in passes(p["problem_id"], RIGHT[p["problem_id"]])]


def names(selection):
    return [p["problem_id"] for p in selection.problems]


def test_one_to_four_right_of_eight_are_taken_in_file_order():
    selection = select_problems([problem(name) for name in "fedcba"], Selector(), draw)
    assert names(selection) == ["f", "c", "b"]
    reasons = {c.problem_id: c.reason for c in selection.choices}
    assert reasons == {
        "f": None,
        "e": "pass rate too high",
        "d": "pass rate too high",
        "c": None,
        "b": None,
        "a": "pass rate too low",
    }
    written = selection.as_dict(Selector())
    assert written["left_out"] == {"pass rate too high": 2, "pass rate too low": 1}
    assert written["mean_pass_rate_of_all_screened"] == pytest.approx((0 + 1 + 4 + 5 + 8 + 2) / 48)
    assert written["mean_pass_rate_of_selected"] == pytest.approx((1 + 4 + 2) / 24)
    assert (written["seen"], written["selected"], written["biased"]) == (6, 3, False)


def test_the_first_ones_are_taken_until_there_are_enough():
    selection = select_problems([problem(name) for name in "abcdef"], Selector(max_problems=2), draw)
    assert names(selection) == ["b", "c"]
    assert selection.choices[-1].reason == "enough problems found"


def test_no_further_chunk_is_screened_once_there_are_enough():
    rows = [problem(f"p{i}") for i in range(2 * CHUNK + 1)]
    asked = []

    def half(chunk, number):
        asked.append((number, len(chunk)))
        return [r for p in chunk for r in passes(p["problem_id"], 4)]

    selection = select_problems(rows, Selector(max_problems=CHUNK + 1), half)
    assert asked == [(0, CHUNK), (1, CHUNK)]  # the third chunk, one problem, is never asked
    assert names(selection) == [f"p{i}" for i in range(CHUNK + 1)]


def test_samples_that_could_not_be_graded_do_not_count():
    records = [record("x", 0), *(record("x", i, correct=False) for i in (1, 2, 3))]
    records += [record("x", i, correct=None) for i in (4, 5, 6, 7)]  # 1 of 4, not 1 of 8
    selection = select_problems([problem("x")], Selector(band=(0.25, 0.25)), lambda *_: records)
    assert selection.choices[0].pass_rate == 0.25
    assert names(selection) == ["x"]
    ungraded = [record("x", i, correct=None) for i in range(8)]
    assert select_problems([problem("x")], Selector(), lambda *_: ungraded).choices[0].reason == "not graded"


def test_all_takes_everything_without_sampling():
    def never(chunk, number):
        raise AssertionError("screened for nothing")

    rule = Selector(select="all", n_screen=0)
    assert names(select_problems([problem(name) for name in "abc"], rule, never)) == ["a", "b", "c"]


def test_a_problem_without_a_solution_is_left_out_if_one_is_needed():
    rule = Selector(select="all", needs_rollout=True)
    selection = select_problems([problem(name) for name in "abf"], rule, draw)
    assert names(selection) == ["b", "f"]  # a was never solved
    rule = Selector(select="all", n_screen=0, needs_column=True)
    assert names(select_problems([problem("a"), problem("b", solution="2+2=4")], rule, draw)) == ["b"]


def test_the_solution_is_the_first_right_sample_that_ended():
    rows = [
        record("x", 0, correct=False),
        record("x", 1, finish="length"),
        record("x", 2, text="this one"),
        record("x", 3, text="later"),
    ]
    assert first_correct(rows) == "this one"
    assert first_correct(rows[:2]) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"select": "pass_rate"}, "Did you mean 'pass-rate'"),
        ({"band": (0.6, 0.5)}, "no band"),
        ({"n_screen": 0}, "needs screening"),
        ({"max_problems": 0}, "at least 1"),
        ({"select": "all", "n_screen": 0, "needs_rollout": True}, "--solution-from rollout needs screening"),
    ],
)
def test_settings_that_mean_nothing(settings, message):
    with pytest.raises(ConfigError, match=message):
        Selector(**settings)
