"""Metrics: every figure from eight completions that can be counted by hand."""

from __future__ import annotations

import math

import pytest
from record_kit import record as completed

from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.evaluation.metrics import (
    majority_correct,
    pass_at_k,
    summarise,
    summary_rows,
    tidy,
    values_by_question,
)


def record(problem, sample, *, answer="1", correct=True, finish="stop", tokens=10, lexical=0, **changes):
    text = "so \\boxed{ " + answer + " }" if answer else "maybe"
    return completed(problem, sample, correct, tokens, lexical, completion=text, finish_reason=finish, **changes)


@pytest.fixture
def records():
    """Problem a: 3 of 4 right, b: 1 of 4 right."""
    return [
        record("a", 0, lexical=1),
        record("a", 1, lexical=2),
        record("a", 2, lexical=0, tokens=20, finish="length"),  # right, though cut after the box
        record("a", 3, answer="2", correct=False),
        record("b", 0, answer="7"),
        record("b", 1, answer="8", correct=False, lexical=3),
        record("b", 2, answer="8", correct=False, lexical=3),
        record("b", 3, answer=None, correct=False, finish="length", tokens=40, lexical=3),
    ]


def test_all_figures_by_hand(records):
    shown = {name: figure["value"] for name, figure in summarise(records).items()}
    assert shown == pytest.approx(
        {
            "accuracy": (3 / 4 + 1 / 4) / 2,
            # all four samples: at least one right in both problems
            "pass@4": 1.0,
            # a votes 1 1 1 2 → right; b votes 7 8 8 → wrong
            "maj@4": 1 / 2,
            # right and finished 2 + 1, finished 3 + 3
            "accuracy_given_finished": 3 / 6,
            "truncated_share": (1 / 4 + 1 / 4) / 2,
            # a: (10 + 10 + 20 + 10) / 4 = 12.5, b: (10 + 10 + 10 + 40) / 4 = 17.5
            "n_tokens": 15.0,
            # a: 3/4, b: 9/4
            "lexical_per_response": 1.5,
            # 12 markers in 120 tokens
            "lexical_per_1k": 100.0,
            "legacy_per_response": 3.0,
            "legacy_per_1k": 200.0,
            "held_out_per_response": 0.0,
            "held_out_per_1k": 0.0,
        }
    )
    figures = summarise(records)
    assert all(figure["n"] == 2 for figure in figures.values())
    assert figures["accuracy"]["method"].startswith("avg@4; 95% BCa bootstrap")
    assert (figures["n_tokens"]["unit"], figures["lexical_per_1k"]["unit"]) == ("tokens", "per 1k tokens")


def test_pass_at_k_by_hand(records):
    # n = 4, k = 2: 1 − C(n−c, 2)/C(4, 2). a: c = 3: 1 − 0/6 = 1. b: c = 1: 1 − 3/6 = 1/2.
    shown = summarise(records, ks=[1, 2])
    assert shown["pass@2"]["value"] == pytest.approx(0.75)
    assert shown["pass@1"]["value"] == pytest.approx(shown["accuracy"]["value"])
    assert pass_at_k(4, 3, 2) == 1.0
    assert pass_at_k(4, 1, 2) == 0.5
    assert pass_at_k(16, 1, 8) == pytest.approx(0.5)
    # The biased plug-in 1 − (1 − c/n)^k would say 1 − (3/4)² = 0.4375.
    with pytest.raises(ConfigError, match="pass@8 needs 8 samples"):
        summarise(records, ks=[8])
    with pytest.raises(ConfigError, match="k=5"):
        pass_at_k(4, 1, 5)


def test_default_k_follows_the_number_of_samples():
    shown = summarise([record(p, s) for p in "ab" for s in range(16)])
    assert [name for name in shown if name.startswith("pass@")] == ["pass@4", "pass@16"]
    assert "maj@16" in shown


def test_majority():
    assert majority_correct(["1", "1", "2"], [1.0, 1.0, 0.0]) == 1.0
    assert majority_correct(["1", "2"], [1.0, 0.0]) == 0.5  # a tie, broken at random
    assert majority_correct([None, None, "2"], [0.0, 0.0, 1.0]) == 1.0  # no answer is no vote
    assert majority_correct([None], [0.0]) == 0.0


def test_spellings_of_one_answer_vote_together():
    rows = [record("a", 0, answer="1/2"), record("a", 1, answer="0.5"), record("a", 2, answer="3", correct=False)]
    rows += [record("b", s) for s in range(3)]
    assert summarise(rows)["maj@3"]["value"] == 1.0


