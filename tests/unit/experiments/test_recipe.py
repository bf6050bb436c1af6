"""Reproduce recipes: profiles, validation, hash."""

import pytest
import yaml

from calibrated_sd.cli.recipes import recipes_root
from calibrated_sd.errors import ConfigError
from calibrated_sd.experiments.recipe import PROFILES, load_plan
from calibrated_sd.experiments.reproduce import plan_jobs

RECIPE = recipes_root() / "organism" / "reproduce.yaml"


def edited(tmp_path, edit):
    raw = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    edit(raw)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


@pytest.mark.parametrize("profile", PROFILES)
def test_shipped_profiles_load_and_name_the_best_arm(profile):
    plan = load_plan(RECIPE, profile)
    assert plan.arm(plan.best).trainer["calibration_strength"] > 0
    assert len(plan.seeds) >= (3 if profile == "full" else 1)


def test_rollouts_and_learning_rate_are_matched_in_all_arms(tmp_path):
    plan = load_plan(RECIPE)
    keys = (
        "learning_rate",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "num_generations",
        "temperature",
    )
    trained = [job.recipe for job in plan_jobs(plan, tmp_path) if job.recipe["kind"] == "arm"]
    assert len(trained) == len(plan.arms) * len(plan.seeds)
    for key in (*keys,):
        assert len({str(recipe["trainer"][key]) for recipe in trained}) == 1, key
    assert len({recipe["steps"] for recipe in trained}) == 1


def test_a_hybrid_differs_from_its_twin_in_the_calibrator_alone():
    plan = load_plan(RECIPE)
    for arm in plan.arms:
        if arm.reference:
            twin = plan.arm(arm.reference)
            extra = {k: v for k, v in arm.trainer.items() if twin.trainer.get(k) != v}
            assert set(extra) == {"calibration_method", "calibration_strength"}


def test_the_hash_changes_with_the_recipe_and_the_number_of_seeds(tmp_path):
    path = edited(tmp_path, lambda raw: raw["trainer"].update(learning_rate=1e-4))
    hashes = {load_plan(RECIPE).recipe_hash, load_plan(path).recipe_hash, load_plan(RECIPE, seeds=2).recipe_hash}
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda raw: raw.update(max_new_token=3), "max_new_tokens"),
        (lambda raw: raw["arms"]["sdpo"].update(labels="x"), "label"),
        (lambda raw: raw["profiles"]["default"].update(steps=99), "eval_steps"),
        (lambda raw: raw.pop("arms"), "arms"),
    ],
)
def test_mistakes_are_named(tmp_path, edit, message):
    with pytest.raises(ConfigError, match=message):
        load_plan(edited(tmp_path, edit))


def test_unknown_profiles_and_seed_counts_are_refused():
    with pytest.raises(ConfigError, match="quick"):
        load_plan(RECIPE, "quik")
    with pytest.raises(ConfigError, match="at least 1"):
        load_plan(RECIPE, seeds=0)
