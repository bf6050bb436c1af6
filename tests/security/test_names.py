"""A recipe, an option, an archive or a listing cannot make a folder outside of the one that was given."""

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
from calibrated_sd.reports.published import build_published, load_listing

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


def listing_of(folder, **keys):
    (folder / "study").mkdir(parents=True)
    (folder / "index.md").write_text("# A page\n", encoding="utf-8")
    (folder / "published.yaml").write_text(yaml.safe_dump({"pages": ["index.md"], **keys}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("file", ["../x.png", "../../../x.png", "{outside}/x.png", "link/x.png", "figures/../../x.png"])
def test_figure_of_a_listing(tmp_path, file):
    outside = tmp_path / "outside"
    outside.mkdir()
    figure = {"kind": "forest", "from": "study", "file": file.format(outside=outside)}
    root = listing_of(tmp_path / "results", figures={"a": figure})
    (root / "link").symlink_to(outside)
    with pytest.raises(ConfigError, match="must lie inside"):
        load_listing(root)
    assert not list(tmp_path.rglob("x.png"))


def test_figure_of_a_listing_with_a_zero_byte(tmp_path):
    figure = {"kind": "forest", "from": "study", "file": "a\0.png"}
    with pytest.raises(ConfigError, match="no path that can be followed"):
        load_listing(listing_of(tmp_path, figures={"a": figure}))


@pytest.mark.parametrize("page", ["../secrets.txt", "link.md"])
def test_page_of_a_listing_is_markdown(tmp_path, page):
    (tmp_path / "secrets.txt").write_text("<!-- table: a -->\n<!-- /table -->\n", encoding="utf-8")
    root = listing_of(tmp_path / "results", pages=["index.md", page])
    (root / "link.md").symlink_to(tmp_path / "secrets.txt")
    with pytest.raises(ConfigError, match="no Markdown file"):
        load_listing(root)


def test_page_outside_of_a_listing_must_hold_the_markers(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("# Someone else's\n", encoding="utf-8")
    root = listing_of(tmp_path / "results", pages=["index.md", "../README.md"])
    with pytest.raises(ConfigError, match="lies outside of the folder"):
        build_published(root)
    page.write_text("<!-- headline -->\n<!-- /headline -->\n", encoding="utf-8")
    assert build_published(root) == []