def test_a_sample_without_a_verdict_costs_its_question_only():
    """One time limit among thousands of samples must not take pass@k away: b is right twice, a is not known."""
    rows = [record("a", 0, correct=None), record("a", 1), record("b", 0), record("b", 1)]
    figures = summarise(rows)
    for name in ("pass@2", "maj@2"):
        assert (figures[name]["value"], figures[name]["n"]) == (1.0, 1)
    assert figures["accuracy"]["n"] == 2


def test_an_empty_box_is_no_vote():
    rows = [record("a", 0, answer=" ", correct=False), record("a", 1, answer="", correct=False), record("a", 2)]
    assert tidy(rows)["answer"].tolist() == [None, None, "1"]
    assert summarise(rows)["maj@3"]["value"] == 1.0


def test_right_answers_outside_of_a_box_make_the_vote_unknown():
    """The grader `stated` takes them; counted as no vote they would lose to any box."""
    rows = [record("a", 0, answer=""), record("a", 1, answer=""), record("a", 2, answer="3", correct=False)]
    figures = summarise(rows)
    assert (figures["maj@3"]["value"], figures["pass@3"]["value"]) == (None, 1.0)


def test_ungraded_records_give_no_accuracy(records):
    figures = summarise([{**r, "correct": None} for r in records])
    for name in ("accuracy", "pass@4", "maj@4", "accuracy_given_finished"):
        assert (figures[name]["value"], figures[name]["n"]) == (None, 0)
    assert figures["lexical_per_1k"]["value"] == 100.0
    # half graded: accuracy of what was graded, but no pass@k of a part of the samples
    half = [{**r, "correct": None if r["sample"] % 2 else r["correct"]} for r in records]
    assert summarise(half)["accuracy"]["value"] == (1.0 + 0.5) / 2
    assert summarise(half)["pass@4"]["value"] is None


def test_several_seeds(records):
    both = records + [{**r, "seed": 1, "correct": True} for r in records]
    shown = summarise(both)["accuracy"]
    assert shown["value"] == (0.5 + 1.0) / 2
    assert shown["method"].endswith("questions and 2 seeds")
    values = values_by_question(both, "correct")
    assert list(values) == [0, 1]
    assert list(values[0]["a"]) == [1, 1, 1, 0]


def test_tidy(records):
    frame = tidy(records)
    assert len(frame) == 8
    assert frame.loc[7, ["finished", "correct", "lexical", "legacy"]].tolist() == [0.0, 0.0, 3, 6]
    assert frame.loc[7, "answer"] is None
    assert frame.loc[0, "answer"] == "1"
    assert math.isnan(tidy([record("a", 0, correct=None)]).loc[0, "correct"])
    assert list(tidy([]).columns) == list(frame.columns)


def test_values_by_question(records):
    assert {q: list(v) for q, v in values_by_question(records, "lexical").items()} == {
        "a": [1, 2, 0, 0],
        "b": [0, 3, 3, 3],
    }
    with pytest.raises(ConfigError, match="Did you mean 'lexical'"):
        values_by_question(records, "lexicl")


@pytest.mark.parametrize(
    ("field", "value"), [("arm", "sdpo"), ("suite", "train"), ("step", 4), ("context", "solution")]
)
def test_conditions_are_never_averaged_over(records, field, value):
    with pytest.raises(DataError, match=f"mix 2 values of '{field}'"):
        summarise([*records, record("c", 0, **{field: value})])


def test_no_records():
    with pytest.raises(DataError, match="no completion records"):
        summarise([])


def test_summary_rows(records):
    rows = summary_rows(records + [{**r, "step": 4, "correct": True} for r in records])
    accuracy = [r for r in rows if r["metric"] == "accuracy"]
    assert [(r["arm"], r["seed"], r["suite"], r["step"], r["context"], r["value"]) for r in accuracy] == [
        ("base", 0, "heldout", 0, "none", 0.5),
        ("base", 0, "heldout", 4, "none", 1.0),
    ]
    assert set(accuracy[0]) == {
        "arm",
        "seed",
        "suite",
        "step",
        "context",
        "metric",
        *(["value", "lo", "hi", "n", "unit", "method"]),
    }
    # over seeds
    rows = summary_rows(records + [{**r, "seed": 1} for r in records], by=("arm", "suite", "step", "context"))
    assert "seed" not in rows[0]
    assert rows[0]["method"].endswith("questions and 2 seeds")
