"""The closing instruction: DAPO's frame off, the boxed one on, once."""

from __future__ import annotations

import pytest

from calibrated_sd.data.instructions import (
    BOXED,
    BOXED_LETTER,
    as_messages,
    bare_question,
    question_of,
    same_question,
    with_instruction,
)

DAPO = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: $Answer "
    "(without quotes) where $Answer is the answer to the problem.\n\nHow many legs have $x$ cats?\n\n"
    'Remember to put your answer on its own line after "Answer:".'
)
READY = "How many legs have $x$ cats?\n" + BOXED


def test_the_frame_of_dapo_becomes_the_boxed_instruction():
    assert bare_question(DAPO) == "How many legs have $x$ cats?"
    assert with_instruction(DAPO) == READY


def test_twice_is_once():
    assert with_instruction(READY) == READY
    assert with_instruction(READY + "\n" + BOXED) == READY  # what rewriting in place leaves behind
    assert with_instruction(with_instruction(DAPO)) == READY


def test_a_ready_prompt_keeps_every_character():
    odd = "What is  1 + 1? \n" + BOXED
    assert with_instruction(odd) == odd


def test_whitespace_inside_an_instruction_does_not_hide_it():
    assert bare_question("1 + 1?\n" + BOXED.replace(" ", "\n  ")) == "1 + 1?"
    assert bare_question(DAPO.replace(" ", "  ")) == "How  many  legs  have  $x$  cats?"


def test_only_known_instructions_are_taken_off():
    text = "Please reason step by step about this: why is 2 even?"
    assert with_instruction(text) == f"{text}\n{BOXED}"
    assert bare_question('Put the answer after "Answer:".') == 'Put the answer after "Answer:".'


def test_multiple_choice_stays_multiple_choice():
    choice = "Which is a metal?\n\nA: iron\nB: sulphur\n" + BOXED_LETTER
    assert with_instruction(choice) == choice
    assert with_instruction("Which?\n\nA: iron\nPlease reason step by step.", BOXED_LETTER) == (
        f"Which?\n\nA: iron\n{BOXED_LETTER}"
    )


def test_only_the_last_user_message_changes():
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "<think>"},
    ]
    ready = as_messages(chat)
    assert [m["content"] for m in ready] == ["Be brief.", "1 + 1?", "2", f"2 + 2?\n{BOXED}", "<think>"]
    assert chat[3]["content"] == "2 + 2?"  # the given one is not touched
    assert question_of(ready) == "2 + 2?"
    assert question_of([{"role": "system", "content": "Be brief."}]) == ""


@pytest.mark.parametrize("other", ["How many  legs\nhave $x$ cats? ", DAPO, READY])
def test_one_problem_in_several_forms(other):
    assert same_question(other) == "How many legs have $x$ cats?"


def test_left_alone_if_wanted():
    assert as_messages("1 + 1?", None) == [{"role": "user", "content": "1 + 1?"}]
