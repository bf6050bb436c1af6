"""What happens to an output folder that is not empty: nothing by accident."""

import pytest

from calibrated_sd.errors import ConfigError, OutputError
from calibrated_sd.records import prepare_output, write_json


def ours(folder):
    write_json(folder / "manifest.json", {"schema_version": 1, "kind": "evaluate"})
    (folder / "runs").mkdir()
    (folder / "runs" / "x.txt").write_text("x")
    return folder


def test_new_and_empty_folders_are_fine_with_every_policy(tmp_path):
    for policy in ("raise", "resume", "overwrite"):
        assert prepare_output(tmp_path / "a" / policy, policy).is_dir()
        assert prepare_output(tmp_path / "a" / policy, policy).is_dir()


def test_raise(tmp_path):
    folder = ours(tmp_path / "out")
    with pytest.raises(OutputError, match="not empty"):
        prepare_output(folder)
    assert (folder / "runs" / "x.txt").read_text() == "x"


def test_resume_keeps_and_overwrite_empties_our_folder(tmp_path):
    folder = ours(tmp_path / "out")
    prepare_output(folder, "resume")
    assert (folder / "runs" / "x.txt").read_text() == "x"
    prepare_output(folder, "overwrite")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("policy", ["resume", "overwrite"])
@pytest.mark.parametrize("manifest", [None, "{", "[]", '{"name": "my web app"}', '{"schema_version": 1}'])
def test_folders_of_others_are_left_alone(tmp_path, policy, manifest):
    (tmp_path / "thesis.tex").write_text("years of work")
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(OutputError, match="not empty and has no manifest"):
        prepare_output(tmp_path, policy)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_repository_is_never_emptied(tmp_path):
    folder = ours(tmp_path / "out")
    (folder / ".git").mkdir()
    with pytest.raises(OutputError):
        prepare_output(folder, "overwrite")


def test_overwrite_removes_a_link_and_not_what_it_points_to(tmp_path):
    folder = ours(tmp_path / "out")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "d.txt").write_text("d")
    (folder / "link").symlink_to(tmp_path / "data")
    prepare_output(folder, "overwrite")
    assert list(folder.iterdir()) == []
    assert (tmp_path / "data" / "d.txt").read_text() == "d"


@pytest.mark.parametrize("policy", ["resume", "overwrite"])
def test_a_folder_of_another_kind_is_left_alone(tmp_path, policy):
    folder = ours(tmp_path / "out")
    with pytest.raises(OutputError, match=r"'evaluate' wrote, and this one writes 'train'.*Nothing was changed"):
        prepare_output(folder, policy, kind="train")
    assert (folder / "runs" / "x.txt").read_text() == "x"
    prepare_output(folder, policy, kind="evaluate")


@pytest.mark.parametrize("given", [".", "runs", "runs/x.txt", "link", "runs/../runs"])
def test_a_folder_is_not_emptied_of_an_input(tmp_path, given):
    folder = ours(tmp_path / "out")
    (tmp_path / "data").mkdir()
    (folder / "link").symlink_to(tmp_path / "data")
    with pytest.raises(OutputError, match="lies in the output folder"):
        prepare_output(folder, "overwrite", inputs=[None, "Qwen/Qwen3-8B", folder / given])
    assert (folder / "runs" / "x.txt").read_text() == "x"
    prepare_output(folder, "resume", inputs=[folder / given])
    prepare_output(folder, "overwrite", inputs=[None, tmp_path, tmp_path / "data", "Qwen/Qwen3-8B"])


def test_a_link_to_the_output_does_not_hide_an_input(tmp_path):
    folder = ours(tmp_path / "out")
    (tmp_path / "alias").symlink_to(folder)
    with pytest.raises(OutputError, match="lies in the output folder"):
        prepare_output(folder, "overwrite", inputs=[tmp_path / "alias"])
    with pytest.raises(OutputError, match="lies in the output folder"):
        prepare_output(tmp_path / "alias", "overwrite", inputs=[folder / "runs"])


def test_a_file_and_a_misspelt_policy(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        prepare_output(tmp_path / "f")
    with pytest.raises(ConfigError, match="Did you mean 'resume'"):
        prepare_output(tmp_path, "resum")
