"""Sweeps: what a recipe expands to, and the whole way from jobs to the page with a worker that makes up its results."""

import csv
import json
import sys

import pytest
import yaml

from calibrated_sd.cli.recipes import find_recipe
from calibrated_sd.errors import ConfigError, DataError, OutputError
from calibrated_sd.experiments import launcher, runner
from calibrated_sd.experiments.sweep import run_sweep, sweep_jobs, sweep_statuses
from calibrated_sd.experiments.sweep_recipe import load_sweep
from calibrated_sd.experiments.training import training_rows
from calibrated_sd.organism.checkpoint import organism_path
from calibrated_sd.organism.suites import as_row, suite_problems
from calibrated_sd.records import read_completions, read_json, write_jsonl
from calibrated_sd.reports.sweep_report import build_sweep_report
from stand_in_worker import SWEEP_WORKER

SMALL = {
    "base": "organism/sdpo_projection",
    "settings": {"max_steps": 2, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1},
    "arms": [
        {"calibration_method": "projection", "calibration_strength": [0, 0.5, 1.0]},
        {"calibration_method": "mixture", "calibration_strength": [0, "suggested", 0.9]},
    ],
    "evaluation": {"eval_problems": 6, "eval_samples": 1},
}


def load(tmp_path, seeds=None, **changes):
    path = tmp_path / "sweep.yaml"
    path.write_text("# A small sweep\n" + yaml.safe_dump({**SMALL, **changes}, sort_keys=False), encoding="utf-8")
    return load_sweep(path, seeds=seeds, find=find_recipe)


def test_points_landmarks_and_curves(tmp_path):
    sweep = load(tmp_path)
    assert [arm.name for arm in sweep.arms] == [
        "sdpo", "policy_gradient", "projection_strength=0.5", "projection_strength=1", "mixture_strength=0.3", "mixture_strength=0.9",
    ]  # fmt: skip
    # Strength 0 of both methods is plain SDPO, so it is run once, as the landmark, and both curves begin there.
    assert [sweep.start_of(name).name for name in ("projection", "mixture")] == ["sdpo", "sdpo"]
    assert sweep.arms[4].swept == {"calibration_method": "mixture", "calibration_strength": 0.3}  # what its page says
    assert sweep.fields == ("calibration_method", "calibration_strength")
    landmarks = {arm.name: arm.trainer for arm in sweep.arms if arm.series is None}
    assert "calibration_strength" not in landmarks["sdpo"]
    assert landmarks["policy_gradient"]["distillation_weight"] == 0.0
    assert sweep.title == "A small sweep"


def test_a_grid_over_any_field(tmp_path):
    grid = {"trainer.learning_rate": ["1e-4", 5e-4], "data.n_problems": [8, 64], "calibration_kwargs.kappa": [1.0]}
    settings = {**SMALL["settings"], "calibration_method": "floor", "calibration_strength": 1.0}
    sweep = load(tmp_path, arms=None, grid=grid, settings=settings, landmarks=["base"], curve="n_problems")
    assert len(sweep.arms) == 4
    assert sweep.fields == ("learning_rate", "n_problems", "calibration_kwargs.kappa")
    assert [(a.trainer["learning_rate"], a.data["n_problems"]) for a in sweep.arms] == [
        (1e-4, 8), (1e-4, 64), (5e-4, 8), (5e-4, 64),
    ]  # fmt: skip
    assert all(a.trainer["calibration_kwargs"] == {"kappa": 1.0} for a in sweep.arms)
    assert list(sweep.series) == [
        "learning_rate = 0.0001, kwargs.kappa = 1",
        "learning_rate = 0.0005, kwargs.kappa = 1",
    ]


