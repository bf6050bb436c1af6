"""csd compare: differences by hand, what is refused, what is warned about, what is written."""

from __future__ import annotations

import json

import numpy as np
import pytest
from lm_eval_kit import line, write
from record_kit import record
from typer.testing import CliRunner

from calibrated_sd.cli.main import app
from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.evaluation.compare import FAMILY, compare_runs
from calibrated_sd.evaluation.statistics import holm
from calibrated_sd.records import read_json, write_jsonl

OPTIONS = {"n_resamples": 400}


def run(grades, tokens=100, markers=2, **changes):
    """Grades of the samples of each question; lengths and markers are the same everywhere unless given per question."""
    rows = []
    for i, (question, rights) in enumerate(grades.items()):
        length, count = (x[i] if isinstance(x, list) else x for x in (tokens, markers))
        rows += [record(question, s, right, length, count, **changes) for s, right in enumerate(rights)]
    return rows


BASE = {"p": [True, True], "q": [True, False], "r": [False, False], "s": [True, True]}
WORSE = {"p": [True, False], "q": [False, False], "r": [False, False], "s": [True, True]}


def test_differences_by_hand():
    found = compare_runs(run(BASE), run(WORSE, tokens=[40, 40, 40, 80], markers=[1, 0, 0, 1]), **OPTIONS)
    (suite,) = found["suites"].values()
    rows = suite["metrics"]
    assert (suite["n_questions"], suite["samples"], suite["length_unit"]) == (4, 2, "tokens")
    assert next(iter(rows)) == "accuracy"
    accuracy = rows["accuracy"]
    # by question −½, −½, 0, 0
    assert (accuracy["a"]["value"], accuracy["b"]["value"], accuracy["difference"]["value"]) == (5 / 8, 3 / 8, -1 / 4)
    # of the 16 sign patterns the 8 in which both halves point the same way are as extreme
    assert accuracy["p_value"] == 8 / 16
    assert rows["pass@2"]["difference"]["value"] == -1 / 4  # p and q and s at least once, then p and s
    assert rows["n_tokens"]["difference"]["value"] == 50 - 100
    assert rows["n_tokens"]["difference"]["unit"] == "tokens"
    assert rows["lexical_per_response"]["difference"]["value"] == 0.5 - 2
    # sums, not means of rates: 1000 · 4/400 − 1000 · 16/800
    assert rows["lexical_per_1k"]["difference"]["value"] == pytest.approx(10 - 20)
    assert rows["legacy_per_1k"]["difference"]["value"] == pytest.approx(20 - 40)
    assert rows["truncated_share"]["difference"]["value"] == 0.0
    # Within 64 tokens: A none; B p's one right answer.
    within = rows["accuracy_within@64"]
    assert (within["a"]["value"], within["b"]["value"], within["difference"]["value"]) == (0.0, 1 / 8, 1 / 8)


def test_only_the_family_is_adjusted_and_together():
    (suite,) = compare_runs(run(BASE), run(WORSE, tokens=50, markers=1), **OPTIONS)["suites"].values()
    rows = suite["metrics"]
    expected = holm({name: rows[name]["p_value"] for name in FAMILY})
    assert {name: row["p_holm"] for name, row in rows.items() if row["p_holm"] is not None} == expected
    assert expected["n_tokens"] == min(1.0, 5 * 2 / 16)  # the smallest of five: all four questions agree, 2 of 16


def test_a_run_against_itself_is_exactly_zero():
    rng = np.random.default_rng(0)
    rows = [
        record(str(q), s, bool(rng.random() < 0.5), int(rng.integers(5, 300)), int(rng.integers(0, 9)))
        for q in range(30)
        for s in range(4)
    ]
    (suite,) = compare_runs(rows, rows, **OPTIONS)["suites"].values()
    assert len(suite["metrics"]) >= 19
    for name, row in suite["metrics"].items():
        shown = row["difference"]
        assert (shown["value"], shown["lo"], shown["hi"], row["p_value"]) == (0.0, 0.0, 0.0, 1.0), name


def test_exchanging_the_runs_changes_the_sign():
    forward = compare_runs(run(BASE), run(WORSE, tokens=60), **OPTIONS)["suites"]["heldout"]["metrics"]
    back = compare_runs(run(WORSE, tokens=60), run(BASE), **OPTIONS)["suites"]["heldout"]["metrics"]
    for name in forward:
        assert forward[name]["difference"]["value"] == pytest.approx(-back[name]["difference"]["value"])
        assert forward[name]["p_value"] == back[name]["p_value"]


