"""lm-evaluation-harness's per-sample files, as records, in comparisons and in marker counts."""

from __future__ import annotations

import json

import pytest
from lm_eval_kit import FILE, line, write
from typer.testing import CliRunner

from calibrated_sd.errors import DataError
from calibrated_sd.evaluation.lm_eval import read_lm_eval, task_name
from calibrated_sd.evaluation.run_files import read_run
from calibrated_sd.evaluation.suite_figures import suite_figures
from calibrated_sd.records import prompt_sha256
from calibrated_sd.records.schema import record_problem

LINES = [
    line(0, " wait, maybe #### 0", 1.0),
    line(1, " so 1", 0.0),
    line(0, " wait, maybe #### 0", 1.0, "flexible-extract"),
    line(1, " so 1", 1.0, "flexible-extract"),
]


def test_a_record_by_hand(tmp_path):
    rows = read_lm_eval(write(tmp_path / "org__model", LINES))
    assert rows[0] == {
        "schema_version": 1,
        "suite": "gsm8k",
        "problem_id": "0",
        "sample": 0,
        "prompt_sha256": prompt_sha256("Question: q0\nAnswer:"),  # the harness hashes the same bytes in the same way
        "completion": " wait, maybe #### 0",
        "finish_reason": "stop",
        "n_tokens": 4,
        "correct": True,
        "markers": {"legacy": 2, "lexical": 2, "held_out": 0},
        "context": "none",
        "arm": "org__model",
        "seed": 0,
        "step": 0,
        "length_unit": "words",
    }
    assert [record_problem(row) for row in rows] == [None, None]
    assert [row["correct"] for row in rows] == [True, False]  # the first filter, once per document


def test_another_filter_another_metric_or_our_own_grader(tmp_path):
    path = write(tmp_path, LINES)
    assert [r["correct"] for r in read_lm_eval(path, filter_name="flexible-extract")] == [True, True]
    # "#### 0" is a stated answer, "so 1" is none; the target states its own after ####
    pytest.importorskip("math_verify")
    assert [r["correct"] for r in read_lm_eval(path, grader="stated")] == [True, False]
    with pytest.raises(DataError, match=r"no filter 'loose'\. Its filters are: strict-match, flexible-extract"):
        read_lm_eval(path, filter_name="loose")
    with pytest.raises(DataError, match=r"no metric 'f1'\. Its metrics are: exact_match"):
        read_lm_eval(path, metric="f1")


def test_a_tokenizer_counts_tokens_and_shows_the_limit(tmp_path, word_tokenizer):
    path = write(tmp_path, [line(0, "wait so the answer is one", 1.0), line(1, "so two", 0.0)])  # limit: 6 tokens
    rows = read_lm_eval(path, tokenizer=word_tokenizer)
    assert [(r["n_tokens"], r["finish_reason"], r["length_unit"]) for r in rows] == [
        (6, "length", "tokens"),
        (2, "stop", "tokens"),
    ]


def test_several_samples_have_no_verdict_of_their_own(tmp_path):
    """The line's metric concerns what the filter left of four texts."""
    texts = ["#### 3", "#### 4", "#### 3", "none"]
    path = write(tmp_path, [line(3, "", 1.0, resps=[texts])])
    rows = read_lm_eval(path)
    assert [(r["sample"], r["correct"]) for r in rows] == [(i, None) for i in range(4)]
    pytest.importorskip("math_verify")
    assert [r["correct"] for r in read_lm_eval(path, grader="stated")] == [True, False, True, False]


def test_targets_need_not_be_text(tmp_path):
    """Older versions of the harness write a target as the task gives it."""
    path = write(tmp_path, [line(0, r"\boxed{4}", 0.0, target=4), line(1, r"\boxed{4}", 0.0, target=5)])
    assert [r["correct"] for r in read_lm_eval(path, grader="boxed")] == [True, False]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([{"doc_id": 0, "text": "x"}], "no sample file"),
        ([line(0, "a", 1.0), line(0, "b", 0.0)], "document 0 twice"),
        ([line(0, "", 1.0, resps=[[["-1.5", "True"]], [["-2.0", "False"]]])], "2 scored ones"),
        # a perplexity task: its score is a string, and no text
        ([line(0, "-123.4", 1.0, arguments={"gen_args_0": {"arg_0": "some text"}})], "1 scored ones"),
        ([line(0, "-123.4", 1.0, arguments=[["some text"]])], "1 scored ones"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, lines, words):
    with pytest.raises(DataError, match=words):
        read_lm_eval(write(tmp_path, lines))


@pytest.mark.parametrize(
    ("name", "task"),
    [
        (FILE, "gsm8k"),
        ("samples_hendrycks_math_algebra_2024-07-01T09-00-00.5.jsonl", "hendrycks_math_algebra"),
        ("samples_aime24.jsonl", "aime24"),
    ],
)
def test_the_task_is_in_the_name(name, task):
    assert task_name(name) == task


def test_a_folder_of_the_harness_is_a_run(tmp_path):
    write(tmp_path, LINES)
    write(tmp_path, [line(0, "maybe", 0.0)], FILE.replace("gsm8k", "aime24"))
    assert {r["suite"] for r in read_run(tmp_path)} == {"gsm8k", "aime24"}
    write(tmp_path, LINES, FILE.replace("2025", "2026"))
    with pytest.raises(DataError, match="'gsm8k' more than once"):
        read_run(tmp_path)


def test_figures_of_a_sample_file(tmp_path):
    shown = suite_figures(read_run(write(tmp_path, LINES)))
    assert shown["accuracy"]["value"] == 0.5
    assert shown["lexical_per_response"]["value"] == 1.0  # 2 and 0
    assert shown["lexical_wrong_minus_right"]["value"] is None  # one sample per question: no question both ways
    assert shown["lexical_auroc"]["value"] == 0.0  # the right one hedges


def test_markers_command_reads_it(tmp_path):
    from calibrated_sd.cli.main import app

    result = CliRunner().invoke(app, ["markers", str(write(tmp_path, LINES)), "--json"])
    assert result.exit_code == 0, result.output
    (report,) = json.loads(result.output)["files"]
    assert (report["rows"], report["length_unit"], report["length"]) == (2, "whitespace-separated words", 6)
    assert report["sets"]["lexical"]["by_phrase"] == {"wait": 1, "maybe": 1}