def test_jobs_cross_arms_and_seeds(tmp_path):
    sweep = load(tmp_path, seeds=[3, 5], settings={**SMALL["settings"], "subset_seed": "seed", "n_problems": 8})
    jobs = sweep_jobs(sweep, tmp_path)
    assert len(jobs) == 1 + 2 * len(sweep.arms)  # the base model is evaluated once
    trained = [job.recipe for job in jobs if job.recipe["kind"] == "arm"]
    assert {(r["seed"], r["subset_seed"]) for r in trained} == {(3, 3), (5, 5)}
    assert all(r["eval_steps"] == [2] and r["n_train_problems"] == 8 for r in trained)
    assert jobs[1].folder == tmp_path / "runs" / "sdpo" / "seed_3"


def test_small_coverage_is_part_of_large_coverage_and_fills_a_batch():
    def problems(n, subset_seed=0, batch=12):
        rows = training_rows({"n_train_problems": n, "subset_seed": subset_seed}, batch)
        return [row["prompt"][0]["content"] for row in rows]

    assert problems(64)[:8] == list(dict.fromkeys(problems(8)))
    assert len(problems(1)) == 12  # one problem fills a batch
    counts = [problems(8).count(p) for p in set(problems(8))]
    assert len(counts) == 8
    assert len(set(counts)) == 1  # each as often as the others
    assert problems(8, 1) != problems(8, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grids": {}}, "Did you mean 'grid'"),
        ({"arms": [{"calibration_strenght": [1]}]}, "Did you mean 'calibration_strength'"),
        ({"arms": [{"calibration_method": ["projektion"], "calibration_strength": 1.0}]}, "Did you mean 'projection'"),
        ({"arms": [{"calibration_method": "mixture", "calibration_strength": [0.5, 1.5]}]}, "mixture_strength=1.5.*between 0 and 1"),
        ({"settings": {"max_stepz": 2}}, "Did you mean 'max_steps'"),
        ({"settings": {"max_steps": -1}}, "max_steps"),
        ({"landmarks": ["sdpoo"]}, "Did you mean 'sdpo'"),
        ({"evaluation": {"eval_problem": 3}}, "Did you mean 'eval_problems'"),
        ({"evaluation": {"eval_steps": [9]}}, "eval_steps"),
        ({"curve": "learning_rate"}, "curve"),
        ({"seeds": []}, "seeds"),
        ({"arms": [{"calibration_strength": 1.0, "distillation_weight": [0.0]}]}, "distillation_weight=0"),
        ({"retention_targets": [0]}, "above 0"),
        ({"arms": [{"n_problems": [0]}]}, "whole number from 1"),
        ({"evaluation": {"suites": {"far": {"problems": "x.jsonl"}}}}, "brings its own suites"),
        ({"settings": {**SMALL["settings"], "problems": "x.jsonl"}}, "suite that is not trained on"),
        ({"evaluation": {"suites": {"far": "x.jsonl"}}}, "must name a problem file"),
    ],
)  # fmt: skip
def test_mistakes_stop_a_sweep_before_anything_runs(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, **changes)


