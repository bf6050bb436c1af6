"""Rows whose cells are not what they should be: read where the meaning is plain, dropped with a reason where it is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibrated_sd.data.instructions import bare_question
from calibrated_sd.data.preparing import prepare_rows
from calibrated_sd.data.sources import find_source
from calibrated_sd.errors import DataError
from calibrated_sd.evaluation.datasets import load_problems
from calibrated_sd.evaluation.problem_files import iter_rows


def prepare(rows, **options):
    return prepare_rows(rows, Path("file.jsonl"), name="toy", **options)


def only(row, **options):
    return prepare([row], **options).problems[0]


def user(content):
    return [{"role": "user", "content": content}]


CHAT = user("What is 3 + 4?")


@pytest.mark.parametrize("text", [json.dumps(CHAT), json.dumps(CHAT, indent=2), "[ " + json.dumps(CHAT)[1:]])
def test_a_chat_in_a_json_string_however_it_is_spaced(text):
    assert only({"prompt": text, "answer": "7"}, boxed=False)["prompt"] == CHAT


@pytest.mark.parametrize("text", ["[1, 2, 3]", "[]", "[1, 2] or [3, 4]?"])
def test_a_list_of_numbers_is_a_text(text):
    assert only({"prompt": text, "answer": "7"}, boxed=False)["prompt"] == user(text)


def test_a_message_in_parts_is_their_text_and_a_message_without_text_is_none():
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "3 + 4?"}]
    assert only({"prompt": user(parts), "answer": "7"}, boxed=False)["prompt"] == CHAT
    rows = [{"prompt": user(content), "answer": "7"} for content in (None, [{"type": "image"}], {"text": "?"})]
    report = prepare([{"prompt": CHAT, "answer": "7"}, *rows]).report
    assert (report.kept, report.dropped["the prompt is neither text nor messages"]["count"]) == (1, 3)


def test_a_list_of_one_answer_is_that_answer_and_of_several_none():
    rows = [
        {"problem": "one", "answer": ["42"]},
        {"problem": "number", "answer": [42.0]},
        {"problem": "two", "answer": ["42", "43"]},
        {"problem": "none", "answer": []},
        {"problem": "object", "answer": {"value": "42"}},
    ]
    prepared = prepare(rows)
    assert [problem["answer"] for problem in prepared.problems] == ["42", "42"]
    assert prepared.report.dropped["the answer is not one value"]["count"] == 3


def test_the_same_last_turn_after_other_turns_is_another_problem():
    def talk(first):
        return [*user(first), {"role": "assistant", "content": "4"}, *user("And twice that?")]

    rows = [{"prompt": talk("2 + 2?"), "answer": "8"}, {"prompt": talk("1 + 3?"), "answer": "9"}]
    assert prepare(rows).report.kept == 2
    spoken = [{"role": "system", "content": "Be brief."}, *CHAT]
    assert prepare([{"prompt": CHAT, "answer": "7"}, {"prompt": spoken, "answer": "7"}]).report.kept == 1


def test_long_blanks_take_no_quadratic_time():
    # A pattern that begins with blanks looks at each of n of them n times: 10^10 steps here, a minute and more.
    assert bare_question("What is 3" + " " * 100_000 + "+ 4?").endswith("+ 4?")


def test_older_boxes_of_math_and_solutions_without_one():
    solutions = [r"So $\boxed 12$.", r"So $\boxed2$.", r"So \fbox{3}.", r"So \boxed{}.", "So it is.", "7"]
    rows = [{"problem": f"p{i}", "solution": solution} for i, solution in enumerate(solutions)]
    prepared = prepare(rows, source=find_source("math"))
    assert [problem["answer"] for problem in prepared.problems] == ["12", "2", "3"]
    assert prepared.report.dropped["no final answer in the solution"]["count"] == 3
    # With an answer column of its own, the answer is there.
    assert only({"problem": "p", "solution": "So it is.", "answer": "4"}, source=find_source("math"))["answer"] == "4"


def test_an_evaluation_refuses_several_answers(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"problem": "two", "answer": ["42", "43"]}) + "\n")
    with pytest.raises(DataError, match="row 1: the answer is not one value"):
        load_problems(file)


def test_json_with_a_byte_order_mark(tmp_path):
    file = tmp_path / "p.json"
    file.write_text('[{"problem": "q", "answer": 1}]', encoding="utf-8-sig")
    assert list(iter_rows(file)) == [{"problem": "q", "answer": 1}]
