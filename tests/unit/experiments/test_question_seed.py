"""A confirmation asks other questions than the search before it, where a family has more of them."""

from dataclasses import replace

from calibrated_sd.cli.recipes import find_recipe
from calibrated_sd.experiments import worker
from calibrated_sd.experiments.sweep import sweep_jobs
from calibrated_sd.experiments.sweep_recipe import load_sweep


def asked(tmp_path, monkeypatch, **recipe):
    """Problem ids that a job's evaluation would sample, by suite."""
    found = {}

    def sample(model, tokenizer, problems, prompts, *, suite, **fields):
        for problem in problems:
            found.setdefault(suite(problem), set()).add(problem.problem_id)
        return []

    monkeypatch.setattr(worker, "sample_records", sample)
    recipe = {"n_train_problems": 8, "max_new_tokens": 8, "arm": "base", "seed": 0, **recipe}
    folder = tmp_path / str(recipe.get("question_seed", 0))
    worker.evaluate_weights(None, None, folder, recipe, step=0, n_problems=91, n_samples=1)
    return found


def test_other_questions_but_the_same_trained_problems(tmp_path, monkeypatch):
    old, new = asked(tmp_path, monkeypatch), asked(tmp_path, monkeypatch, question_seed=1)
    assert old["train"] == new["train"]
    assert old["far_sumproduct"] == new["far_sumproduct"]  # the family has only these 91
    for suite in ("heldout", "far_linear"):
        assert len(new[suite]) == 91
        assert len(new[suite] - old[suite]) > 30  # 91 of 332 and of 220, drawn independently


def test_runs_without_a_question_seed_are_the_work_they_were(tmp_path):
    sweep = load_sweep(find_recipe("sweeps/strength"), find=find_recipe)
    assert all("question_seed" not in job.recipe for job in sweep_jobs(sweep, tmp_path))
    other = replace(sweep, evaluation=replace(sweep.evaluation, question_seed=1))
    assert all(job.recipe["question_seed"] == 1 for job in sweep_jobs(other, tmp_path))
