"""The paper's own parquet files, where a copy is at hand: answers worked out by hand, the nested coverage sets."""

from __future__ import annotations

import os
import warnings
from fractions import Fraction
from itertools import pairwise
from math import comb
from pathlib import Path

import pandas as pd
import pytest

from calibrated_sd.cli.main import app
from calibrated_sd.data.instructions import BOXED
from calibrated_sd.data.suites import suite_definition
from calibrated_sd.evaluation.datasets import load_problems
from calibrated_sd.records import read_json

ORIGINALS = Path(os.environ.get("CSD_TEST_DATA", Path(__file__).resolve().parents[3].parent / "shared" / "data"))
pytestmark = pytest.mark.skipif(
    not (ORIGINALS / "evaluation").is_dir(),
    reason="the paper's parquet files are not part of the repository; set CSD_TEST_DATA to a folder with them",
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """`prepared(path)`: the folder that `csd data prepare path` writes."""
    from typer.testing import CliRunner

    output = tmp_path_factory.mktemp("data")

    def prepare(path):
        folder = output / path.stem
        if not folder.exists():
            done = CliRunner().invoke(app, ["data", "prepare", str(path), "--output", str(output)])
            assert done.exit_code == 0, done.output
        return folder

    return prepare


def answers(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return {
            problem["prompt"][-1]["content"].removesuffix("\n" + BOXED): problem["answer"]
            for problem in load_problems(folder / "problems.jsonl")
        }


def answer_to(found, beginning):
    (answer,) = [answer for question, answer in found.items() if question.startswith(beginning)]
    return answer


def test_aime24(prepared):
    folder = prepared(ORIGINALS / "evaluation" / "aime24.parquet")
    found = answers(folder)
    assert len(found) == 30
    # z = 4 e^{it}: the real part is (300 + 24) cos t - (468 - 36) sin t, at most sqrt(324² + 432²).
    assert int(answer_to(found, "Find the largest possible real part")) == 540 == (324**2 + 432**2) ** 0.5
    # With a = log_x y, the equations say x a = 10 and 4 y / a = 10, so 4 x y = 100.
    assert int(answer_to(found, "There exist real numbers $x$ and $y$")) == 100 // 4
    # Grand prize: one draw of comb(4,2) comb(6,2) + comb(4,3) comb(6,1) + 1 that win; m + n of 1/115.
    share = Fraction(1, comb(4, 2) * comb(6, 2) + comb(4, 3) * comb(6, 1) + 1)
    assert int(answer_to(found, "Jen enters a lottery")) == share.numerator + share.denominator
    assert all(answer.isdecimal() and int(answer) <= 999 for answer in found.values())
    assert suite_definition(folder) == suite_definition("aime24")


def test_amc23(prepared):
    found = answers(prepared(ORIGINALS / "evaluation" / "amc23.parquet"))
    assert len(found) == 40
    # They meet after 45 / (18 + 12) hours, and Alicia has come from A.
    assert float(answer_to(found, "Cities $A$ and $B$")) == 27 == 18 * 45 / (18 + 12)
    cubes = sum((2 * k) ** 3 - (2 * k - 1) ** 3 for k in range(1, 10))
    assert int(answer_to(found, "What is the value of\n\\[2^3 - 1^3")) == cubes == 3159
    assert int(answer_to(found, "How many digits are in the base-ten")) == len(str(8**5 * 5**10 * 15**5)) == 18


def test_prompts_of_the_papers_files_keep_every_character(prepared):
    path = ORIGINALS / "evaluation" / "amc23.parquet"
    originals = [problem["prompt"] for problem in load_problems(path)]
    assert [problem["prompt"] for problem in load_problems(prepared(path) / "problems.jsonl")] == originals


def test_a_coverage_problem_by_counting(prepared):
    found = answers_of_one(prepared(ORIGINALS / "coverage" / "seen_1x64.parquet"))
    digits = [tuple(map(int, str(n))) for n in range(1000, 10_000)]
    fits = [d for d in digits if all((a < b) if a % 2 else (a > b) for a, b in pairwise(d))]
    assert found == [str(len(fits))] == ["640"]


def answers_of_one(folder):
    with pytest.warns(UserWarning, match="only one problem"):
        return [problem["answer"] for problem in load_problems(folder / "problems.jsonl")]


def test_the_published_coverage_sets_are_nested(prepared):
    """1 ⊂ 8 ⊂ 64 ⊂ 128 ⊂ 512, of which one problem is there twice."""
    sets = []
    for name, rows, different in [
        ("1x64", 64, 1),
        ("8x8", 64, 8),
        ("64", 64, 64),
        ("128", 128, 128),
        ("512", 512, 511),
    ]:
        path = ORIGINALS / "coverage" / f"seen_{name}.parquet"
        folder = prepared(path)
        problems = pd.read_json(folder / "problems.jsonl", lines=True)
        report = read_json(folder / "suite.json")["report"]
        assert (report["rows_read"], report["kept"], len(problems)) == (rows, different, different)
        sets.append({chat[0]["content"] for chat in problems["prompt"]})
    assert all(small < large for small, large in pairwise(sets))
