"""Cleaning rows: which stay, which go and why, and what becomes of prompt, answer and solution."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibrated_sd.data.instructions import BOXED, BOXED_LETTER
from calibrated_sd.data.preparing import CONTRADICTORY, REPEATED, prepare_rows
from calibrated_sd.data.sources import find_source
from calibrated_sd.errors import ConfigError, DataError

PATH = Path("file.jsonl")


def prepare(rows, source=None, **options):
    options.setdefault("name", "toy")
    return prepare_rows(rows, PATH, source=None if source is None else find_source(source), **options)


def only(row, source=None, **options):
    return prepare([row], source, **options).problems[0]


def user(text):
    return [{"role": "user", "content": text}]


class TestForms:
    def test_dapo(self):
        row = {
            "data_source": "math_dapo",
            "prompt": user(
                "Solve the following math problem step by step. The last line of your response should be of the form "
                "Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\nWhat is 3 + 4?\n\n"
                'Remember to put your answer on its own line after "Answer:".'
            ),
            "ability": "MATH",
            "reward_model": {"ground_truth": "7", "style": "rule-lighteval/MATH_v2"},
            "extra_info": {"index": "9f-a3"},
        }
        assert only(row, "dapo-math-17k") == {
            "problem_id": "9f-a3",
            "prompt": user(f"What is 3 + 4?\n{BOXED}"),
            "answer": "7",
            "source": "math_dapo",
        }

    def test_json_strings(self):
        row = {
            "prompt": json.dumps(user(f"What is 3 + 4?\n{BOXED}")),
            "reward_model": json.dumps({"ground_truth": "7", "style": "rule"}),
            "extra_info": json.dumps({"index": 4, "split": "test"}),
        }
        problem = only(row, "amc23", name="amc23")
        assert problem["prompt"] == user(f"What is 3 + 4?\n{BOXED}")
        assert (problem["answer"], problem["problem_id"]) == ("7", "amc23-00004")

    def test_the_box_of_the_solution_beats_a_mangled_answer(self):
        solution = r"Not \boxed{1} but $\boxed{\left( 3, \frac{\pi}{2} \right)}.$"
        row = {"problem": "Where?", "answer": r"\le(3,\frac{\pi}{2}\right)", "solution": solution, "level": 2}
        assert only(row, "math500")["answer"] == r"\left( 3, \frac{\pi}{2} \right)"
        assert only(row)["answer"] == r"\le(3,\frac{\pi}{2}\right)"  # an unknown file's answer column is believed

    def test_math_without_an_answer_column(self):
        row = {"problem": "q", "level": "Level 3", "type": "Algebra", "solution": r"So \boxed{\frac{1}{2} \pi r}."}
        problem = only(row, "math")
        assert (problem["answer"], problem["level"], problem["subject"]) == (r"\frac{1}{2} \pi r", 3, "Algebra")

    def test_a_grade_school_answer_is_solution_and_answer(self):
        worked = "Tom has 600 * 2 = <<600*2=1200>>1200 nuts.\n#### 1,200"
        problem = only({"question": "How many?", "answer": worked}, "gsm8k")
        assert problem["answer"] == "1200"
        assert problem["solution"] == "Tom has 600 * 2 = 1200 nuts.\nThe answer is \\boxed{1200}."

    def test_a_harness_request_is_unwrapped(self, tmp_path):
        from calibrated_sd.evaluation.problem_files import iter_rows

        file = tmp_path / "requests.jsonl"
        row = {
            "doc": {"id": 0, "question": "1 + 1?", "answer": "#### 2", "choices": ["2"]},
            "request": {"context": "x"},
        }
        file.write_text(json.dumps(row) + "\n")
        problem = prepare(iter_rows(file), "gsm8k").problems[0]
        assert (problem["prompt"], problem["answer"]) == (user(f"1 + 1?\n{BOXED}"), "2")

    def test_multiple_choice(self):
        row = {
            "question": "Which is a metal?",
            "choices": {"text": ["sulphur", "iron"], "label": ["A", "B"]},
            "answerKey": "B",
            "answer": "",
            "domain": "Chemistry",
            "type": "mcq-4-choices",
            "details": {"level": "L3", "subtask": "choose_metal"},
        }
        physics = {**row, "domain": "Physics"}
        prepared = prepare([physics, row], "sciknoweval-chemistry", name="chemistry")
        (problem,) = prepared.problems
        assert problem["prompt"] == user(f"Which is a metal?\n\nA: sulphur\nB: iron\n{BOXED_LETTER}")
        assert (problem["answer"], problem["level"], problem["subject"]) == ("B", "L3", "choose_metal")
        assert prepared.report.dropped["not part of this set"]["count"] == 1
        with pytest.raises(DataError, match=r"none of the choices \(1\)"):
            prepare([{**row, "answerKey": "C"}], "sciknoweval-chemistry")

    def test_prompts_can_stay_as_they_are(self):
        assert only({"question": "1 + 1?", "answer": "2"}, boxed=False)["prompt"] == user("1 + 1?")


class TestDropping:
    def test_every_row_is_kept_or_counted_once(self):
        rows = [
            {"id": "a", "question": "1 + 1?", "answer": "2"},
            {"id": "b", "question": "half of one?", "answer": "0.5"},
            {"id": "c", "question": " 1 +  1?\n", "answer": "2.0"},  # the same problem, the same number
            {"id": "d", "question": f"half of one?\n{BOXED}", "answer": "1/2"},
            {"id": "e", "question": "2 + 2?", "answer": "4"},
            {"id": "f", "question": "2 + 2?", "answer": "5"},
            {"id": "g", "question": "2 + 2?", "answer": "4"},
            {"id": "h", "question": "", "answer": "4"},
            {"id": "i", "question": "why?", "answer": None},
            {"id": "j", "question": ["why?"], "answer": "1"},
        ]
        prepared = prepare(rows)
        assert [p["problem_id"] for p in prepared.problems] == ["a", "b"]
        counts = {reason: what["count"] for reason, what in prepared.report.dropped.items()}
        assert counts == {
            REPEATED: 2,
            CONTRADICTORY: 3,
            "no prompt": 1,
            "no answer": 1,
            "the prompt is neither text nor messages": 1,
        }
        assert prepared.report.rows_read == 10 == prepared.report.kept + sum(counts.values())
        (example,) = prepared.report.dropped[CONTRADICTORY]["examples"]
        assert example == {"row": 5, "prompt": "2 + 2?", "detail": "4 | 5"}
        assert [e["row"] for e in prepared.report.dropped[REPEATED]["examples"]] == [3, 4]

    def test_five_examples_are_kept(self):
        rows = [{"question": f"{i} + 1?", "answer": "" if i else "1"} for i in range(9)]
        dropped = prepare(rows).report.dropped["no answer"]
        assert dropped["count"] == 8
        assert [e["row"] for e in dropped["examples"]] == [2, 3, 4, 5, 6]

    def test_long_prompts(self):
        def words(messages):
            return sum(len(m["content"].split()) for m in messages)

        # the instruction has 12 words
        rows = [{"question": "one two", "answer": "1"}, {"question": "one two three", "answer": "1"}]
        prepared = prepare(rows, max_prompt_tokens=14, count_tokens=words)
        assert len(prepared.problems) == 1
        (example,) = prepared.report.dropped["longer than 14 tokens"]["examples"]
        assert (example["row"], example["detail"]) == (2, "15 tokens")

    def test_a_solution_without_an_answer(self):
        rows = [
            {"problem": "q", "solution": r"\boxed{3}"},
            {"problem": "r", "solution": "It is long, and never says what it comes to."},
            {"problem": "s", "solution": "42"},
        ]
        prepared = prepare(rows)
        assert [p["answer"] for p in prepared.problems] == ["3", "42"]
        assert prepared.report.dropped["no final answer in the solution"]["count"] == 1


class TestIdentifiers:
    def test_used_twice_means_all_are_numbered(self):
        rows = [{"id": "a", "question": q, "answer": "1"} for q in "xy"]
        assert [p["problem_id"] for p in prepare(rows).problems] == ["toy-00000", "toy-00001"]

    def test_missing_once_means_all_are_numbered(self):
        rows = [{"id": "a", "question": "x", "answer": "1"}, {"id": None, "question": "y", "answer": "1"}]
        assert [p["problem_id"] for p in prepare(rows).problems] == ["toy-00000", "toy-00001"]


class TestErrors:
    def test_nothing_left_says_why(self):
        with pytest.raises(DataError, match=r"Nothing is left of the 2 rows of file.jsonl: no answer \(2\)"):
            prepare([{"question": "x", "answer": " "}, {"question": "y", "answer": ""}])

    def test_no_rows_and_no_column(self):
        with pytest.raises(DataError, match="holds no rows"):
            prepare([])
        with pytest.raises(DataError, match=r"no column for the answer.*--answer-column"):
            prepare([{"question": "x", "label": "1"}])
        with pytest.raises(ConfigError, match="Did you mean 'answer'"):
            prepare([{"question": "x", "label": "1"}], columns={"answr": "label"})

    def test_limits(self):
        row = {"question": "x", "answer": "1"}
        with pytest.raises(ConfigError, match="add --tokenizer"):
            prepare([row], max_prompt_tokens=5)
        with pytest.raises(ConfigError, match="at least 1, got 0"):
            prepare([row], max_prompt_tokens=0, count_tokens=len)
