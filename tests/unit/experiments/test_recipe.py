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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 30, "eval_steps": [10, 20]}, "arm 'sdpo_slow' end at 20"),
        ({"subset_seed": "sed"}, "draw other problems"),
        ({"kind": "stf"}, "sft"),
        ({"kind": "sft", "data": "D_gs"}, "D_sg"),
        ({"coverage_of": "sdpo_"}, "sdpo"),
        ({"n_train_problems": 0}, "at least 1"),
    ],
)
def test_mistakes_in_an_arm_of_its_own_are_named(tmp_path, fields, message):
    path = edited(tmp_path, lambda raw: raw["arms"]["sdpo_slow"].update(fields))
    with pytest.raises(ConfigError, match=message):
        load_plan(path, "full")


def test_an_arms_own_settings_reach_its_jobs_and_no_other(tmp_path):
    jobs = plan_jobs(load_plan(RECIPE, "full", [100, 101]), tmp_path)
    by_name = {str(job.folder.relative_to(tmp_path / "runs")): job.recipe for job in jobs}
    main, slow, narrow = (by_name[f"{arm}/seed_101"] for arm in ("sdpo", "sdpo_slow", "sdpo_n8"))
    assert (main["steps"], main["eval_steps"], main["n_train_problems"]) == (16, [3, 6, 10, 16], 64)
    assert "subset_seed" not in main
    assert (slow["steps"], slow["eval_steps"], slow["mid_problems"]) == (30, [10, 20, 30], 91)
    assert (narrow["n_train_problems"], narrow["subset_seed"], narrow["eval_steps"]) == (8, 101, [16])
    assert narrow["trainer"] == main["trainer"]
    assert by_name["sft_d_sg/seed_100"]["data"] == "D_sg"
    assert "distillation_mode" not in by_name["sft_d_sg/seed_100"]["trainer"]


@pytest.mark.parametrize("profile", ["quick", "default"])
def test_short_profiles_have_no_arm_of_its_own_kind(tmp_path, profile):
    plan = load_plan(RECIPE, profile)
    assert len(plan.arms) == 7
    trained = [job.recipe for job in plan_jobs(plan, tmp_path) if job.recipe["arm"] != "base"]
    assert {(r["kind"], r["n_train_problems"], r["steps"]) for r in trained} == {("arm", 64, plan.steps)}


def test_every_arm_of_every_profile_is_accepted_by_its_trainer(tmp_path):
    from calibrated_sd.experiments.training import trainer_settings
    from calibrated_sd.trainers.sft.config import CalibratedSFTConfig

    for job in plan_jobs(load_plan(RECIPE, "full", [0]), tmp_path):
        recipe = job.recipe
        if recipe["kind"] == "sft":
            CalibratedSFTConfig(output_dir=str(tmp_path), bf16=False, use_cpu=True, **recipe["trainer"])
        elif recipe["kind"] == "arm":
            trainer_settings(str(tmp_path), recipe["trainer"], steps=recipe["steps"], seed=0, save_steps=3)


def test_seeds_can_be_listed():
    assert load_plan(RECIPE, seeds=[100, 102]).seeds == (100, 102)
    assert load_plan(RECIPE, seeds=2).recipe_hash == load_plan(RECIPE, seeds=[0, 1]).recipe_hash


def test_the_hash_of_a_profile_does_not_know_other_profiles_arms(tmp_path):
    path = edited(tmp_path, lambda raw: raw["arms"]["sdpo_slow"].update(label="x"))
    assert load_plan(path).recipe_hash == load_plan(RECIPE).recipe_hash
    assert load_plan(path, "full").recipe_hash != load_plan(RECIPE, "full").recipe_hash


def test_unknown_profiles_and_seed_counts_are_refused():
    with pytest.raises(ConfigError, match="quick"):
        load_plan(RECIPE, "quik")
    with pytest.raises(ConfigError, match="at least 1"):
        load_plan(RECIPE, seeds=0)