@pytest.fixture
def small_worker(monkeypatch, tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(SWEEP_WORKER)
    for module in (runner, launcher):
        monkeypatch.setattr(module, "worker_command", lambda folder: [sys.executable, str(script), str(folder)])


def test_a_sweep_through_submitit_is_the_same_sweep(tmp_path, small_worker):
    pytest.importorskip("submitit")
    sweep = load(tmp_path, arms=[{"calibration_strength": [0.5]}], landmarks=["base"])
    here, there = tmp_path / "here", tmp_path / "there"
    assert run_sweep(sweep, here) == []
    assert run_sweep(sweep, there, launcher="slurm", slurm={"cluster": "local", "timeout_min": 5}) == []
    assert (there / "results.csv").read_bytes() == (here / "results.csv").read_bytes()


def test_a_sweep_from_jobs_to_page_with_failures_apart(tmp_path, small_worker):
    arms = [
        {"calibration_method": "projection", "calibration_strength": [0.5, 1.0]},
        {"calibration_method": "mixture", "calibration_strength": [0.9]},
    ]
    evaluation = {"eval_problems": 10, "eval_samples": 1}
    sweep, out = load(tmp_path, arms=arms, landmarks=["base", "sdpo"], evaluation=evaluation), tmp_path / "out"
    out.mkdir()
    (tmp_path / "out" / "manifest.json").write_text('{"schema_version": 1, "kind": "sweep", "provenance": {}}')
    (out / "broken").touch()
    failed = run_sweep(sweep, out, if_exists="resume")
    # Failed runs are apart, with their error, and in no result; the others are all there.
    assert [f.relative_to(out).as_posix() for f in failed] == ["failed/mixture_strength=0.9/seed_0"]
    assert "the sun went out" in (failed[0] / "error.txt").read_text()
    assert not (out / "runs" / "mixture_strength=0.9").exists()
    results = read_json(out / "results.json")
    assert [arm["name"] for arm in results["arms"]] == ["base", "sdpo", "projection_strength=0.5", "projection_strength=1"]  # fmt: skip
    assert [f["error"] for f in results["failed"]] == ["RuntimeError: the sun went out"]
    statuses = {(name, status) for name, _, _, status in sweep_statuses(sweep, out)}
    assert ("mixture_strength=0.9", "failed") in statuses
    assert ("sdpo", "ok") in statuses
    page = build_sweep_report(out).read_text(encoding="utf-8")
    assert "PARTIAL" in page
    assert "the sun went out" in page

    # Another try: finished runs are left alone, failed ones come back into their places.
    (out / "broken").unlink()
    assert run_sweep(sweep, out, if_exists="resume") == []
    assert not list((out / "failed").iterdir())
    assert (out / "runs" / "sdpo" / "seed_0" / "made.txt").read_text() == "x"
    results = read_json(out / "results.json")
    assert results["failed"] == results["unfinished"] == results["other_runs"] == []
    assert results["provenance"]["recipe_hash"] == sweep.recipe_hash

    # Retention: markers are round(10·level) in 100 tokens against the base model's 10. Levels 0.2, 0.55, 0.9 give 2, 6
    # (5.5 rounds to even), 9, so 0.8 lies 2/3 of the way from 0.6 to 0.9. Right are those of 10 with i < 8·level: 2, 5, 8.
    # So accuracy 0.5 + 2/3·0.3 = 0.7 at strength 0.5 + 2/3·0.5.
    matched = {(m["series"], m["target"]): m for m in results["matched"]}
    found = matched["projection", 0.8]
    assert found["accuracy"]["value"] == pytest.approx(0.7)
    assert found["strength"]["value"] == pytest.approx(5 / 6)
    assert found["accuracy"]["lo"] < 0.7 < found["accuracy"]["hi"]
    assert not matched["projection", 0.95]["reached"]
    assert found["retention_range"] == [0.2, 0.9]

    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["arm", "calibration_method", "calibration_strength", "seed", "suite", "step", "metric",
                             "value", "lo", "hi", "n", "unit", "method", "p_value", "p_holm"]  # fmt: skip
    point = [r for r in rows if r["arm"] == "projection_strength=0.5" and r["suite"] == "ood"]
    assert {(r["calibration_method"], r["calibration_strength"]) for r in point} == {("projection", "0.5")}
    assert {r["calibration_strength"] for r in rows if r["arm"] == "sdpo"} == {"0.0"}
    values = {r["metric"]: float(r["value"]) for r in point}
    assert values["accuracy"] == pytest.approx(0.5)
    assert values["markers_per_1k"] == pytest.approx(60)
    assert values["retention"] == pytest.approx(0.6)
    assert values["length"] == pytest.approx(100)


def test_a_sweep_may_grow_and_refuses_what_was_made_otherwise(tmp_path, small_worker):
    out = tmp_path / "out"
    arms = [{"calibration_method": "projection", "calibration_strength": [0.5]}]
    sweep = load(tmp_path, arms=arms, landmarks=["base"])
    run_sweep(sweep, out)
    with pytest.raises(OutputError, match="not empty"):
        run_sweep(sweep, out)
    arms[0]["calibration_strength"] = [1.0]
    run_sweep(load(tmp_path, arms=arms, landmarks=["base"]), out, if_exists="resume")
    results = read_json(out / "results.json")
    assert [arm["name"] for arm in results["arms"]] == ["base", "projection_strength=1"]
    assert results["other_runs"] == ["projection_strength=0.5/seed_0"]  # said, not shown
    before = (out / "manifest.json").read_bytes()
    other = load(tmp_path, arms=arms, landmarks=["base"], settings={**SMALL["settings"], "learning_rate": 1e-5})
    with pytest.raises(DataError, match="another recipe"):
        run_sweep(other, out, if_exists="resume")
    assert (out / "manifest.json").read_bytes() == before


def test_a_bad_launcher_leaves_an_old_sweep_alone(tmp_path, small_worker):
    out = tmp_path / "out"
    sweep = load(tmp_path, arms=[{"calibration_strength": [0.5]}], landmarks=["base"])
    run_sweep(sweep, out)
    for options in ({"launcher": "slrum"}, {"launcher": "slurm", "slurm": {"partitoin": "gpu"}}):
        with pytest.raises(ConfigError, match="Did you mean"):
            run_sweep(sweep, out, if_exists="overwrite", **options)
    assert json.loads((out / "results.json").read_text())["arms"]


def test_missing_problem_files_are_said_before_anything_runs(tmp_path, small_worker):
    settings = {**SMALL["settings"], "problems": str(tmp_path / "train.jsonl")}
    suites = {"far": {"problems": str(tmp_path / "far.jsonl")}}
    sweep = load(tmp_path, settings=settings, evaluation={"suites": suites})
    with pytest.raises(DataError, match=r"no problem file .*train\.jsonl"):
        run_sweep(sweep, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_finished_is_an_error(tmp_path, small_worker, monkeypatch):
    monkeypatch.setattr(runner, "worker_command", lambda folder: [sys.executable, "-c", "raise SystemExit(3)"])
    out = tmp_path / "out"
    sweep = load(tmp_path, arms=[{"calibration_strength": [0.5]}], landmarks=["base"])
    with pytest.raises(DataError, match="Not one of 2 runs"):
        run_sweep(sweep, out)
    assert "exit code 3" in (out / "failed" / "base" / "seed_0" / "error.txt").read_text()


@pytest.mark.slow
def test_another_model_on_problem_files_through_submitit_with_real_workers(tmp_path):
    pytest.importorskip("submitit")
    for name, suite, n in (("train", "train", 12), ("far", "heldout", 4)):
        rows = [as_row(problem, suite) for problem in suite_problems(suite, n)]
        lines = [{"problem_id": r["problem_id"], "prompt": r["problem"], "answer": r["answer"]} for r in rows]
        write_jsonl(tmp_path / f"{name}.jsonl", lines)
    settings = {
        **SMALL["settings"],
        "model": str(organism_path()),  # by its folder, as any other model
        "problems": str(tmp_path / "train.jsonl"),
        "n_problems": 12,
        "max_steps": 1,
    }
    evaluation = {"eval_samples": 1, "max_new_tokens": 64, "suites": {"far": {"problems": str(tmp_path / "far.jsonl")}}}
    arms = [{"calibration_method": "projection", "calibration_strength": [1.0]}]
    sweep = load(tmp_path, arms=arms, settings=settings, evaluation=evaluation, landmarks=["base"], keep_models=False)
    out = tmp_path / "out"
    assert run_sweep(sweep, out, launcher="slurm", slurm={"cluster": "local", "timeout_min": 5}) == []
    records = read_completions(
        out / "runs" / "projection_strength=1" / "seed_0" / "eval" / "step_1" / "completions.jsonl"
    )
    assert {(r["suite"], r["arm"], r["step"]) for r in records} == {("far", "projection_strength=1", 1)}
    assert len(records) == 4
    assert not list(out.glob("runs/*/*/model"))
    assert [arm["name"] for arm in read_json(out / "results.json")["arms"]] == ["base", "projection_strength=1"]
