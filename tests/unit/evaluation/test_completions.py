"""From problems to completions.jsonl: what a line says, and that a killed run ends like a straight one."""

from __future__ import annotations

import pytest

from calibrated_sd.errors import ConfigError, DataError, OutputError
from calibrated_sd.evaluation.completions import record_completions
from calibrated_sd.evaluation.generate import Completion
from calibrated_sd.records import prompt_sha256, read_completions, write_jsonl

PROBLEMS = [
    {"problem_id": str(i), "prompt": [{"role": "user", "content": f"question {word}"}], "answer": "1", "suite": suite}
    for i, word in enumerate(["one", "two plus two", "three", "four"])
    for suite in ("near", "far")
]
OPTIONS = {"n": 3, "max_new_tokens": 12, "batch_size": 5, "seed": 4, "arm": "sdpo", "step": 8}


@pytest.fixture(scope="module")
def straight(model, word_tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("straight") / "completions.jsonl"
    record_completions(model, word_tokenizer, PROBLEMS, path, **OPTIONS)
    return path.read_bytes()


def scripted(*completions):
    """A backend that "samples" what it is told."""

    def backend(model, tokenizer, prompts, *, problem_ids, already_done, **options):
        yield [c for c in completions if (c.problem_id, c.sample) not in already_done]

    return backend


def said(text, sample=0, finish="stop"):
    return Completion("near/0", sample, "the prompt", (1, 2, 3), text, finish)


def test_a_line_by_hand(tmp_path, word_tokenizer):
    texts = [said("wait, hold on: \\boxed{ 1 }"), said("maybe 2, unlikely", sample=1, finish="length")]
    rows = record_completions(
        None, word_tokenizer, PROBLEMS[:1], tmp_path / "c.jsonl", n=2, backend=scripted(*texts), context="solution"
    )
    assert rows == read_completions(tmp_path / "c.jsonl")
    assert rows[0] == {
        "schema_version": 1,
        "suite": "near",
        "problem_id": "0",
        "sample": 0,
        "prompt_sha256": prompt_sha256("the prompt"),
        "completion": "wait, hold on: \\boxed{ 1 }",
        "finish_reason": "stop",
        "n_tokens": 3,
        "correct": True,
        "markers": {"legacy": 1, "lexical": 1, "held_out": 1},  # wait, wait, hold on
        "context": "solution",
        "arm": "base",
        "seed": 0,
        "step": 0,
    }
    assert (rows[1]["correct"], rows[1]["finish_reason"]) == (False, "length")
    assert rows[1]["markers"] == {"legacy": 2, "lexical": 2, "held_out": 0}  # "unlikely" holds "likely"; it is a hedge


def test_without_an_answer_nothing_is_graded(tmp_path, word_tokenizer):
    problem = {**PROBLEMS[0], "answer": None}
    rows = record_completions(
        None, word_tokenizer, [problem], tmp_path / "c.jsonl", n=1, backend=scripted(said("\\boxed{1}"))
    )
    assert rows[0]["correct"] is None


def test_one_id_in_two_suites_is_two_problems(straight, tmp_path):
    (tmp_path / "c.jsonl").write_bytes(straight)
    rows = read_completions(tmp_path / "c.jsonl")
    assert len(rows) == 8 * 3
    near, far = (
        {(r["problem_id"], r["sample"]): r["completion"] for r in rows if r["suite"] == s} for s in ("near", "far")
    )
    assert near.keys() == far.keys()
    assert all(near[key] != far[key] for key in near)  # the same prompts, their own random numbers


class Killed(Exception):
    pass


@pytest.mark.parametrize("batches", [0, 1, 3])
@pytest.mark.parametrize("lost", [0, 1, 40, 700])
def test_killed_and_continued_equals_straight(model, word_tokenizer, tmp_path, straight, batches, lost):
    path = tmp_path / "completions.jsonl"
    calls = []

    def kill(done, total):
        calls.append(done)
        if len(calls) > batches:
            raise Killed

    with pytest.raises(Killed):
        record_completions(model, word_tokenizer, PROBLEMS, path, on_progress=kill, **OPTIONS)
    if path.exists():  # the write of the last batch did not get through to its end either
        path.write_bytes(path.read_bytes()[: -lost or None])
    rows = record_completions(model, word_tokenizer, PROBLEMS, path, **OPTIONS)
    assert path.read_bytes() == straight
    assert rows == read_completions(path)


def test_a_finished_file_is_read_and_not_made_again(tmp_path, word_tokenizer, straight):
    path = tmp_path / "completions.jsonl"
    path.write_bytes(straight)
    rows = record_completions(None, word_tokenizer, PROBLEMS, path, backend=scripted(), **OPTIONS)
    assert len(rows) == 24
    assert path.read_bytes() == straight


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arm": "base"}, "arm='sdpo'"),
        ({"seed": 5}, "seed=4"),
        ({"step": 0}, "step=8"),
        ({"context": "solution"}, "context='none'"),
        ({"n": 2}, "sample 2 of 2"),
    ],
)
def test_another_evaluations_file_is_not_continued(tmp_path, word_tokenizer, straight, change, words):
    path = tmp_path / "completions.jsonl"
    path.write_bytes(straight)
    with pytest.raises(OutputError, match=words):
        record_completions(None, word_tokenizer, PROBLEMS, path, backend=scripted(), **{**OPTIONS, **change})
    with pytest.raises(OutputError, match="problem"):
        record_completions(None, word_tokenizer, PROBLEMS[:3], path, backend=scripted(), **OPTIONS)
    assert path.read_bytes() == straight


def test_other_prompts_are_not_mixed_in(model, word_tokenizer, tmp_path, straight):
    path = tmp_path / "completions.jsonl"
    path.write_bytes(b"".join(straight.splitlines(keepends=True)[:-1]))
    changed = [{**p, "prompt": "another wording"} for p in PROBLEMS]
    with pytest.raises(OutputError, match="another prompt"):
        record_completions(model, word_tokenizer, changed, path, **OPTIONS)


def test_nothing_is_sampled_before_the_grader_and_the_file_are_known_to_work(tmp_path, word_tokenizer):
    with pytest.raises(ConfigError, match="Unknown grader"):
        record_completions(None, word_tokenizer, PROBLEMS, tmp_path / "c.jsonl", n=1, grader="judge")
    write_jsonl(tmp_path / "c.jsonl", [{"schema_version": 1, "hello": "there"}])
    with pytest.raises(DataError, match="line 1: the field 'suite' is missing"):
        record_completions(None, word_tokenizer, PROBLEMS, tmp_path / "c.jsonl", n=1)
