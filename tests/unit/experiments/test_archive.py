"""A study goes on, and its results follow, from the archive alone. Its runs are made up in this process."""

import json
import random
import shutil
from functools import partial

import pytest
import yaml

from calibrated_sd.errors import DataError
from calibrated_sd.experiments import reproduce as reproduce_module
from calibrated_sd.experiments import runner, sweep_results
from calibrated_sd.experiments.archive import ARCHIVE, stored_runs, words_of, write_archive
from calibrated_sd.experiments.collect import RunData, summarise_run
from calibrated_sd.experiments.recompute import recompute, sweep_of
from calibrated_sd.experiments.reproduce import reproduce
from calibrated_sd.experiments.sweep import run_sweep, sweep_statuses
from calibrated_sd.experiments.sweep_plan import Evaluation, Sweep, SweepArm
from calibrated_sd.organism.suites import SUITES, suite_problems
from calibrated_sd.records import CompletionRecord, read_json, read_jsonl, write_json, write_jsonl

WORDS = ("wait", "hmm", "maybe", "the", "x", "check", "perhaps")
started = []


class Ended:
    """A process that has done its work before anybody looks."""

    returncode = 0

    def poll(self):
        return 0


def completions(recipe, step, suites, context="none", samples=2):
    chance = random.Random(f"{recipe['arm']} {recipe.get('seed')} {step} {context}")
    level = 0.8 if recipe["arm"] == "base" else 0.4
    for suite, problems in suites.items():
        for problem in problems:
            for sample in range(samples):
                text = " ".join(chance.choice(WORDS) for _ in range(chance.randint(3, 9))) + " = 12"
                yield CompletionRecord(
                    suite=suite, problem_id=problem, sample=sample, prompt_sha256="0" * 64, completion=text,
                    finish_reason=chance.choice(["stop", "length"]), n_tokens=chance.randint(20, 90),
                    correct=chance.random() < level,
                    markers={name: chance.randint(0, 9) for name in ("legacy", "lexical", "held_out")},
                    context=context, arm=recipe["arm"], seed=recipe.get("seed", 0), step=step,
                )  # fmt: skip


def make_up(job):
    """What a worker would write, made up from the recipe."""
    runner.prepare_job(job)
    recipe, folder = job.recipe, job.folder
    started.append(job.label)
    suites = {suite: [p.problem_id for p in suite_problems(suite, 6)] for suite in SUITES}
    if recipe["kind"] == "ladder":
        levels = ("none", "stripped", "solution")
        rows = [
            row for level in levels for row in completions(recipe, 0, {"family": suites["heldout"]}, level, samples=1)
        ]
        write_jsonl(folder / "completions.jsonl", [*completions(recipe, 0, {"screen": suites["heldout"]}), *rows])
    elif recipe["kind"] == "base":
        write_jsonl(folder / "eval" / "step_0" / "completions.jsonl", completions(recipe, 0, suites))
        write_jsonl(folder / "traces.jsonl", [{"a": 1}])
    else:
        for step in recipe["eval_steps"]:
            write_jsonl(folder / "eval" / f"step_{step}" / "completions.jsonl", completions(recipe, step, suites))
        lines = [
            {"step": 1, "loss": 0.123456789, "grad_norm": 1.0, "epistemic/per_1k": 90.0, "reward": 0.5},
            {"step": 2, "loss": 0.2, "completions/mean_length": 76.640625},
            {"step": 2, "train_runtime": 3.0},
        ]
        write_jsonl(folder / "train.jsonl", lines)
    broken = (folder.parents[2] / "broken").exists() and recipe["arm"] == "sdpo"
    runner.set_status(folder, "failed" if broken else "ok", error="the sun went out" if broken else None, wall_time_s=3)
    return Ended()


@pytest.fixture(autouse=True)
def work_in_this_process(monkeypatch):
    started.clear()
    monkeypatch.setattr(runner, "_start", make_up)
    for module in (reproduce_module, sweep_results):  # the width of an interval is no matter here
        monkeypatch.setattr(module, "summarise_run", partial(summarise_run, n_resamples=20))


def arm(name, series=None, point=None, **trainer):
    swept = {"calibration_strength": point} if series else {}
    trainer = {"learning_rate": 5e-4, **trainer, **swept}
    return SweepArm(name, name, series, point, swept, trainer, {"n_problems": 8, "subset_seed": "seed"}, 2)


ARMS = (arm("sdpo"), arm("projection=1", "projection", 1.0, calibration_method="projection"))


