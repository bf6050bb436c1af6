"""A run is continued as it was started, and its manifest keeps what began it."""

import json

import pytest

from calibrated_sd.errors import OutputError
from calibrated_sd.experiments.train_manifest import check_same_run, stated_settings, write_manifest
from calibrated_sd.experiments.train_recipe import parse_recipe

RECIPE = """\
trainer: sft
model: organism
problems: data.jsonl
output_dir: out
learning_rate: 1.0e-4
per_device_train_batch_size: 2
use_cpu: true
bf16: false
"""


@pytest.fixture
def start(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE, encoding="utf-8")

    def read(*overrides):
        run, settings = parse_recipe(path, overrides)
        return stated_settings(path, overrides, run, settings), run, settings

    stated, _, _ = read("--seed", "3")
    write_manifest(tmp_path, stated, {"commit": "first"}, resumed=False)
    return tmp_path, read


def test_the_manifest_holds_what_was_said_with_its_values(start):
    folder, _ = start
    settings = json.loads((folder / "manifest.json").read_text())["settings"]
    assert settings["learning_rate"] == 1e-4
    assert settings["seed"] == 3
    assert settings["trainer"] == "sft"
    assert "weight_decay" not in settings  # nobody said it


@pytest.mark.parametrize(
    "overrides",
    [
        ("--seed", "3"),
        ("--seed=3",),
        ("--seed", "3", "--max_steps", "9", "--logging_steps", "5"),
        ("--seed", "3", "--weight_decay", "0"),
    ],
)
def test_the_same_run_goes_on(start, overrides):
    folder, read = start
    check_same_run(folder, *read(*overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), r"seed: 3 → 42"),
        (("--seed", "3", "--learning_rate", "1e-5"), r"learning_rate: 0\.0001 → 1e-05"),
        (("--seed", "3", "--weight_decay", "0.1"), r"weight_decay: 0\.0 → 0\.1"),
    ],
)
def test_another_run_is_refused_with_what_differs(start, overrides, message):
    folder, read = start
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(OutputError, match=message):
        check_same_run(folder, *read(*overrides))
    assert (folder / "manifest.json").read_bytes() == before


def test_going_on_keeps_the_first_provenance(start):
    folder, _ = start
    for commit in ("second", "third"):
        write_manifest(folder, {}, {"commit": commit}, resumed=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["provenance"] == {"commit": "first"}
    assert [one["commit"] for one in manifest["resumed_by"]] == ["second", "third"]
    assert manifest["settings"]["seed"] == 3


def test_a_folder_of_an_older_release_is_not_compared(start, tmp_path_factory):
    _, read = start
    old = tmp_path_factory.mktemp("old")
    (old / "manifest.json").write_text('{"schema_version": 1, "kind": "train", "provenance": {}}')
    check_same_run(old, *read())
    check_same_run(tmp_path_factory.mktemp("empty"), *read())
