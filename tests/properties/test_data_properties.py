"""Laws of data preparation: once is enough, nothing is lost uncounted, subsets are nested."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from calibrated_sd.data.coverage import coverage_subsets
from calibrated_sd.data.instructions import BOXED, BOXED_LETTER, bare_question, same_question, with_instruction
from calibrated_sd.data.preparing import prepare_rows
from calibrated_sd.errors import DataError

BEFORE = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: $Answer "
    "(without quotes) where $Answer is the answer to the problem."
)
AFTER = 'Remember to put your answer on its own line after "Answer:".'
PIECES = [
    BEFORE,
    AFTER,
    BOXED,
    BOXED_LETTER,
    "Please reason step by step.",
    "\n",
    "\n\n",
    " ",
    "x",
    "1 + 1?",
    "\\boxed{}",
]

texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=8).map("".join)
answers = st.sampled_from(["1", "1.0", "2", "1/2", "0.5", "", "x", r"\frac{1}{2}"])
prompts = texts | texts.map(lambda text: [{"role": "user", "content": text}])
rows = st.lists(st.fixed_dictionaries({"prompt": prompts, "answer": answers}), min_size=1, max_size=12)


@given(texts)
def test_rewriting_twice_is_rewriting_once(text):
    once = with_instruction(text)
    assert with_instruction(once) == once
    assert bare_question(once) == bare_question(text)
    assert once.endswith((BOXED, BOXED_LETTER))


@given(texts)
def test_whitespace_and_instruction_do_not_make_another_problem(text):
    assert same_question(with_instruction(text)) == same_question(text)
    assert same_question("\n" + text.replace(" ", "  ")) == same_question(text)


def prepare(given_rows):
    try:
        return prepare_rows(given_rows, Path("x.jsonl"), name="x")
    except DataError:  # no usable row at all
        return None


@given(rows)
def test_preparing_twice_is_preparing_once(given_rows):
    once = prepare(given_rows)
    if once is None:
        return
    written = [json.loads(json.dumps(problem)) for problem in once.problems]
    twice = prepare(written)
    assert twice is not None
    assert twice.problems == once.problems
    assert twice.report.dropped == {}


@given(rows)
def test_rows_are_kept_or_counted(given_rows):
    prepared = prepare(given_rows)
    if prepared is None:
        return
    dropped = sum(what["count"] for what in prepared.report.dropped.values())
    assert prepared.report.rows_read == len(given_rows) == prepared.report.kept + dropped
    assert (
        len({same_question(p["prompt"]) for p in prepared.problems}) == prepared.report.kept == len(prepared.problems)
    )


@given(
    total=st.integers(1, 200),
    sizes=st.lists(st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128]), unique=True),
    rows=st.sampled_from([1, 64, 128]),
    seed=st.integers(0, 10),
)
def test_subsets_are_nested(total, sizes, rows, seed):
    problems = [{"problem_id": str(i)} for i in range(total)]
    wanted = [*sorted(size for size in sizes if size <= total), None]
    subsets = [
        [row["problem_id"] for row in subset]
        for subset in coverage_subsets(problems, wanted, rows=rows, seed=seed).values()
    ]
    for size, subset in zip(wanted, subsets, strict=True):
        different = total if size is None else size
        assert len(set(subset)) == different
        assert len(subset) == (max(rows, different) if size is not None else total)
    for small, large in itertools.pairwise(subsets):
        assert set(small) <= set(large)
