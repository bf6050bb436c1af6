"""Reading a reproduce folder, whole or in pieces."""

import json

import pytest
from synthetic_folder import make_folder

from calibrated_sd.errors import DataError
from calibrated_sd.reports.loading import load_folder


def test_a_complete_folder_has_everything_and_no_gaps(complete):
    folder = load_folder(complete)
    assert folder.gaps == []
    assert [arm.name for arm in folder.arms] == ["base", "policy_gradient", "sdpo", "projection"]
    assert folder.ood_suites == ["heldout", "far_linear", "far_sumproduct"]
    assert folder.last_step == 12
    # Samples per evaluation: 4 suites × 8 problems × 2. Base has one, each of 3 arms × 2 seeds has three.
    assert len(folder.completions) == 64 * (1 + 3 * 2 * 3)
    # Ladder: 4 contexts × 2 families × 8 problems × 2 samples.
    assert len(folder.ladder) == 128
    # 12 optimizer steps of 3 arms × 2 seeds.
    assert len(folder.training) == 72


def test_the_fingerprint_changes_with_any_input_and_ignores_outputs(tmp_path):
    path = make_folder(tmp_path / "run", arms=["sdpo"], seeds=[0], n=2, samples=1)
    before = load_folder(path).fingerprint
    (path / "report.html").write_text("anything")
    (path / "runs/sdpo/seed_0/worker.log").write_text("noise")
    assert load_folder(path).fingerprint == before
    log, manifest = path / "runs/sdpo/seed_0/train.jsonl", path / "manifest.json"
    log.write_text(log.read_text().replace('"loss": 0.5', '"loss": 0.6', 1))
    changed = load_folder(path).fingerprint
    manifest.write_text(manifest.read_text().replace("2 CPU cores", "3 CPU cores"))
    assert len({before, changed, load_folder(path).fingerprint}) == 3


def test_unfinished_runs_and_missing_files_become_gaps(broken):
    gaps = "\n".join(load_folder(broken).gaps)
    assert "Arm sdpo, seed 0: failed: loss is not finite at step 6." in gaps
    assert "Arm projection, seed 0: not run." in gaps
    assert "claims.json" in gaps
    assert "summary.csv" in gaps


def test_a_truncated_file_is_a_gap_with_its_line_and_hides_nothing_else(tmp_path):
    path = make_folder(tmp_path / "run", arms=["sdpo"], seeds=[0], n=2, samples=1)
    file = path / "runs/sdpo/seed_0/eval/step_12/completions.jsonl"
    whole = file.read_text()
    file.write_text(whole[:-20])
    folder = load_folder(path)
    # 4 suites × 2 problems × 1 sample = 8 lines, the last of which is cut.
    assert any("line 8" in gap and "step_12" in gap for gap in folder.gaps)
    assert "Arm sdpo, seed 0: evaluated up to step 8 of 12." in folder.gaps
    assert set(folder.completions["step"]) == {0, 4, 8}


def test_an_arm_with_steps_of_its_own_is_finished_after_those(tmp_path):
    path = make_folder(tmp_path / "run", arms=["sdpo", "projection"], seeds=[0], n=2, samples=1)
    manifest = json.loads((path / "manifest.json").read_text())
    for arm, steps in (("sdpo", 8), ("projection", 20)):
        next(one for one in manifest["arms"] if one["name"] == arm)["steps"] = steps
    (path / "manifest.json").write_text(json.dumps(manifest))
    folder = load_folder(path)  # both were evaluated up to step 12
    assert [gap for gap in folder.gaps if gap.startswith("Arm")] == [
        "Arm projection, seed 0: evaluated up to step 12 of 20."
    ]
    assert [folder.last_step_of(arm) for arm in ("sdpo", "projection", "base")] == [8, 20, 12]


def test_arms_and_suites_that_the_manifest_forgot_are_shown_too(tmp_path):
    path = make_folder(tmp_path / "run", arms=["sdpo"], seeds=[0], n=2, samples=1)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["arms"] = []
    del manifest["suites"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    folder = load_folder(path)
    assert [arm.name for arm in folder.arms] == ["base", "sdpo"]
    assert {suite.name: suite.role for suite in folder.suites} == {
        "train": "train",
        "heldout": "heldout",
        "far_linear": "far",
        "far_sumproduct": "far",
    }


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (None, "no manifest.json"),
        ('{"kind": "evaluate"}', "kind 'evaluate'"),
        ("[1]", "kind 'list'"),
        ("{", "not valid JSON"),
    ],
)
def test_other_folders_are_refused_in_one_paragraph(tmp_path, manifest, words):
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(DataError, match=words) as error:
        load_folder(tmp_path)
    assert "\n" not in str(error.value)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="There is no folder"):
        load_folder(tmp_path / "nothing")
