"""A recipe, an option or an archive cannot make a folder outside of the one that was given."""

import gzip
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from calibrated_sd.cli.recipes import find_recipe
from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.experiments.recipe import load_plan
from calibrated_sd.experiments.sweep_recipe import load_sweep
from calibrated_sd.records.archive import read_archive
from calibrated_sd.records.folder_names import check_folder_name

OUTSIDE = ["..", "../x", "/tmp/x", "a/b", "a\\b", ".hidden", "-rf", "", "a\nb", "a\0b", "~", "x" * 201, "ä" * 101]


@pytest.mark.parametrize("name", OUTSIDE)
def test_such_a_name_is_refused(name):
    with pytest.raises(ConfigError, match="An arm is called"):
        check_folder_name(name, "An arm")


@pytest.mark.parametrize("name", ["sdpo", "projection_strength=0.25", "c-s-think", "1e-05", "größe"])
def test_such_a_name_is_kept(name):
    assert check_folder_name(name, "An arm") == name


@given(st.text())
def test_an_accepted_name_is_one_folder_inside(tmp_path_factory, name):
    base = tmp_path_factory.getbasetemp() / "inside"
    try:
        check_folder_name(name, "An arm")
    except ConfigError:
        return
    assert (base / name).resolve().parent == base.resolve()
    assert (base / name).name == name


def test_arm_of_a_reproduction(tmp_path):
    raw = yaml.safe_load(find_recipe("organism/reproduce").read_text(encoding="utf-8"))
    raw["arms"]["../../outside"] = raw["arms"]["sdpo"]
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    with pytest.raises(ConfigError, match="outside"):
        load_plan(recipe, "full")


@pytest.mark.parametrize("landmark", ["../../outside", ".."])
def test_landmark_of_a_sweep(tmp_path, landmark):
    recipe = tmp_path / "bad.yaml"
    raw = {
        "base": "organism/sdpo_projection",
        "grid": {"calibration_strength": [0.5]},
        "landmarks": {landmark: {"learning_rate": 1.0e-4}},
    }
    recipe.write_text(yaml.safe_dump(raw), encoding="utf-8")
    with pytest.raises(ConfigError, match="folder's name"):
        load_sweep(recipe, find=find_recipe)


def test_run_of_an_archive(tmp_path):
    content = {"schema_version": 1, "questions": [], "runs": {"../../outside/seed_0": {}}}
    (tmp_path / "archive.json.gz").write_bytes(gzip.compress(json.dumps(content).encode()))
    with pytest.raises(DataError, match=r"'\.\.', which cannot be a folder's name"):
        read_archive(tmp_path)
