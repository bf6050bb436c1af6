"""The recipe of a training run: which config reads it, what is refused, and one step of every trainer."""

import json

import pytest
import yaml

from calibrated_sd.cli.train import check_processes, load_rows, make_trainer
from calibrated_sd.errors import ConfigError
from calibrated_sd.experiments.train_recipe import TRAINERS, RunArguments, parse_recipe, trainer_classes
from calibrated_sd.experiments.training import adapter_config
from tiny_runs import NUMBERS, QUIET

ROLLOUTS = {"per_device_train_batch_size": 8, "max_completion_length": 8, "num_generations": 4}
OWN = {
    "sdpo": {**ROLLOUTS, "distillation_mode": "full_logits", "teacher_model_kind": "base"},
    "sdft": {**ROLLOUTS, "teacher_model_kind": "base", "context_levels": "solution"},
    "sft": {"per_device_train_batch_size": 4, "max_length": 64},
    "distillation": {"per_device_train_batch_size": 4, "max_completion_length": 8},
    "grpo": {**ROLLOUTS, "beta": 0.0, "reward": "evens:even_tokens"},
}
"""What each trainer needs for one step."""


@pytest.fixture
def problems(tmp_path):
    """Eight questions with a solution, as a problem file."""
    path = tmp_path / "problems.jsonl"
    rows = [
        {"problem": f"question {n} plus two", "answer": n, "solution": f"maybe {n} wait check . the answer is {n}"}
        for n in NUMBERS
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def recipe(tmp_path, problems, model_path):
    """`recipe(trainer=…, **settings)`: a file with a run of one step."""

    def write(**settings):
        path = tmp_path / "recipe.yaml"
        base = {"model": model_path, "problems": str(problems), "output_dir": str(tmp_path / "out"), "max_steps": 1}
        path.write_text(yaml.safe_dump({**QUIET, **base, **settings}), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("trainer", TRAINERS)
def test_one_step_of_every_trainer_is_logged(trainer, recipe, tmp_path, monkeypatch):
    (tmp_path / "evens.py").write_text(
        "def even_tokens(completion_ids, **_):\n    return [i[0] % 2 for i in completion_ids]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run, settings = parse_recipe(recipe(trainer=trainer, **OWN[trainer]), [])
    config, cls = trainer_classes(trainer)
    assert type(settings) is config
    made = make_trainer(run, settings, load_rows(run, settings), tmp_path)
    assert type(made) is cls
    made.train()
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1]
    if trainer == "grpo":  # the baseline is TRL's own class, and yet its doubt is counted
        assert cls.__module__.startswith("trl.")
        assert any(key.startswith("epistemic/") for key in lines[0])


def test_lora_trains_the_adapter_alone(recipe, tmp_path):
    run, settings = parse_recipe(recipe(**OWN["sdpo"], lora_r=2, lora_target_modules="q_proj, v_proj"), [])
    made = make_trainer(run, settings, load_rows(run, settings), tmp_path)
    trained = {name for name, p in made.model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * 2  # two layers, two modules, the factors A and B
    assert all("q_proj.lora_" in name or "v_proj.lora_" in name for name in trained)


def test_the_scale_of_an_adapter_is_twice_its_rank_unless_it_is_given():
    assert adapter_config({"lora_r": 0}) is None
    assert adapter_config({"lora_r": 8}).lora_alpha == 16
    assert adapter_config({"lora_r": 8, "lora_alpha": 8}).lora_alpha == 8
    assert adapter_config({"lora_r": 8}).target_modules == "all-linear"


@pytest.mark.parametrize(
    ("settings", "overrides", "message"),
    [
        ({"trainer": "sdop"}, [], "Did you mean 'sdpo'"),
        ({}, ["--trainer", "grppo"], "Did you mean 'grpo'"),
        ({"trainer": "grpo", "chunk_size": 4}, [], "chunk_size is a setting of the trainers sdpo, sdft, sft"),
        ({"trainer": "sft", "num_generations": 4}, [], "num_generations is a setting of the trainers sdpo"),
        ({"trainer": "grpo", "epsilon_hihg": 0.28}, [], "Did you mean 'epsilon_high'"),
        ({"trainer": "sft"}, ["--max_lenght", "9"], "--max_length"),
        ({"lora_alpha": 4}, [], "lora_r is 0"),
        ({"lora_r": -1}, [], "lora_r must be 0 or more"),
        ({"gpus": 0}, [], "gpus must be 1 or more"),
        ({"gpu_memory_gib": -80}, [], "gpu_memory_gib must be above 0"),
        ({"n_problems": 0}, [], "n_problems must be 1 or more"),
        ({"trainer": "sft", "reward": "a:b"}, [], "has nothing to reward"),
        ({"trainer": "sft", "chat_template_kwargs": "{"}, [], "no JSON object"),
    ],
)
def test_mistakes_are_named(recipe, settings, overrides, message):
    with pytest.raises(ConfigError, match=message):
        parse_recipe(recipe(**settings), overrides)


def test_an_override_chooses_the_trainer_and_so_the_config(recipe):
    path = recipe(trainer="sdpo")
    assert type(parse_recipe(path, ["--trainer", "grpo"])[1]) is trainer_classes("grpo")[0]
    assert type(parse_recipe(path, ["--trainer=sft"])[1]) is trainer_classes("sft")[0]


def test_a_recipe_for_gpus_is_read_without_one(recipe):
    path = recipe(trainer="grpo", use_cpu=False, bf16=True, num_generations=8)
    settings = parse_recipe(path, [], on_this_machine=False)[1]
    assert settings.bf16
    assert not settings.use_cpu
    assert parse_recipe(path, ["--use_cpu", "true"], on_this_machine=False)[1].use_cpu


def test_another_number_of_processes_would_be_another_batch(recipe):
    run, settings = parse_recipe(recipe(gpus=8, **OWN["sdpo"]), [])
    with pytest.raises(ConfigError, match=r"gpus=8 processes, but 1 was started"):
        check_processes(run, settings)
    run.gpus = 1
    check_processes(run, settings)
    settings._n_gpu = 2  # what transformers counts when one process sees two
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES=0"):
        check_processes(run, settings)


@pytest.mark.parametrize(("n", "repeat", "rows"), [(3, False, 3), (3, True, 12), (1, True, 4), (8, True, 8)])
def test_few_problems_are_repeated_until_they_fill_a_generation_batch(recipe, n, repeat, rows):
    # 16 rollouts of 4 of a problem take 4 problems; the least common multiple of 3 and 4 is 12.
    path = recipe(**{**OWN["sdpo"], "per_device_train_batch_size": 16}, n_problems=n, repeat_problems=repeat)
    run, settings = parse_recipe(path, [])
    found = load_rows(run, settings)
    assert len(found) == rows
    assert len({row["prompt"][0]["content"] for row in found}) == n


def test_fewer_problems_than_wanted_are_said(recipe):
    run, settings = parse_recipe(recipe(**OWN["sdpo"], n_problems=9), [])
    with pytest.warns(UserWarning, match=r"n_problems is 9, but .*problems\.jsonl holds 8"):
        assert len(load_rows(run, settings)) == 8


def test_a_plan_by_one_process_repeats_problems_for_all_of_them(recipe):
    # 8 processes of 8 rollouts, 4 of a problem, take 16 problems; one process alone would take 2.
    run, settings = parse_recipe(recipe(**OWN["sdpo"], gpus=8, n_problems=1, repeat_problems=True), [])
    assert settings.world_size == 1
    assert len(load_rows(run, settings)) == 16


def test_defaults_are_the_organism_and_all_weights():
    run = RunArguments()
    assert (run.trainer, run.model, run.problems, run.lora_r, run.gpus) == ("sdpo", "organism", "organism", 0, 1)


def test_going_on_from_a_named_checkpoint_is_refused_and_not_ignored(recipe):
    with pytest.raises(ConfigError, match=r"resume_from_checkpoint='out/checkpoint-2' .*Use --if-exists resume"):
        parse_recipe(recipe(**OWN["sdpo"]), ["--resume_from_checkpoint", "out/checkpoint-2"])
    with pytest.raises(ConfigError, match="Use --if-exists resume"):
        parse_recipe(recipe(**OWN["sdpo"], resume_from_checkpoint="out/checkpoint-2"), [])
