"""Scores: which source wins, and what is computed where there is none. Expected numbers are derived by hand."""

import csv

import pytest

from calibrated_sd.records import write_json, write_jsonl
from calibrated_sd.reports.loading import load_folder
from calibrated_sd.reports.scores import Scores

COLUMNS = ["arm", "seed", "suite", "step", "metric", "value", "lo", "hi", "n", "unit", "method", "p_value", "p_holm"]


def sample(
    suite, problem, correct, tokens, markers, *, arm="base", seed=0, step=0, index=0, context="none", held_out=0
):
    return {
        "schema_version": 1, "suite": suite, "problem_id": problem, "sample": index, "prompt_sha256": "", "completion": "",
        "finish_reason": "length" if tokens == 99 else "stop", "n_tokens": tokens, "correct": correct,
        "markers": {"legacy": markers, "lexical": markers, "held_out": held_out}, "context": context, "arm": arm,
        "seed": seed, "step": step,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Base on two OOD suites that share a problem name; one arm with two seeds."""
    write_json(tmp_path / "manifest.json", {
        "schema_version": 1, "kind": "reproduce", "profile": "default", "seeds": [0, 1], "eval_steps": [0, 2],
        "arms": [{"name": "base", "label": "base"}, {"name": "sdpo", "label": "SDPO"}],
        "suites": [{"name": "train", "label": "t", "role": "train"}, {"name": "heldout", "label": "h", "role": "heldout"},
                   {"name": "far_linear", "label": "f", "role": "far"}],
    })  # fmt: skip
    write_jsonl(tmp_path / "runs/base/seed_0/eval/step_0/completions.jsonl", [
        sample("heldout", "a", True, 10, 2), sample("heldout", "a", False, 30, 1, index=1, held_out=1),
        sample("far_linear", "a", True, 60, 1), sample("far_linear", "b", True, 99, 4, held_out=3), sample("train", "t", False, 5, 0),
    ])  # fmt: skip
    for seed, right in ((0, True), (1, False)):
        place = tmp_path / f"runs/sdpo/seed_{seed}"
        write_json(place / "run.json", {"status": "ok"})
        write_jsonl(place / "eval/step_2/completions.jsonl", [
            sample("heldout", "a", right, 10, 0, arm="sdpo", seed=seed, step=2),
            sample("far_linear", "a", False, 10, 0, arm="sdpo", seed=seed, step=2),
        ])  # fmt: skip
    return tmp_path


def write_summary(path, *rows):
    with open(path / "summary.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def test_pooled_accuracy_counts_every_question_once(folder):
    # Questions heldout/a = 1/2, far/a = 1, far/b = 1: mean 5/6. Pooling samples would give 3/4 as well as a wrong n.
    score = Scores(load_folder(folder)).get("base", "ood", "accuracy")
    assert score.value == pytest.approx(5 / 6)
    assert score.n == 3
    assert score.by_seed == {0: pytest.approx(5 / 6)}


def test_density_is_a_ratio_of_sums(folder):
    scores = Scores(load_folder(folder))
    # 8 markers in 10 + 30 + 60 + 99 = 199 tokens; 4 held-out ones.
    assert scores.get("base", "ood", "markers_per_1k").value == pytest.approx(8000 / 199)
    assert scores.get("base", "ood", "held_out_per_1k").value == pytest.approx(4000 / 199)
    # Per response, questions count once: (1.5 + 1 + 4) / 3.
    assert scores.get("base", "ood", "markers_per_response").value == pytest.approx(6.5 / 3)


def test_accuracy_of_finished_answers_leaves_out_cut_ones(folder):
    # far/b was cut at the limit: heldout/a = 1/2, far/a = 1.
    assert Scores(load_folder(folder)).get("base", "ood", "accuracy_finished").value == pytest.approx(0.75)


def test_seeds_are_pooled_and_kept_as_dots(folder):
    score = Scores(load_folder(folder)).get("sdpo", "ood", "accuracy")
    # Seed 0: (1 + 0) / 2, seed 1: 0.
    assert score.by_seed == {0: 0.5, 1: 0.0}
    assert score.value == pytest.approx(0.25)
    assert "2 seeds" in score.method


def test_summary_wins_over_completions_and_the_rest_is_recomputed(folder):
    row = {
        "arm": "sdpo",
        "seed": "all",
        "suite": "ood",
        "step": 2,
        "metric": "accuracy",
        "value": 0.4,
        "lo": 0.3,
        "hi": 0.5,
    }
    write_summary(folder, {**row, "n": 2, "unit": "share", "method": "m"})
    scores = Scores(load_folder(folder))
    score = scores.get("sdpo", "ood", "accuracy")
    assert (score.value, score.lo, score.hi) == (0.4, 0.3, 0.5)
    assert score.by_seed == {0: 0.5, 1: 0.0}  # the summary has no row per seed
    assert scores.get("base", "ood", "accuracy").value == pytest.approx(5 / 6)


def test_contrasts_come_with_the_holm_corrected_p_value(folder):
    row = {"arm": "sdpo", "seed": "all", "suite": "ood", "step": 2, "value": -0.5, "lo": -0.6, "hi": -0.4, "n": 2}
    write_summary(
        folder,
        {**row, "metric": "ood_difference_vs_base", "p_value": 0.01, "p_holm": 0.02},
        {**row, "metric": "ood_difference_vs_sdpo", "p_value": 0.01},
    )
    scores = Scores(load_folder(folder))
    assert scores.contrast("sdpo", "base").p_value == 0.02
    assert scores.contrast("sdpo", "sdpo").p_value is None  # an uncorrected one is no substitute
    assert scores.contrast("base", "sdpo") is None


def test_screening_samples_of_the_ladder_are_not_reported(folder):
    write_jsonl(folder / "runs/ladder/completions.jsonl", [
        sample("screen", "a", True, 5, 0), sample("congruence", "a", False, 5, 3), sample("linear", "b", True, 5, 1),
        sample("linear", "b", True, 5, 0, context="solution"),
    ])  # fmt: skip
    scores = Scores(load_folder(folder))
    assert scores.ladder("none", "accuracy").value == pytest.approx(0.5)
    assert scores.ladder("none", "markers_per_response").value == pytest.approx(2.0)
    assert scores.ladder("stripped", "accuracy") is None


def test_a_trajectory_starts_at_the_base_model(folder):
    points = Scores(load_folder(folder)).trajectory("sdpo", "ood", "accuracy")
    assert [(step, round(score.value, 3)) for step, score in points] == [(0, 0.833), (2, 0.25)]


def test_an_arm_without_evaluation_has_no_score(folder):
    assert Scores(load_folder(folder)).get("projection", "ood", "accuracy") is None
