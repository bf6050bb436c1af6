"""The final answer of a solution, a wrong one in its place, and the beginning of a solution."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrated_sd.contexts import alter_answer, cut_hint, extract_answer


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"so x = 4, hence \boxed{\frac{4}{2}}.", r"\frac{4}{2}"),
        (r"\boxed{1} is wrong, \boxed{ 2 } is right", "2"),  # the last one
        (r"\boxed{1} and then \boxed{2", "1"),  # a box that was never closed is none
        (r"the answer is 7, that is \boxed{8}", "8"),  # a box goes before words
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),  # escaped braces do not nest
        (r"\boxed{} the answer is 3", "3"),  # an empty box states nothing
        ("the answer is 4.", "4"),
        ("Answer: 4\n", "4"),
        ("The answers are 4 and 5.\nThanks.", "4 and 5"),
        ("the answer is 1. No, the answer\nthe answer is 2", "2"),
        ("work\n#### 42", "42"),
        ("<think>the answer is 3?</think> the answer is 4", "4"),
        ("the answer is 3?</think> It is four.", "3?</think> It is four"),  # nothing outside: the thinking counts
        ("It is four.", None),
        ("answer", None),
        ("an answering machine", None),
        ("", None),
    ],
)
def test_where_an_answer_is_stated(solution, answer):
    assert extract_answer(solution) == answer


@pytest.mark.parametrize(
    ("solution", "altered"),
    [
        (r"2 + 2 = 4, so \boxed{4}. Done in 1 step", r"2 + 2 = 4, so \boxed{5}. Done in 1 step"),
        (r"\boxed{\frac{3}{9}}", r"\boxed{\frac{3}{10}}"),
        ("2 + 2 = 4. The answer is 4.", "2 + 2 = 4. The answer is 5."),
        ("the answer is 2.50", "the answer is 3.50"),
        ("the answer is 1,000", "the answer is 1,001"),
        ("<think>8? \\boxed{1}</think> so 99", "<think>8? \\boxed{1}</think> so 100"),  # no stated answer: last number
        ("the answer is x, from 3 cases", "the answer is x, from 4 cases"),
        ("the answer is blue", None),  # nothing to change
        ("", None),
    ],
)
def test_only_the_answer_is_altered(solution, altered):
    assert alter_answer(solution) == altered


@given(st.text(alphabet="ab {}\n", max_size=20), st.integers(0, 10**6))
def test_an_altered_answer_is_another_answer(prose, number):
    solution = f"{prose}\\boxed{{{number}}}"
    altered = alter_answer(solution)
    assert extract_answer(altered) == str(number + 1)
    assert altered.removesuffix(f"{number + 1}}}") == solution.removesuffix(f"{number}}}")


@pytest.mark.parametrize(
    ("text", "fraction", "hint"),
    [
        ("one two three four", 0.5, "one two"),  # 18 characters: 9 end inside "three"
        ("one two three four", 0.4, "one two"),  # 7 end exactly after "two"
        ("one two three four", 0.38, "one"),
        ("one two three four", 0.99, "one two three"),
        ("<think> maybe 4 </think> yes", 0.6, "<think> maybe 4"),  # thinking is kept
        (r"so \frac{1}{2} it is", 0.5, "so"),  # a formula is a word
        ("fourteen", 0.9, ""),
        ("  padded out  ", 0.7, "padded"),
        ("", 0.5, ""),
    ],
)
def test_hints_by_hand(text, fraction, hint):
    assert cut_hint(text, fraction) == hint


@given(st.text(alphabet="ab \n{}", max_size=40), st.floats(0.01, 0.99))
def test_a_hint_is_whole_words_and_no_more_than_its_share(text, fraction):
    hint = cut_hint(text, fraction)
    assert len(hint) <= fraction * len(text.strip())
    assert text.strip().startswith(hint)
    assert hint.split() == text.split()[: len(hint.split())]


def test_looping_texts_take_no_time():
    """Work in proportion to length: these take seconds to minutes if each start searches the rest of the text."""
    since = time.perf_counter()
    assert extract_answer("the answer" + " " * 100_000 + "\n") is None
    assert extract_answer("<think>" * 50_000) is None
    assert time.perf_counter() - since < 2