def test_other_prompts_are_refused():
    changed = [{**r, "prompt_sha256": "other"} if r["problem_id"] == "q" else r for r in run(WORSE)]
    with pytest.raises(DataError, match=r"different prompts at 1 of the shared questions \(e\.g\. 'q'"):
        compare_runs(run(BASE), changed)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (run({k: v * 2 for k, v in WORSE.items()}), "A has 2 samples per question and B 4"),
        (run(WORSE)[:-1], "A has 2 samples per question and B 1 to 2"),
        (run(WORSE, suite="far"), "no suite in common: A has 'heldout', B has 'far'"),
        (run({"z": [True, True]}), "no question in common"),
        (run(WORSE, length_unit="words"), "tokens in one run and in words in the other"),
        (run(WORSE) + run(WORSE, step=4), "B 4|mix 2 values of 'step'"),
    ],
)
def test_runs_that_cannot_be_compared(other, words):
    with pytest.raises(DataError, match=words):
        compare_runs(run(BASE), other)


def test_questions_and_suites_of_one_run_only_are_left_out_with_a_warning():
    more = {**WORSE, "t": [True, True]}
    found = compare_runs(run(BASE) + run(BASE, suite="far"), run(more), **OPTIONS)
    assert found["suites"]["heldout"]["metrics"]["accuracy"]["difference"]["value"] == -1 / 4
    assert found["warnings"] == [
        "Only A has the suite 'far'; it is left out.",
        "Suite 'heldout': 0 questions only in A and 1 only in B are left out; 4 are compared.",
    ]


def test_questions_without_a_grade_are_no_zeros():
    """Question q of B could not be judged: accuracy is compared on the other three."""
    ungraded = run({**WORSE, "q": [None, None]})
    rows = compare_runs(run(BASE), ungraded, **OPTIONS)["suites"]["heldout"]["metrics"]
    assert (rows["accuracy"]["difference"]["n"], rows["n_tokens"]["difference"]["n"]) == (3, 4)
    assert rows["accuracy"]["difference"]["value"] == pytest.approx(-0.5 / 3)
    assert rows["pass@2"]["difference"]["n"] == rows["maj@2"]["difference"]["n"] == 3
    found = compare_runs(run(BASE), [{**r, "correct": None} for r in run(WORSE)], **OPTIONS)
    assert [w for w in found["warnings"] if "no answer of B is graded" in w] == found["warnings"] != []
    rows = found["suites"]["heldout"]["metrics"]
    assert "accuracy" not in rows
    assert rows["lexical_per_1k"]["p_holm"] == 1.0


def test_several_seeds():
    a = run(BASE) + run(WORSE, seed=1)
    found = compare_runs(a, run(WORSE), **OPTIONS)["suites"]["heldout"]["metrics"]
    assert found["accuracy"]["difference"]["value"] == pytest.approx(3 / 8 - (5 / 8 + 3 / 8) / 2)
    assert found["lexical_per_1k"]["difference"]["method"].endswith("questions and 2 seeds")


def csd(*arguments):
    return CliRunner().invoke(app, ["compare", *map(str, arguments), "--resamples", "200"])


def test_the_command(tmp_path):
    write_jsonl(tmp_path / "a" / "completions.jsonl", run(BASE))
    write_jsonl(tmp_path / "b.jsonl", run(WORSE, tokens=50))
    out = tmp_path / "out"
    result = csd(tmp_path / "a", tmp_path / "b.jsonl", "--output", out)
    assert result.exit_code == 0, result.output
    assert "heldout: 4 questions × 2, B − A" in result.output
    assert "0.625 ±" in result.output
    assert "-0.25 ±" in result.output
    document = read_json(out / "comparison.json")
    assert document["kind"] == read_json(out / "manifest.json")["kind"] == "compare"
    assert document["provenance"]["versions"]["calibrated-sd"]
    printed = csd(tmp_path / "a", tmp_path / "b.jsonl", "--json")
    assert json.loads(printed.output)["suites"] == document["suites"]
    assert "not empty" in str(csd(tmp_path / "a", tmp_path / "b.jsonl", "--output", out).exception)
    assert csd(tmp_path / "a", tmp_path / "b.jsonl", "--output", out, "--if-exists", "overwrite").exit_code == 0


def test_a_seed_below_zero(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", run(BASE))
    found = csd(tmp_path / "a.jsonl", tmp_path / "a.jsonl", "--seed", "-1").exception
    assert isinstance(found, ConfigError)
    assert "--seed must be a whole number from 0, got -1" in str(found)


def test_the_command_on_lm_evals_files(tmp_path):
    for name, rights in (("base", [1.0, 1.0, 0.0]), ("sdpo", [1.0, 0.0, 0.0])):
        write(tmp_path / name, [line(i, f"maybe {i}", right) for i, right in enumerate(rights)])
    result = csd(tmp_path / "base", tmp_path / "sdpo")
    assert result.exit_code == 0, result.output
    assert "gsm8k: 3 questions × 1" in result.output
    assert "per 1k words" in result.output
    empty = tmp_path / "empty"
    empty.mkdir()
    for bad in (tmp_path / "absent", empty):
        assert isinstance(csd(tmp_path / "base", bad).exception, DataError)