def sweep(*arms, seeds=(3, 4), eval_steps=()):
    return Sweep(
        title="Small", arms=arms or ARMS, seeds=seeds, evaluation=Evaluation(eval_steps=eval_steps),
        curve="calibration_strength", fields=("calibration_strength",), defaults={"calibration_strength": 0.0},
        shared={"model": "organism", "problems": "organism", "grader": "boxed", "lora_r": 0}, targets=(0.5,),
    )  # fmt: skip


def published(directory, *names):
    """The folder as it is published: without runs, failures and what `recompute` writes, which is returned."""
    shutil.rmtree(directory / "runs")
    shutil.rmtree(directory / "failed", ignore_errors=True)
    return {name: (directory / name).read_bytes() for name in names}


def test_a_sweeps_results_follow_from_its_archive(tmp_path):
    run_sweep(sweep(eval_steps=(1,)), tmp_path / "out")
    before = published(tmp_path / "out", "results.json", "results.csv", ARCHIVE)
    recompute(tmp_path / "out")
    write_archive(tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in before} == before
    (tmp_path / "out" / "results.csv").unlink()
    (tmp_path / "out" / "results.json").unlink()
    recompute(tmp_path / "out")
    assert (tmp_path / "out" / "results.csv").read_bytes() == before["results.csv"]
    results = read_json(tmp_path / "out" / "results.json")
    assert {**json.loads(before["results.json"]), "provenance": 0} == {**results, "provenance": 0}


def test_a_changed_archive_changes_the_results(tmp_path):
    out = tmp_path / "out"
    run_sweep(sweep(seeds=(3,)), out)
    before = (out / "results.json").read_bytes()
    file = out / "runs" / "sdpo" / "seed_3" / "eval" / "step_2" / "completions.jsonl"
    write_jsonl(file, [{**row, "correct": True} for row in read_jsonl(file)])
    write_archive(out)
    published(out)
    recompute(out)
    assert (out / "results.json").read_bytes() != before


def test_failures_are_still_told_when_their_folders_are_gone(tmp_path):
    out = tmp_path / "out"
    write_json(out / "manifest.json", {"schema_version": 1, "kind": "sweep", "provenance": {}})
    (out / "broken").touch()
    assert len(run_sweep(sweep(seeds=(3,)), out, if_exists="resume")) == 1
    before = published(out, "results.json")
    assert [run["error"] for run in json.loads(before["results.json"])["failed"]] == ["the sun went out"]
    recompute(out)
    assert (out / "results.json").read_bytes() == before["results.json"]
    (out / "broken").unlink()
    started.clear()
    assert run_sweep(sweep(seeds=(3,)), out, if_exists="resume") == []  # it alone is tried again
    assert started == ["sdpo/seed_3"]
    assert read_json(out / "results.json")["failed"] == []


def test_a_sweep_goes_on_from_its_published_folder(tmp_path):
    """In two parts, the runs of the first being gone, it gives what it gives in one."""
    parts, straight = tmp_path / "parts", tmp_path / "straight"
    run_sweep(sweep(seeds=(3,)), parts)
    published(parts)
    started.clear()
    longer = (*ARMS, arm("projection=2", "projection", 2.0, calibration_method="projection"))
    run_sweep(sweep(*longer), parts, if_exists="resume")
    assert sorted(started) == ["projection=1/seed_4", "projection=2/seed_3", "projection=2/seed_4", "sdpo/seed_4"]
    assert {status for *_, status in sweep_statuses(sweep(*longer), parts)} == {"ok"}
    run_sweep(sweep(*longer), straight)
    for name in ("results.csv", ARCHIVE):
        assert (parts / name).read_bytes() == (straight / name).read_bytes()
    published(parts)
    run_sweep(sweep(ARMS[0]), parts, if_exists="resume")  # a smaller sweep says what it leaves out
    others = [f"projection={i}/seed_{seed}" for i in (1, 2) for seed in (3, 4)]
    assert read_json(parts / "results.json")["other_runs"] == others


