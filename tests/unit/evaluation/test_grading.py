r"""Grading: the last complete box, compared as text and as an exact number."""

from __future__ import annotations

import sys
import time

import pytest

from calibrated_sd.errors import ConfigError
from calibrated_sd.evaluation.grading import (
    extract_boxed,
    get_grader,
    grade_boxed,
    grade_math_verify,
    grade_stated,
    graded_part,
    normalise_answer,
)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"so \boxed{12}", "12"),
        (r"\boxed{ 1 2 }", "12"),
        (r"\boxed { 12 } .", "12"),
        (r"first \boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}} .", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1,2\}"),
        (r"\boxed{1} and then \boxed{2", "1"),  # cut inside the second box
        (r"\boxed{1", None),
        (r"\boxed 1", None),
        (r"} {", None),
        ("12", None),
        ("", None),
        (r"\boxed{}", ""),
        (r"\boxed{a \boxed{b} c}", "b"),
    ],
)
def test_extract(text, content):
    assert extract_boxed(text) == content


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("1000", "1,000"),
        ("1000", " $1 000$. "),
        ("1000", "1000.0"),
        ("1/2", "0.5"),
        (r"\frac{2}{4}", "1/2"),
        (r"-\dfrac{1}{2}", "-.5"),
        ("−3", "-3"),
        ("+7", "7"),
        ("007", "7"),
        (r"x + 1", r"x+1"),
    ],
)
def test_the_same_answer(a, b):
    assert normalise_answer(a) == normalise_answer(b)
    assert grade_boxed(rf"\boxed{{{a}}}", b)
    assert grade_boxed(rf"\boxed{{{b}}}", a)


@pytest.mark.parametrize("mixed", [r"3\frac{1}{2}", "3 1/2", "$3$ $1/2$", r"3 \dfrac{1}{2}"])
def test_a_mixed_number_is_not_its_digits_in_a_row(mixed):
    """Three and a half: 7/2, and neither 31/2 nor 15.5."""
    box = rf"\boxed{{{mixed}}}"
    for grade in (grade_boxed, grade_math_verify):
        if grade is grade_math_verify:
            pytest.importorskip("math_verify")
        assert grade(box, "15.5") is False
        assert grade(box, "31/2") is False
        assert grade(box, mixed) is True
    for wanted, right in (("7/2", True), ("1.5", False)):  # no product either
        assert grade_math_verify(rf"\boxed{{{mixed.replace('$', '')}}}", wanted) is right


@pytest.mark.parametrize(
    ("a", "b"),
    [("12", "1"), ("1", "-1"), ("1/3", "0.333"), ("1,00", "100"), ("x", "y"), ("1/0", "0"), ("1e3", "1000"), ("", "0")],
)
def test_different_answers(a, b):
    assert not grade_boxed(rf"\boxed{{{a}}}", b)


def test_the_answer_may_bring_its_own_box():
    assert grade_boxed(r"\boxed{5}", r"as above, \boxed{ 5 }")


def test_no_box_is_wrong_even_if_the_number_is_there():
    assert not grade_boxed("the answer is 5", "5")
    assert not grade_boxed("", "5")


def test_hostile_completions_take_no_time():
    since = time.perf_counter()
    assert extract_boxed(r"\boxed{" * 50_000) is None
    assert not grade_boxed(r"\boxed{1e999999999}", "1")
    assert not grade_boxed(r"\boxed{" + "9" * 100_000 + "}", "1")
    assert time.perf_counter() - since < 2


def test_graders_by_name():
    assert get_grader("boxed") is grade_boxed
    with pytest.raises(ConfigError, match="Did you mean 'boxed'"):
        get_grader("boxd")


def test_math_verify_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(ConfigError, match=r"pip install 'calibrated-sd\[eval\]'"):
        get_grader("math-verify")


def test_math_verify_knows_expressions():
    pytest.importorskip("math_verify", reason="math-verify is an optional extra: pip install 'calibrated-sd[eval]'")
    assert grade_math_verify(r"thus \boxed{\frac{\sqrt{8}}{2}}", r"\sqrt{2}")
    assert not grade_math_verify(r"thus \boxed{2}", r"\sqrt{2}")
    assert get_grader("math-verify") is grade_math_verify


def test_only_what_follows_the_thinking_is_graded():
    assert graded_part("<think>a</think>b</think> c") == " c"
    assert grade_boxed(r"<think> \boxed{1} </think> so \boxed{2}", "2") is True
    assert grade_boxed(r"maybe \boxed{2} </think> so 2", "2") is False  # the opening tag was in the prompt
    assert grade_boxed(r"<think> it is \boxed{2}, but wait", "2") is True  # cut off while thinking: all of it


def test_an_empty_answer_cannot_be_judged():
    assert grade_boxed(r"\boxed{2}", " ") is None
    assert grade_boxed(r"\boxed{2}", r"\boxed{}") is None


def test_stated_answers_are_only_read_without_a_box():
    pytest.importorskip("math_verify")
    assert grade_stated("2 + 2 = 4. The answer is 4.", "4") is True
    assert grade_stated("so \n#### 1,000", "1000") is True
    assert grade_stated(r"\boxed{5}. The answer is 4.", "4") is False
    assert grade_stated("2 + 2 = 4", "4") is False  # a number alone states nothing
    assert grade_boxed("The answer is 4.", "4") is False
