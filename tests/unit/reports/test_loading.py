"""Reading a reproduce folder, whole or in pieces."""

import json
import shutil

import pandas as pd
import pytest
from synthetic_folder import make_folder

from calibrated_sd.errors import DataError
from calibrated_sd.records import read_completions, read_jsonl
from calibrated_sd.records.archive import ARCHIVE, ArchivedRun, Evaluation, write_archive_file
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


def archived(path, *, wanted):
    """The runs below ``path`` as an archive keeps them; `wanted` chooses by name."""
    runs = []
    for place in [*sorted(path.glob("runs/*/seed_*")), path / "runs/ladder"]:
        name = place.relative_to(path / "runs").as_posix()
        files = sorted(place.glob("**/completions.jsonl"))
        arm, _, seed = name.partition("/seed_")
        log = read_jsonl(place / "train.jsonl") if (place / "train.jsonl").is_file() else []
        evaluations = {f.relative_to(place).as_posix(): Evaluation(read_completions(f)) for f in files}
        recipe = {"arm": arm, "seed": int(seed)} if seed else {}
        if wanted(name):
            runs.append(ArchivedRun(name, "ok", recipe, None, 60.0, evaluations, log))
    return runs


def in_order(frame):
    return frame.sort_values(list(frame.columns), ignore_index=True)


@pytest.mark.parametrize("kept", ["none", "sdpo"])
def test_an_archive_stands_for_the_run_folders_that_are_gone(complete, tmp_path, kept):
    """All folders gone, or all but one arm's: the same runs and samples as from the folders, and no gap."""
    path = tmp_path / "copy"
    shutil.copytree(complete, path)
    write_archive_file(path / ARCHIVE, archived(path, wanted=lambda name: True))
    for place in (path / "runs").iterdir():
        if place.name != kept:
            shutil.rmtree(place)
    whole, folder = load_folder(complete), load_folder(path)
    assert folder.gaps == []
    assert [(r.arm, r.seed, r.status) for r in folder.runs] == [(r.arm, r.seed, r.status) for r in whole.runs]
    pd.testing.assert_frame_equal(in_order(folder.completions), in_order(whole.completions), check_dtype=False)
    pd.testing.assert_frame_equal(in_order(folder.ladder), in_order(whole.ladder), check_dtype=False)
    assert len(folder.training) == len(whole.training)
    assert folder.inputs[ARCHIVE]


def test_what_neither_folder_nor_archive_has_is_a_gap(complete, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(complete, path)
    write_archive_file(path / ARCHIVE, archived(path, wanted=lambda name: name != "sdpo/seed_1"))
    shutil.rmtree(path / "runs")
    assert "Arm sdpo, seed 1: not run." in load_folder(path).gaps
    (path / ARCHIVE).write_bytes((path / ARCHIVE).read_bytes()[:100])
    damaged = load_folder(path)
    assert any(gap.startswith("Unreadable") and ARCHIVE in gap for gap in damaged.gaps)
    assert {run.status for run in damaged.runs} == {"not run"}