def test_an_archived_run_of_another_recipe_is_refused(tmp_path):
    run_sweep(sweep(seeds=(3,)), tmp_path)
    before = published(tmp_path, "manifest.json", ARCHIVE)
    with pytest.raises(DataError, match=r"another recipe \(it is in archive\.json\.gz\)"):
        run_sweep(sweep(ARMS[1], arm("sdpo", learning_rate=1e-5), seeds=(3,)), tmp_path, if_exists="resume")
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_an_interrupted_sweep_archives_what_has_finished(tmp_path, monkeypatch):
    def interrupt(job):
        if len(started) == 2:
            raise KeyboardInterrupt
        return make_up(job)

    monkeypatch.setattr(runner, "_start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep(), tmp_path / "out")
    finished = [name for name, run in stored_runs(tmp_path / "out").items() if run.status == "ok"]
    shutil.rmtree(tmp_path / "out" / "runs")
    assert list(stored_runs(tmp_path / "out")) == finished
    assert len(finished) == 2


def test_the_plan_survives_its_manifest():
    from calibrated_sd.experiments.sweep import manifest

    assert sweep_of(json.loads(json.dumps(manifest(sweep(), "csd sweep", None)))) == sweep()
    with pytest.raises(DataError, match="does not describe a sweep"):
        sweep_of({"plan": {"arms": [], "evaluation": {"eval_steps": []}, "colour": "red"}})


RECIPE = {
    "model": "organism", "steps": 2, "eval_steps": [1, 2], "seeds": [0, 1], "n_train_problems": 8, "eval_problems": 6,
    "eval_samples": 2, "mid_problems": 6, "mid_samples": 2, "ladder_problems": 6, "ladder_screen": 2, "ladder_samples": 1,
    "trace_rollouts": 1, "best": "projection", "profiles": {"default": {}, "quick": {}, "full": {}},
    "trainer": {"learning_rate": 5e-4, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1},
    "arms": {
        "sdpo": {"label": "SDPO"},
        "policy_gradient": {"label": "PG", "trainer": {"distillation_weight": 0.0}},
        "projection": {"label": "P", "trainer": {"calibration_method": "projection", "calibration_strength": 1.0}},
    },
}  # fmt: skip
"""Every claim that its arms allow is computed, the words' (C12) included."""


def test_a_reproductions_claims_follow_from_its_archive(tmp_path):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(yaml.safe_dump(RECIPE))
    claims = reproduce(recipe, out)
    run = {claim["id"] for claim in claims if claim["verdict"] != "not run"}
    assert {"C1", "C2", "C5", "C6", "C12", "C13", "R1"} <= run
    before = published(out, "claims.json", "summary.csv", "examples.jsonl", "traces.jsonl", ARCHIVE)
    recompute(out)
    assert {name: (out / name).read_bytes() for name in before} == before
    # And the command finds nothing to do, and writes the same: texts that are gone are kept from the old files.
    started.clear()
    assert reproduce(recipe, out, if_exists="resume") == claims
    assert started == []
    assert read_jsonl(out / "examples.jsonl")[0]["completion"].endswith(" = 12")
    before.pop("claims.json")  # its provenance has a new wall time
    assert {name: (out / name).read_bytes() for name in before} == before


def test_only_folders_of_studies_are_computed_again(tmp_path):
    write_json(tmp_path / "manifest.json", {"schema_version": 1, "kind": "evaluate"})
    with pytest.raises(DataError, match="kind 'evaluate'"):
        recompute(tmp_path)


def test_what_is_kept_of_a_runs_log(tmp_path):
    run_sweep(sweep(seeds=(3,)), tmp_path)
    lines = stored_runs(tmp_path)["sdpo/seed_3"].log()
    assert [line["step"] for line in lines] == [1, 2]  # the summary at the end is no step
    published(tmp_path)
    assert stored_runs(tmp_path)["sdpo/seed_3"].log() == [
        {"epistemic/per_1k": 90.0, "loss": 0.123457, "reward": 0.5, "step": 1},
        {"completions/mean_length": 76.6406, "loss": 0.2, "step": 2},
    ]


def test_word_rates_from_texts_and_from_counts_by_hand():
    def row(seed, text, suite="far"):
        return {"arm": "sdpo", "seed": seed, "step": 5, "suite": suite, "completion": text}

    assert words_of("Wait, x2 = 12: WAIT") == ["wait", "x", "wait"]
    records = [row(0, "wait wait no"), row(0, "no", "train"), row(1, ""), row(1, "")]  # seed 1 is archived
    words = {("sdpo", 1, 5): {"far": {"wait": 1, "hm": 3}, "train": {"hm": 9}}, ("sdpo", 1, 2): {"far": {"hm": 9}}}
    data = RunData(None, ("far",), records, [], words=words)
    assert data.word_rates("sdpo") == {"wait": 3 / 3, "no": 1 / 3, "hm": 3 / 3}  # three responses out of distribution
