"""Runs with hand-made logs and verdicts, as objects and as an output folder."""

from __future__ import annotations

from calibrated_sd.experiments.early_warning import Case
from calibrated_sd.experiments.watched_runs import WatchedRun, outcome
from calibrated_sd.records import write_json, write_jsonl

FLAT = [10.0, 12.0, 8.0, 10.0, 10.0, 10.0, 10.0, 10.0]
FALL = [10.0, 12.0, 8.0, 10.0, 4.0, 2.0, 1.0, 1.0]
# Baseline 10. Smoothed shares from step 4: 1.0, 0.7, 0.45, 0.275, 0.1875: below 0.5 for the second time at step 7.
EARLY_FALL = [10.0, 12.0, 8.0, 4.0, 2.0, 1.0, 1.0, 1.0]
# Smoothed shares from step 4: 0.7, 0.45, 0.275, …: the alarm comes at step 6.
N = 10
BASE = {("far", f"q{i}"): [1.0] for i in range(N)}
"""The base model solves ten questions."""


def answers(n_right, n=N):
    """Verdicts on the first `n` questions, of which the first `n_right` are solved."""
    return {("far", f"q{i}"): [float(i < n_right)] for i in range(n)}


def log(**signals):
    """Lines from lists of values; `density` and `length` are short for the names under which they are logged."""
    keys = {"density": "epistemic/per_1k", "length": "completions/mean_length", "retention": "calibration/retention"}
    n = len(next(iter(signals.values())))
    return [
        {"step": t + 1, "loss": 0.1, **{keys.get(name, name): values[t] for name, values in signals.items()}}
        for t in range(n)
    ]


def run(arm, seed, logs, rights, kind="arm", folder="study"):
    """A run; `rights` maps each evaluated step to the number of solved questions."""
    return WatchedRun(folder, arm, seed, kind, logs, {step: answers(right) for step, right in rights.items()})


def case(arm, seed, logs, rights, **changes):
    one = run(arm, seed, logs, rights, **changes)
    return Case(one, outcome(one, BASE, n_resamples=200))


COLLAPSE = {4: 10, 8: 2}
"""Good at step 4, collapsed at step 8."""
NO_COLLAPSE = {4: 10, 8: 10}


def five_cases():
    """Two collapses with an alarm (one arm), one without, one false alarm, one run that is fine."""
    return [
        case("a", 0, log(density=FALL), COLLAPSE),
        case("a", 1, log(density=EARLY_FALL), COLLAPSE),
        case("b", 0, log(density=FLAT), COLLAPSE),
        case("c", 2, log(density=FALL), NO_COLLAPSE),
        case("d", 2, log(density=FLAT), NO_COLLAPSE),
    ]


def write_study(directory, cases):
    """The folder that a sweep with these runs leaves."""
    suites = [{"name": "train", "label": "", "role": "train"}, {"name": "far", "label": "", "role": "far"}]
    write_json(directory / "manifest.json", {"schema_version": 1, "kind": "sweep", "suites": suites})
    base = WatchedRun("", "base", 0, "base", [], {0: BASE})
    for one in [base, *(case.run for case in cases)]:
        folder = directory / "runs" / one.arm / f"seed_{one.seed}"
        recipe = {"kind": one.kind, "arm": one.arm, "seed": one.seed}
        state = {"schema_version": 1, "status": "ok", "recipe": recipe, "code": ["c0ffee", False], "wall_time_s": 1.0}
        write_json(folder / "run.json", state)
        if one.logs:
            summary = {"step": len(one.logs), "train_loss": 0.1, "epistemic/per_1k": 0.0}  # no training step
            write_jsonl(folder / "train.jsonl", [*one.logs, summary])
        for step, verdicts in one.graded.items():
            solved = [_record(one, step, *question, right) for question, (right,) in verdicts.items()]
            trained = [_record(one, step, "train", "t", 1.0)]
            write_jsonl(folder / "eval" / f"step_{step}" / "completions.jsonl", [*trained, *solved])


def _record(one, step, suite, problem, right):
    return {
        "schema_version": 1,
        "suite": suite,
        "problem_id": problem,
        "sample": 0,
        "prompt_sha256": "",
        "completion": "maybe",
        "finish_reason": "stop",
        "n_tokens": 3,
        "correct": bool(right),
        "markers": {"legacy": 1, "lexical": 1, "held_out": 0},
        "context": "none",
        "arm": one.arm,
        "seed": one.seed,
        "step": step,
    }
