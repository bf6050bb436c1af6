"""Every shipped recipe is valid, none is overlooked, and each says what it is for."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from calibrated_sd.calibrators import CALIBRATORS
from calibrated_sd.cli.main import app
from calibrated_sd.cli.recipes import find_recipe, recipes_below, recipes_root, shipped_recipes, validate_file
from calibrated_sd.errors import CalibratedSDError
from calibrated_sd.experiments.sweep_recipe import load_sweep

RECIPES = shipped_recipes()
KINDS = {"train": 125, "launch": 3, "sweep": 12, "pretrain": 2, "reproduce": 1}
"""How many there are of each kind. A recipe more changes this on purpose, and the number of all in the README."""


def name_of(path):
    """As `csd ls` prints it."""
    return path.relative_to(recipes_root()).as_posix()


def test_no_recipe_is_overlooked():
    assert len(RECIPES) == sum(KINDS.values()), "a recipe was added or lost: change KINDS on purpose"
    assert set(RECIPES) == set(recipes_root().rglob("*.y*ml"))


def test_the_readme_counts_them():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^(\d+) recipes, checked by", readme, re.M)[1] == str(len(RECIPES))


def test_every_recipe_is_valid():
    found = dict.fromkeys(KINDS, 0)
    for path in RECIPES:
        found[validate_file(path)] += 1
    assert found == KINDS


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_the_header_says_what_it_is_for(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    header = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    assert 2 <= len(header) <= 10
    (command,) = re.findall(
        r"command: (?:accelerate launch --config_file (\S+) -m calibrated_sd.cli.main|csd) (.+)", "\n".join(header)
    )
    launch, words = command[0], command[1].split(" · ")[0].split()
    assert words[0] in {"train", "sweep", "reproduce", "organism"}
    if words[0] == "reproduce":  # reads its own recipe unless told otherwise
        words += ["--config", "organism/reproduce"]
    named = words[words.index("--config") + 1]
    if named != "RECIPE":  # a launch file serves all of them
        assert find_recipe(named) == path
    if launch:
        assert (recipes_root() / "launch" / launch).is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: organism\ncalibration_strenght: 1.0\n", "calibration_strength"),
        ("model: organism\noutput_dir: /home/me/out\n", "absolute path"),
        ("- a\n- b\n", "mapping"),
        ("a: [1\n", "YAML"),
        ("base: organism/sdpo_projection\ngrid: {calibration_strenght: [1]}\n", "calibration_strength"),
        ("base: organism/sdpo_projektion\ngrid: {calibration_strength: [1]}\n", "sdpo_projection"),
        ("base: Qwen3-8B/grpo/lora\ngrid: {calibration_strength: [1]}\n", "trainer: grpo"),
        ("model: organism\noutput_dir: x\nbf16: false\nuse_cpu: true\ncalibration_method: projektion\n", "projection"),
        ("trainer: gpro\noutput_dir: x\n", "Did you mean 'grpo'"),
        ("compute_environment: LOCAL_MACHINE\ndistributed_type: DEEPSPEED\nnum_proceses: 8\n", "num_processes"),
        ("distributed_type: FSDP\nnum_processes: 8\n", "shards the weights"),
        ("distributed_type: DEEPSPEED\nnum_processes: 8\ndeepspeed_config: {zero_stage: 3}\n", "zero_stage: 2"),
        ("distributed_type: MULTI_GPU\nnum_processes: none\n", "Give the number of GPUs"),
    ],
)
def test_mistakes_in_a_recipe_are_named(tmp_path, text, message):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(CalibratedSDError, match=message):
        validate_file(path)


SWEEPS = [path for path in RECIPES if path.parent.name == "sweeps"]


def test_the_strength_sweep_is_five_strengths_of_two_methods_with_landmarks():
    sweep = load_sweep(recipes_root() / "sweeps" / "strength.yaml", find=find_recipe)
    assert [len(arms) for arms in sweep.series.values()] == [5, 5]
    assert {arm.name for arm in sweep.arms if arm.series is None} == {"sdpo", "policy_gradient"}
    assert [sweep.start_of(name).name for name in sweep.series] == ["sdpo", "sdpo"]


def test_the_method_sweep_leaves_no_calibrator_out():
    sweep = load_sweep(recipes_root() / "sweeps" / "method.yaml", find=find_recipe)
    arms = {arm.trainer["calibration_method"]: arm for arm in sweep.arms if arm.series is not None}
    assert set(arms) == set(CALIBRATORS)
    for name, arm in arms.items():
        assert arm.trainer["calibration_strength"] == CALIBRATORS[name].suggested
        hybrid = CALIBRATORS[name].kind == "advantage"  # shapes nothing without a policy gradient
        assert arm.trainer.get("distillation_weight") == (0.7 if hybrid else None)
        assert sweep.start_of(arm.series).name == ("hybrid" if hybrid else "sdpo")


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.name)
def test_runs_of_a_sweep_differ_in_what_is_swept_alone(path):
    sweep = load_sweep(path, find=find_recipe)
    for arm in sweep.arms:
        others = {key: value for key, value in arm.trainer.items() if key not in sweep.fields}
        landmark = {"distillation_weight"} if arm.series is None else set()
        first = {key: value for key, value in sweep.arms[-1].trainer.items() if key not in sweep.fields}
        assert {k: v for k, v in others.items() if k not in landmark} == first
        assert arm.steps == sweep.arms[0].steps


def test_a_folder_stands_for_all_recipes_below_it(tmp_path):
    assert recipes_below("Qwen3-8B/sdpo") == [recipes_root() / "Qwen3-8B/sdpo" / f"{v}.yaml" for v in ("full", "lora")]
    assert recipes_below("organism/reproduce") == [recipes_root() / "organism/reproduce.yaml"]
    with pytest.raises(CalibratedSDError, match="no recipe"):
        recipes_below(str(tmp_path))


def test_a_copy_is_complete(tmp_path):
    copy = tmp_path / "mine.yaml"
    result = CliRunner().invoke(app, ["cp", "Qwen3-8B/hybrid_mix_to_floor/full", str(copy)])
    assert result.exit_code == 0
    assert validate_file(copy) == "train"
    assert copy.read_bytes() == find_recipe("Qwen3-8B/hybrid_mix_to_floor/full").read_bytes()


def test_ls_groups_by_folder_and_finds_a_folder():
    everything = CliRunner().invoke(app, ["ls"]).output.splitlines()
    assert [line for line in everything if line.startswith("Qwen3-8B/sdpo")] == [
        *("Qwen3-8B/sdpo/", "Qwen3-8B/sdpo_ema/", "Qwen3-8B/sdpo_mix_to_floor/", "Qwen3-8B/sdpo_projection/"),
        "Qwen3-8B/sdpo_stripped/",
    ]
    one = CliRunner().invoke(app, ["ls", "Qwen3-8B/sdpo"]).output.splitlines()
    assert one[0] == "Qwen3-8B/sdpo/"
    assert [line.split()[0] for line in one[1:]] == ["Qwen3-8B/sdpo/full.yaml", "Qwen3-8B/sdpo/lora.yaml"]
    with pytest.raises(CalibratedSDError, match="Did you mean 'Qwen3-8B'"):
        CliRunner().invoke(app, ["ls", "Qwen-8B"], catch_exceptions=False)
