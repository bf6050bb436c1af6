"""What people write into recipes of every kind and what no run could be made of, as the fuzzing found it."""

import os

import pytest
import yaml

from calibrated_sd.cli.recipes import recipes_root, validate_file
from calibrated_sd.errors import ConfigError
from calibrated_sd.experiments.train_recipe import parse_recipe
from calibrated_sd.records.recipe_files import read_recipe

SDPO, SWEEP, STUDY = "organism/sdpo_projection", "sweeps/strength", "organism/reproduce"
PRETRAIN, LAUNCH = "organism/pretrain", "launch/4gpus_zero2"
ARM = {"label": "x", "trainer": {}}
SIZES = {"steps": 2, "eval_steps": [2], "seeds": [0]}


def edited(tmp_path, name, changes):
    raw = yaml.safe_load((recipes_root() / f"{name}.yaml").read_text(encoding="utf-8"))
    for place, value in changes.items():
        *outer, last = place.split("/")
        inner = raw
        for key in outer:
            inner = inner.setdefault(key, {})
        if value is ...:
            del inner[last]
        else:
            inner[last] = value
    path = tmp_path / "recipe.yaml"
    path.write_text("# a recipe\n" + yaml.safe_dump(raw), encoding="utf-8")
    return path


def refused(path, message):
    with pytest.raises(ConfigError, match=message) as error:
        validate_file(path)
    assert "\n" not in str(error.value).strip()
    assert len(str(error.value)) < 2500


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        # types: what argparse and dataclasses let through
        (SDPO, {"n_problems": {"a": 1}}, "n_problems in .* must be a whole number or null, got {'a': 1}"),
        (SDPO, {"lora_r": None}, "lora_r in .* must be a whole number, got None"),
        (SDPO, {"learning_rate": [1.0]}, "learning_rate in .* must be a number"),
        (SDPO, {"max_steps": 2.5}, "max_steps in .* must be a whole number, got 2.5"),
        (SDPO, {"use_cpu": []}, "use_cpu in .* must be true or false"),
        (SDPO, {"model": True}, "stands in quotes"),
        (SDPO, {"calibration_method": {}}, "calibration_method in .* must be text"),
        (SDPO, {"output_dir": [[]]}, "output_dir in"),
        (SDPO, {"model": 5}, "model in .* must be text"),
        (SDPO, {"env": {"A B": 1}}, "environment variables"),
        # numbers that no run can have
        (SDPO, {"learning_rate": float("nan")}, "learning_rate in .* must be a number"),
        (SDPO, {"learning_rate": "nan"}, "learning_rate in .* must be a number, got nan"),
        (SDPO, {"learning_rate": float("inf")}, "learning_rate"),
        (SDPO, {"max_steps": 0}, "-1 for whole epochs"),
        (SDPO, {"per_device_train_batch_size": 0}, "a whole number from 1"),
        (SDPO, {"num_generations": 0}, "modulo"),
        (SDPO, {"temperature": 0}, "above 0"),
        (SDPO, {"distillation_alpha": 2}, "from 0 to 1"),
        (SDPO, {"seed": -1}, "seed in"),
        (SDPO, {"grader": "boxd"}, "Did you mean 'boxed'"),
        (SDPO, {"reward": "mine"}, "module:function"),
        (SDPO, {"problems": " "}, "problems is empty"),
        (SDPO, {"teacher_sync_steps": 0}, "a whole number from 1"),
        (SDPO, {"teacher_update_rate": 7.0}, "from 0 to 1"),
        (SDPO, {"adam_beta1": 1.5}, "from 0 to 1"),
        (SDPO, {"lora_r": 4, "lora_alpha": -4}, "lora_alpha in .* above 0"),
        (SDPO, {"scale_rewards": "false"}, "group, batch or none"),
        (SDPO, {"report_to": None}, "Write none to report nowhere"),
        (SDPO, {"accelerator_config": "missing.json"}, "missing.json"),
        # advice
        (SDPO, {"run_name": 123}, "stands in quotes"),
        (SDPO, {"lora_r": 4, "lora_target_modules": ["q_proj", "v_proj"]}, "in one text, separated by commas"),
        (SDPO, {"reward_weights": ["1e-1"]}, "has a dot before its e"),
        (SDPO, {"calibration_kwargs": {"kappa": "1e-1"}}, "calibration_kwargs in .* holds 1e-1, which YAML reads as text"),
        (SDPO, {"lr_scheduler_kwargs": {"lrs": [1.0, "5.0e3"]}}, "lr_scheduler_kwargs in .* holds 5.0e3"),
        # sweeps
        (SWEEP, {"seeds": 10**12}, r"up to 1000, got 1000000000000. To train one seed, write \[1"),
        (SWEEP, {"seeds": [1, 1]}, "different whole numbers"),
        (SWEEP, {"seeds": None}, "seeds in .* must be a whole number or a list"),
        (SWEEP, {"workers": float("inf")}, "workers in .* must be a whole number"),
        (SWEEP, {"workers": 0}, "workers in .* must be at least 1"),
        (SWEEP, {"keep_models": []}, "keep_models in .* must be true or false"),
        (SWEEP, {"settings": [1]}, "settings in .* must be a mapping"),
        (SWEEP, {"landmarks": {"x": 1}}, "landmark 'x' must be a mapping"),
        (SWEEP, {"landmarks": [["base"]]}, "landmarks in"),
        (SWEEP, {"retention_targets": ["high"]}, "retention_targets in"),
        (SWEEP, {"evaluation/eval_steps": ["1"]}, "eval_steps in"),
        (SWEEP, {"evaluation/eval_problems": 0}, "at least 1"),
        (SWEEP, {"settings/subset_seed": "sed"}, "subset_seed of"),
        (SWEEP, {"settings/model": ["organism"]}, "model in"),
        (SWEEP, {"grid": {f"calibration_kwargs.{k}": list(range(100)) for k in "abcdef"}}, "10000 at most"),
        # reproductions
        (STUDY, {"profiles": []}, "profiles in .* must be a mapping"),
        (STUDY, {"profiles/quick": ...}, "has no profile 'quick'"),
        (STUDY, {"profiles/quick/seeds": ...}, "lacks seeds"),
        (STUDY, {"profiles/quick/steps": "2"}, "steps in .* must be a whole number, got '2'. YAML reads it as text"),
        (STUDY, {"profiles/quick/eval_steps": []}, "steps from 1"),
        (STUDY, {"n_train_problems": ...}, "lacks n_train_problems"),
        (STUDY, {"trainer/learning_rate": ...}, "lacks trainer.learning_rate"),
        (STUDY, {"trainer/learning_rat": 1.0}, "Did you mean 'learning_rate'"),
        (STUDY, {"trainer/max_steps": 3}, "set by the run itself"),
        (STUDY, {"arms/projection": {}}, "has no label"),
        (STUDY, {"arms/projection": 1}, "arms.projection in .* must be a mapping"),
        (STUDY, {"arms/projection/profiles": 1}, "profiles in arm 'projection' must be a list"),
        (STUDY, {"arms/projection/profiles": ["ful"]}, "Did you mean 'full'"),
        (STUDY, {"arms/projection/reference": "sdop"}, "Did you mean 'sdpo'"),
        (STUDY, {"arms/projection/trainer": {"calibration_strength": -1}}, "arm 'projection' cannot be made"),
        (STUDY, {"best": "projektion"}, "Did you mean 'projection'"),
        # the organism's pretraining, and launch files
        (PRETRAIN, {"n_updates": None}, "n_updates in .* must be a whole number"),
        (PRETRAIN, {"learning_rate": "2e-3"}, "has a dot before its e"),
        (PRETRAIN, {"num_heads": 3}, "Give a multiple"),
        (PRETRAIN, {"habits/jump": 1.5}, "probabilities"),
        (PRETRAIN, {"organism": "organism3"}, "Unknown organism 'organism3'"),
        (LAUNCH, {"distributed_type": ...}, "accelerate cannot read"),
        (LAUNCH, {"mixed_precision": {"a": 1}}, "must be one value"),
        (LAUNCH, {"deepspeed_config": [1]}, "zero_stage"),
    ],
)  # fmt: skip
def test_values_that_no_run_could_have(tmp_path, name, changes, message):
    refused(edited(tmp_path, name, changes), message)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (SDPO, {"scale_rewards": True}),  # bool by TRL's documentation, str by its annotation
        (SDPO, {"scale_rewards": False}),
        (SDPO, {"scale_rewards": "batch"}),
        (SWEEP, {"grid": {"calibration_strength": [1.0], "scale_rewards": [True, False]}}),
        (SDPO, {"save_strategy": "no", "save_steps": 0}),
        (SDPO, {"save_steps": 0.25}),
        (SDPO, {"logging_strategy": "epoch", "logging_steps": 0}),
        (SDPO, {"num_train_epochs": -1, "max_steps": 10}),
        (SDPO, {"learning_rate": "1e-5"}),  # what YAML makes of 1e-5
        (SDPO, {"max_grad_norm": 0, "warmup_steps": 0.1, "report_to": ["none"], "top_k": -1, "beta": 0.0}),
        (SWEEP, {"settings/model": "some/model", "settings/problems": "p.jsonl", "settings/bf16": True, "settings/tf32": True,
                 "settings/use_cpu": False, "evaluation/suites": {"far": {"problems": "p.jsonl", "role": "far"}}, "landmarks": ["base"]}),
    ],
)  # fmt: skip
def test_values_that_libraries_take(tmp_path, name, changes):
    """Also those of a machine with a GPU, and what the annotations of fields do not tell."""
    validate_file(edited(tmp_path, name, changes))


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (BOMB, "without references"),
        (BOMB + "base: organism/sdpo_projection\ngrid: {calibration_strength: [1]}\n", "without references"),
        ("a: &a [*a]\n", "without references"),
        ("a: " + "[" * 200 + "]" * 200, "more than 50 deep"),
        ("a: " + "[" * 900, "nested too deeply"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("a: 2024-13-01\n", "not valid YAML"),
        ("a: 2024-01-01\n", "reads as date"),
        ("on: 1\n", r"has the key True, which YAML reads as bool\. Write it in quotes"),
        ("a: 99999999999999999999\n", "more than 64 bits"),
        ('model: "\\0"\n', "no file name"),
        ("? [a]\n: b\n", "not valid YAML"),
    ],
    ids=["bomb", "bomb_in_a_sweep", "loop", "depth", "great_depth", "digits", "no_date", "date", "key", "bits", "zero", "unhashable"],
)  # fmt: skip
def test_yaml_that_is_no_settings(tmp_path, written, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(written, encoding="utf-8")
    refused(path, message)


def test_bytes_that_are_no_text_and_files_that_are_no_recipes(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"model: \xff")
    refused(path, "not UTF-8 text")
    path.write_bytes(b"#" * 2_000_000)
    refused(path, "not a file of data")
    path.write_bytes(b"\xef\xbb\xbfmodel: organism\n")  # what some editors write first
    assert read_recipe(path)[1] == {"model": "organism"}


def test_looking_at_a_recipe_sets_no_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("CSD_OF_A_RECIPE", raising=False)
    path = edited(tmp_path, SDPO, {"env": {"CSD_OF_A_RECIPE": 1}})
    assert validate_file(path) == "train"
    assert "CSD_OF_A_RECIPE" not in os.environ
    parse_recipe(path, [])
    assert os.environ.pop("CSD_OF_A_RECIPE") == "1"


def test_long_mistakes_make_short_messages(tmp_path):
    refused(edited(tmp_path, SDPO, {"x" * 100_000: 1}), "Unknown key")
    refused(edited(tmp_path, SDPO, {"calibration_method": "x" * 100_000}), "Unknown calibration_method")
