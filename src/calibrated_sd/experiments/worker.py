"""One job of a reproduction or a sweep, in its own process: `python -m calibrated_sd.experiments.worker FOLDER`.

Kinds of job (`recipe["kind"]` in `run.json`): ``base`` evaluates the untrained weights and writes example and trace
files, ``ladder`` samples the context ladder, ``arm`` trains and evaluates one arm, ``sft`` does so off-policy. An arm
that was interrupted continues from its last checkpoint and gives what the straight run would have given.
"""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from calibrated_sd.experiments.runner import FAILED, OK, RUNNING, set_status
from calibrated_sd.experiments.training import evaluate_on_files, is_organism, load_weights, make_trainer, organism_name
from calibrated_sd.organism.ladder import measure_ladder, sample_records
from calibrated_sd.organism.suites import suite_problems, suites_of
from calibrated_sd.records import read_object, write_jsonl
from calibrated_sd.records.folder_lock import lock_folder
from calibrated_sd.trainers.dials import DIALS_FILE
from calibrated_sd.trainers.finished import last_finished_checkpoint, save_whole_model


def evaluate_weights(
    model: Any, tokenizer: Any, folder: Path, recipe: dict[str, Any], *, step: int, n_problems: int, n_samples: int
) -> None:
    """Sample all suites and write `eval/step_<n>/completions.jsonl`; sampling does not touch the training's randomness."""
    file = folder / "eval" / f"step_{step}" / "completions.jsonl"
    if file.is_file():  # written in one piece, so it is complete
        return
    if not is_organism(recipe):
        evaluate_on_files(model, tokenizer, file, recipe, step=step, n_problems=n_problems, n_samples=n_samples)
        return
    suite_of = {}
    problems = []
    organism = organism_name(recipe)
    for suite in suites_of(organism):
        limit, subset = (
            (recipe["n_train_problems"], recipe.get("subset_seed", 0))
            if suite == "train"
            else (n_problems, recipe.get("question_seed", 0))
        )
        for problem in suite_problems(suite, min(n_problems, limit), subset, organism):
            suite_of[problem.problem_id] = suite
            problems.append(problem)
    records = sample_records(
        model,
        tokenizer,
        problems,
        [p.question for p in problems],
        suite=lambda problem: suite_of[problem.problem_id],
        n_samples=n_samples,
        sampling_seed=1000 + recipe["seed"],
        max_new_tokens=recipe["max_new_tokens"],
        arm=recipe["arm"],
        seed=recipe["seed"],
        step=step,
    )
    write_jsonl(file, records)


class EvaluateCallback(TrainerCallback):
    """Evaluates after the steps that the recipe names."""

    def __init__(self, folder: Path, recipe: dict[str, Any], tokenizer: Any = None) -> None:
        self.folder, self.recipe, self.tokenizer = folder, recipe, tokenizer

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step not in self.recipe["eval_steps"]:
            return
        last = state.global_step == self.recipe["steps"]
        size = ("eval_problems", "eval_samples") if last else ("mid_problems", "mid_samples")
        problems, samples = (self.recipe[key] for key in size)
        evaluate_weights(
            model,
            self.tokenizer,
            self.folder,
            self.recipe,
            step=state.global_step,
            n_problems=problems,
            n_samples=samples,
        )


def train_arm(folder: Path, recipe: dict[str, Any]) -> None:
    """Train one arm with the calibrated trainer and evaluate it on the way."""
    from calibrated_sd.trainers.callbacks import JsonlLogCallback
    from calibrated_sd.trainers.resuming import train_from

    evaluate = EvaluateCallback(folder, recipe)
    trainer = make_trainer(recipe, folder, [JsonlLogCallback(folder / "train.jsonl"), evaluate])
    evaluate.tokenizer = trainer.processing_class
    checkpoints = folder / "trainer"
    last = last_finished_checkpoint(checkpoints, required=(DIALS_FILE,), start_anew=True)
    train_from(trainer, last)
    if recipe.get("keep_model", True):
        save_whole_model(trainer, folder / "model")
    shutil.rmtree(checkpoints, ignore_errors=True)


def train_off_policy(folder: Path, recipe: dict[str, Any]) -> None:
    """Sample the data, fine-tune and evaluate; the evaluation's step is the number of passes."""
    from calibrated_sd.experiments.sft_job import make_sft_trainer
    from calibrated_sd.trainers.callbacks import JsonlLogCallback

    trainer = make_sft_trainer(recipe, folder, [JsonlLogCallback(folder / "train.jsonl")])
    trainer.train()
    sizes = {"n_problems": recipe["eval_problems"], "n_samples": recipe["eval_samples"]}
    evaluate_weights(trainer.model, trainer.processing_class, folder, recipe, step=recipe["steps"], **sizes)
    shutil.rmtree(folder / "trainer", ignore_errors=True)


def run_job(folder: Path) -> None:
    """Do the job of a folder and record its status."""
    recipe = read_object(folder / "run.json", "recipe")["recipe"]
    set_status(folder, RUNNING)
    if is_organism(recipe):  # small enough that a second thread costs more than it gives
        torch.set_num_threads(1)
    since = time.monotonic()
    try:
        if recipe["kind"] == "arm":
            train_arm(folder, recipe)
        elif recipe["kind"] == "sft":
            train_off_policy(folder, recipe)
        else:
            model, tokenizer = load_weights(recipe)
            if recipe["kind"] == "ladder":
                records = measure_ladder(
                    model,
                    tokenizer,
                    n_problems=recipe["ladder_problems"],
                    n_samples=recipe["ladder_samples"],
                    n_screen=recipe["ladder_screen"],
                    organism=organism_name(recipe),
                )
                write_jsonl(folder / "completions.jsonl", records)
            else:
                sizes = {"n_problems": recipe["eval_problems"], "n_samples": recipe["eval_samples"]}
                evaluate_weights(model, tokenizer, folder, recipe, step=0, **sizes)
                if recipe["trace_rollouts"]:
                    from calibrated_sd.experiments.traces import write_traces

                    write_traces(model, tokenizer, folder / "traces.jsonl", n=recipe["trace_rollouts"])
    except BaseException as error:
        traceback.print_exc()
        with contextlib.suppress(OSError):  # on a full disk, say; whoever started this finds out by the exit code
            set_status(folder, FAILED, error=f"{type(error).__name__}: {error}", wall_time_s=time.monotonic() - since)
        raise
    set_status(folder, OK, wall_time_s=round(time.monotonic() - since, 1), error=None)


def end_with_parent() -> None:
    """Let the system end this process with the one that started it, even if that one is killed (Linux)."""
    if sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


if __name__ == "__main__":
    end_with_parent()
    job_folder = Path(sys.argv[1])
    lock_folder(job_folder)  # of a left-over worker, e.g. on another machine
    run_job(job_folder)
