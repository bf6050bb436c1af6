"""An off-policy job of the organism: what it samples, and what it writes."""

import json

import pytest

from calibrated_sd.experiments.recipe import SFT_DATA
from calibrated_sd.experiments.runner import Job, prepare_job
from calibrated_sd.experiments.sft_job import sample_off_policy
from calibrated_sd.experiments.training import load_weights
from calibrated_sd.experiments.worker import run_job
from calibrated_sd.records import read_completions, read_json, read_jsonl

RECIPE = {
    "kind": "sft", "arm": "sft_d_sg", "seed": 3, "steps": 2, "data": "D_sg", "data_samples": 2, "model": "organism",
    "n_train_problems": 6, "max_new_tokens": 160, "eval_problems": 1, "eval_samples": 1,
    "trainer": {"learning_rate": 3.0e-4, "per_device_train_batch_size": 4},
}  # fmt: skip


@pytest.fixture(scope="module")
def sampled():
    return sample_off_policy(*load_weights(RECIPE), RECIPE)


def test_equal_seeds_sample_equal_data(sampled):
    assert sample_off_policy(*load_weights(RECIPE), RECIPE) == sampled
    assert sample_off_policy(*load_weights(RECIPE), {**RECIPE, "seed": 4}) != sampled


def test_both_sets_answer_the_same_problems_and_show_the_student_the_problem_alone(sampled):
    assert set(SFT_DATA) <= set(sampled)
    d_ug, d_sg = sampled["D_ug"], sampled["D_sg"]
    assert [row["problem_id"] for row in d_ug] == [row["problem_id"] for row in d_sg]
    assert [row["prompt"] for row in d_ug] == [row["prompt"] for row in d_sg]
    assert {row["context"] for row in d_ug} == {"none"}
    assert {row["context"] for row in d_sg} == {"solution"}
    for row in (*d_ug, *d_sg):
        assert f"\\boxed{{ {row['answer']} }}" in row["completion"][0]["content"]
    # Sure answers are short, so the set that is repeated to the other's tokens is the guided one.
    tokens = {name: sum(row["n_tokens"] for row in rows) for name, rows in sampled.items()}
    assert tokens["D_sg"] < tokens["D_sg_token_matched"]
    assert tokens["D_ug_token_matched"] < tokens["D_ug"]


def test_the_job_writes_its_evaluation_at_the_number_of_passes(tmp_path, sampled):
    folder = tmp_path / "runs" / "sft_d_sg" / "seed_3"
    prepare_job(Job(folder, RECIPE))
    run_job(folder)
    assert read_json(folder / "run.json")["status"] == "ok"
    records = read_completions(folder / "eval" / "step_2" / "completions.jsonl")
    assert {(r["arm"], r["seed"], r["step"]) for r in records} == {("sft_d_sg", 3, 2)}
    assert {r["suite"] for r in records} == {"train", "heldout", "far_linear", "far_sumproduct"}
    sizes = json.loads((folder / "data.json").read_text())["sets"]
    assert sizes["D_sg"] == {"rows": len(sampled["D_sg"]), "tokens": sum(r["n_tokens"] for r in sampled["D_sg"])}
    steps = [line for line in read_jsonl(folder / "train.jsonl", check_version=False) if "loss" in line]
    assert len(steps) == 2 * -(-len(sampled["D_sg"]) // 4)
    assert not (folder / "trainer").exists()
