"""Problem files: the formats and column names people use, and one clear sentence for what cannot be used."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import pandas as pd
import pytest

from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.evaluation.datasets import load_problems

SHARED = Path(os.environ.get("CSD_TEST_DATA", Path(__file__).resolve().parents[3].parent / "shared" / "data"))
needs_shared_data = pytest.mark.skipif(
    not (SHARED / "evaluation").is_dir(),
    reason="the small benchmark files are not part of the repository; set CSD_TEST_DATA to their folder",
)


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class TestFormats:
    rows = ({"question": "1 + 1?", "answer": "2"}, {"question": "2 + 2?", "answer": "4"})

    def expect(self, problems, suite="sums"):
        assert problems == [
            {"problem_id": f"{suite}-0000", "prompt": "1 + 1?", "answer": "2", "suite": suite},
            {"problem_id": f"{suite}-0001", "prompt": "2 + 2?", "answer": "4", "suite": suite},
        ]

    def test_jsonl(self, tmp_path):
        self.expect(load_problems(jsonl(tmp_path / "sums.jsonl", self.rows)))

    def test_json(self, tmp_path):
        (tmp_path / "sums.json").write_text(json.dumps(self.rows))
        self.expect(load_problems(tmp_path / "sums.json"))

    def test_csv_keeps_answers_as_text(self, tmp_path):
        (tmp_path / "sums.csv").write_text("question,answer\n1 + 1?,2\n2 + 2?,4\n")
        self.expect(load_problems(tmp_path / "sums.csv"))
        (tmp_path / "sums.csv").write_text("question,answer\nmissing?,NA\nzeros?,007\n")
        assert [p["answer"] for p in load_problems(tmp_path / "sums.csv")] == ["NA", "007"]

    def test_parquet(self, tmp_path):
        pd.DataFrame(self.rows).to_parquet(tmp_path / "sums.parquet")
        self.expect(load_problems(tmp_path / "sums.parquet", suite="mine"), suite="mine")


class TestColumns:
    def one(self, tmp_path, row, **options):
        filler = {k: f"{v} again" if isinstance(v, str) else v for k, v in row.items()}
        if isinstance(row.get("prompt"), list):
            filler["prompt"] = [{"role": "user", "content": "another"}]
        return load_problems(jsonl(tmp_path / "p.jsonl", [row, filler]), **options)[0]

    def test_names_in_order_of_preference(self, tmp_path):
        row = {"prompt": "wrapped", "problem": "bare", "answer": "1", "solution": r"... \boxed{9}", "id": "x7"}
        assert self.one(tmp_path, row) == {
            "problem_id": "x7",
            "prompt": "bare",
            "answer": "1",
            "solution": r"... \boxed{9}",
            "suite": "p",
        }

    def test_a_worked_solution_as_the_only_answer(self, tmp_path):
        assert self.one(tmp_path, {"problem": "q", "solution": r"so \boxed{1} or rather \boxed{9}"})["answer"] == "9"
        assert self.one(tmp_path, {"question": "q", "answer": "2 + 2 = 4\n#### 4"})["answer"] == "4"

    def test_nested_and_json_string_columns(self, tmp_path):
        messages = [{"role": "user", "content": "why?"}]
        nested = {"prompt": messages, "reward_model": {"ground_truth": "42", "style": "rule"}}
        assert self.one(tmp_path, nested)["answer"] == "42"
        strings = {"prompt": json.dumps(messages), "reward_model": json.dumps({"ground_truth": "42"})}
        rows = [strings, {**strings, "prompt": json.dumps([{"role": "user", "content": "what?"}])}]
        problem = load_problems(jsonl(tmp_path / "p.jsonl", rows))[0]
        assert (problem["prompt"], problem["answer"]) == (messages, "42")

    def test_text_that_looks_like_json_stays_text(self, tmp_path):
        assert (
            self.one(tmp_path, {"problem": "[{1, 2}, {3}] is what?", "answer": "1"})["prompt"]
            == "[{1, 2}, {3}] is what?"
        )

    def test_named_columns(self, tmp_path):
        row = {"frage": "q", "antwort": 3.0}
        rows = [row, {"frage": "r", "antwort": 4.5}]
        path = jsonl(tmp_path / "p.jsonl", rows)
        problems = load_problems(path, columns={"prompt": "frage", "answer": "antwort"})
        assert [(p["prompt"], p["answer"]) for p in problems] == [("q", "3"), ("r", "4.5")]
        with pytest.raises(ConfigError, match="Did you mean 'prompt'"):
            load_problems(path, columns={"promt": "frage"})
        with pytest.raises(DataError, match=r"looked for 'fragen', and the columns are frage, antwort"):
            load_problems(path, columns={"prompt": "fragen"})


class TestBadFiles:
    def test_missing_column_lists_what_exists(self, tmp_path):
        path = jsonl(tmp_path / "p.jsonl", [{"text": "q", "label": "1"}])
        with pytest.raises(
            DataError, match=r"no column for the prompt: .*the columns are text, label.*--prompt-column"
        ):
            load_problems(path)
        path = jsonl(tmp_path / "p.jsonl", [{"question": "q", "label": "1"}])
        with pytest.raises(DataError, match=r"no column for the answer: .*the columns are question, label"):
            load_problems(path)

    @pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p.json", "p.parquet"])
    def test_empty(self, tmp_path, name):
        path = tmp_path / name
        if name == "p.parquet":
            pd.DataFrame({"question": [], "answer": []}).to_parquet(path)
        else:
            path.write_text("[]" if name == "p.json" else "")
        with pytest.raises(DataError, match="holds no rows"):
            load_problems(path)

    def test_unreadable(self, tmp_path):
        with pytest.raises(DataError, match="There is no problem file"):
            load_problems(tmp_path / "absent.jsonl")
        with pytest.raises(DataError, match=r"not a problem file.*\.parquet"):
            load_problems(tmp_path / "p.xlsx")
        (tmp_path / "p.jsonl").write_text('{"question": "q", "answer": "1"}\n{"question": ')
        with pytest.raises(DataError, match="line 2"):
            load_problems(tmp_path / "p.jsonl")
        (tmp_path / "p.parquet").write_bytes(b"PAR1 cut off")
        with pytest.raises(DataError, match="cannot be read"):
            load_problems(tmp_path / "p.parquet")
        (tmp_path / "p.json").write_text('{"question": "q"}')
        with pytest.raises(DataError, match="list of objects"):
            load_problems(tmp_path / "p.json")

    @pytest.mark.parametrize(
        ("second", "words"),
        [
            ({"question": "r", "answer": None}, r"row 2: the answer \(column 'answer'\) is empty"),
            ({"question": " ", "answer": "1"}, "row 2: the prompt"),
            ({"question": ["r"], "answer": "1"}, "row 2: the prompt is neither text nor a list of messages"),
            ({"question": "q", "answer": "2"}, "row 2: the prompt of problem 'p-0000' again, with the answer '2'"),
            ({"question": "r", "answer": "1", "problem_id": "p-0000"}, "stands for two different prompts"),
        ],
    )
    def test_bad_rows_are_named(self, tmp_path, second, words):
        with pytest.raises(DataError, match=words):
            load_problems(jsonl(tmp_path / "p.jsonl", [{"question": "q", "answer": "1"}, second]))

    def test_one_problem_is_a_warning(self, tmp_path):
        path = jsonl(tmp_path / "p.jsonl", [{"question": "q", "answer": "1"}])
        with pytest.warns(UserWarning, match="only one problem.*no paired test"):
            assert len(load_problems(path)) == 1

    def test_copies_are_used_once(self, tmp_path):
        rows = [{"question": q, "answer": "1"} for q in "qrqq"]
        with pytest.warns(UserWarning, match="4 rows hold 2 different problems"):
            assert [p["prompt"] for p in load_problems(jsonl(tmp_path / "p.jsonl", rows))] == ["q", "r"]

    def test_limit(self, tmp_path):
        rows = [{"question": q, "answer": "1"} for q in "qrs"]
        assert [p["prompt"] for p in load_problems(jsonl(tmp_path / "p.jsonl", rows), limit=2)] == ["q", "r"]
        with pytest.raises(ConfigError, match="limit"):
            load_problems(tmp_path / "p.jsonl", limit=0)


@needs_shared_data
class TestSharedFiles:
    @pytest.mark.parametrize(("name", "n", "answer"), [("aime24", 30, "540"), ("amc23", 40, "27")])
    def test_benchmarks(self, name, n, answer):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            problems = load_problems(SHARED / "evaluation" / f"{name}.parquet")
        assert len(problems) == n
        assert problems[0]["answer"] == answer
        assert problems[0]["suite"] == name
        assert problems[0]["prompt"][0]["role"] == "user"
        assert len({p["problem_id"] for p in problems}) == n

    @pytest.mark.parametrize(
        ("name", "rows", "unique"), [("seen_8x8", 64, 8), ("seen_64", 64, 64), ("seen_512", 512, 511)]
    )
    def test_coverage_sets(self, name, rows, unique):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            problems = load_problems(SHARED / "coverage" / f"{name}.parquet")
        assert len(problems) == unique
        expected = [f"{rows} rows hold {unique} different problems"] if unique < rows else []
        assert [e in str(w.message) for e, w in zip(expected, caught, strict=True)] == [True] * len(expected)
