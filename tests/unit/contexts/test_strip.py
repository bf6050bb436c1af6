"""Thinking is removed whoever wrote the opening tag."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrated_sd.contexts import strip_thinking

PROSE = st.text(alphabet="abc \n$\\{}.", max_size=20)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("<think>Wait, 4? Yes.</think>The answer is 4.", "The answer is 4."),  # Qwen3: both tags in the completion
        ("Wait, 4? Yes.</think>\n\nThe answer is 4.", "The answer is 4."),  # DeepSeek: the prompt opened the tag
        ("<think> maybe 4 </think> the answer is 4", "the answer is 4"),  # word-level tokenizers leave spaces
        ("<think>\n\n</think>\n\n4", "4"),  # thinking switched off
        ("<think>a</think>b<think>c</think>d", "bd"),
        ("a</think>b<think>c</think>d", "bd"),  # opened in the prompt, then once more
        ("a</think>b</think>c", "c"),
        ("The answer is 4.", "The answer is 4."),
        ("<think>cut off while think", "<think>cut off while think"),  # no closing tag: kept whole
        ("  4 ", "4"),
        ("", ""),
    ],
)
def test_by_hand(text, kept):
    assert strip_thinking(text) == kept


@given(PROSE, PROSE)
def test_answer_survives_with_and_without_opening_tag(thought, answer):
    assert strip_thinking(f"<think>{thought}</think>{answer}") == answer.strip()
    assert strip_thinking(f"{thought}</think>{answer}") == answer.strip()
    assert strip_thinking(answer) == answer.strip()


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", "b ", "\n"]), max_size=12).map("".join))
def test_stripping_twice_is_stripping_once(text):
    once = strip_thinking(text)
    assert "</think>" not in once
    assert strip_thinking(once) == once


@pytest.mark.xfail(strict=True, reason="TRL's pattern asks for both tags")
def test_trls_pattern_with_the_tag_opened_in_the_prompt():
    """What TRL 1.16 does with a demonstration; if this passes one day, our fix is no longer needed."""
    demonstration = "Wait, 4? Yes.</think>The answer is 4."
    assert re.sub(r"<think>.*?</think>", "", demonstration, flags=re.DOTALL).strip() == "The answer is 4."
