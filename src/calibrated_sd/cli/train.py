"""`csd train`: one training run from a recipe, with TRL's own option parser."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calibrated_sd.cli.console import console, error_console, quiet_libraries
from calibrated_sd.cli.models import model_path
from calibrated_sd.cli.termination import TERMINATED
from calibrated_sd.errors import CalibratedSDError, ConfigError, OutputError, shortened, unknown_name
from calibrated_sd.organism.species import SPECIES

if TYPE_CHECKING:
    from calibrated_sd.experiments.train_recipe import RunArguments


def load_rows(run: RunArguments, settings: Any) -> list[dict[str, Any]]:
    """Training rows: prompt, answer and, where there is one, solution; for SFT prompt and completion.

    Raises:
        DataError: no such file, or rows without what the trainer needs.
    """
    if run.trainer == "sft":
        from calibrated_sd.experiments.sft_rows import sft_rows

        return _as_many_as_wanted(sft_rows(run.problems, run.n_problems), run)
    from calibrated_sd.experiments.training import training_rows

    n = 64 if run.n_problems is None and run.problems in SPECIES else run.n_problems
    batch = getattr(settings, "generation_batch_size", None) or 0
    if run.repeat_problems and batch:  # of all processes, also where a plan is made by one
        prompts = batch // settings.world_size * run.gpus // settings.num_generations
    else:
        prompts = 1
    recipe = {"problems": run.problems, "n_train_problems": n, "subset_seed": run.subset_seed}
    return _as_many_as_wanted(training_rows(recipe, prompts_per_batch=prompts), run)


def _as_many_as_wanted(rows: list[dict[str, Any]], run: RunArguments) -> list[dict[str, Any]]:
    # Rows of SFT are counted as they are: several answers to one problem are several rows.
    found = len(rows) if run.trainer == "sft" else len({str(row["prompt"]) for row in rows})
    if run.n_problems is not None and found < run.n_problems:
        warnings.warn(
            f"n_problems is {run.n_problems}, but {run.problems} holds {found}: all of them are used.",
            stacklevel=3,
        )
    return rows


def is_main_process() -> bool:
    """True for the process that prints and writes: the only one, or the first that a launcher started."""
    return int(os.environ.get("RANK", "0")) == 0


def train_command(
    context: typer.Context,
    config: Annotated[str, typer.Option(help="Training recipe, by name (see `csd ls`) or path.")],
    output: Annotated[Path | None, typer.Option(help="Output folder, instead of the recipe's output_dir.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and stop.")] = False,
    if_exists: Annotated[
        str, typer.Option("--if-exists", help="Output folder that is not empty: raise, resume or overwrite.")
    ] = "raise",
) -> None:
    """Train one model from a recipe. Any field of the trainer's config can be overridden: --calibration_strength 0.3

    On several GPUs the launcher starts the same command: accelerate launch -m calibrated_sd.cli.main train …

    Examples:

      csd train --config organism/sdpo_projection --output out

      csd train --config Qwen3-8B/sdpo/lora --output out --dry-run

      csd train --config my_run.yaml --calibration_strength 0.5 --learning_rate 1e-5 --dry-run
    """
    quiet_libraries()
    warnings.simplefilter("ignore", FutureWarning)  # of libraries, about each other
    from calibrated_sd.cli.recipes import find_recipe
    from calibrated_sd.experiments.train_recipe import parse_recipe
    from calibrated_sd.trainers.whole import check_weights

    overrides = list(context.args)
    if output is not None:
        overrides += ["--output_dir", str(output)]
    recipe_path = find_recipe(config)
    run, settings = parse_recipe(recipe_path, overrides, on_this_machine=not dry_run)
    if dry_run:
        from calibrated_sd.cli.dry_run import show_plan

        at_hand = run.problems in SPECIES or Path(run.problems).is_file()  # the plan works without, too
        show_plan(run, settings, load_rows(run, settings) if at_hand else None, recipe_path)
        return
    check_processes(run, settings)
    check_report_to(settings)
    warn_of_lost_updates(run, settings)
    check_weights(model_path(run.model))
    folder = Path(settings.output_dir)
    from calibrated_sd.experiments.train_manifest import check_same_run, files_read, stated_settings, write_manifest
    from calibrated_sd.records import check_output, prepare_output

    inputs = files_read(recipe_path, run, settings)
    if is_main_process():
        check_output(folder, if_exists, kind="train", inputs=inputs)
    stated, checkpoint = stated_settings(recipe_path, overrides, run, settings), None
    if if_exists == "resume":
        check_same_run(folder, stated, run, settings)
        checkpoint = last_checkpoint(folder, run.trainer)
    rows = load_rows(run, settings)

    from calibrated_sd.experiments.provenance import provenance
    from calibrated_sd.records.disk_faults import named_saves
    from calibrated_sd.trainers.finished import save_whole_model
    from calibrated_sd.trainers.resuming import train_from
    from calibrated_sd.trainers.stop_on_signal import StopOnSignal

    made_by = provenance(seed=settings.seed, recipe_path=recipe_path)
    if is_main_process():
        # Held from here on, but emptied only once there is a trainer: what it refuses leaves an old run as it was.
        prepare_output(folder, "resume" if if_exists == "overwrite" else if_exists, kind="train")
    trainer = make_trainer(run, settings, rows, folder)
    if is_main_process():
        if if_exists == "overwrite":
            prepare_output(folder, if_exists, kind="train", inputs=inputs)
        write_manifest(folder, stated, made_by, resumed=if_exists == "resume")
    trainer.card_provenance = made_by
    stop = StopOnSignal()
    trainer.add_callback(stop)
    with named_saves(folder):
        train_from(trainer, checkpoint)
    if stop.stopped_at is not None and stop.stopped_at < trainer.state.max_steps:
        if is_main_process():
            error_console.print(_stopped(stop.stopped_at, trainer.state.max_steps, settings), highlight=False)
        leave_group(TERMINATED)
        raise typer.Exit(TERMINATED)
    with named_saves(folder / "model"):
        save_whole_model(trainer, folder / "model")
    if is_main_process():
        console.print(f"model: {folder / 'model'}   log: {folder / 'train.jsonl'}", highlight=False)
    leave_group()


def _stopped(step: int, max_steps: int, settings: Any) -> str:
    how = (
        "its weights alone, because of save_only_model, so the run itself cannot go on"
        if settings.save_only_model
        else "go on with --if-exists resume"
    )
    return f"Terminated after step {step} of {max_steps}. A checkpoint was saved: {how}."


def leave_group(code: int = 0) -> None:
    """Wait until the main process has written everything, then end the group of processes, if there is one.

    A launcher stops the others as soon as one ends badly, and threads of the communication that outlive the interpreter
    abort a process now and then. So those that have nothing to write (trackers live in the main process) end at once.
    """
    import torch.distributed

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    if not is_main_process():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def check_processes(run: RunArguments, settings: Any) -> None:
    """Refuse a number of processes that the recipe was not written for, because the batch would be another one.

    Raises:
        ConfigError: the launcher started more or fewer processes than `gpus`, or one process sees several GPUs.
    """
    if settings.world_size != run.gpus:
        raise ConfigError(
            f"The recipe divides its batch among gpus={run.gpus} process{'es' if run.gpus > 1 else ''}, but "
            f"{settings.world_size} {'were' if settings.world_size > 1 else 'was'} started. Start it with accelerate "
            f"launch --num_processes {run.gpus} (see `csd cat` of the recipe), or say --gpus {settings.world_size} and "
            "change gradient_accumulation_steps (and steps_per_generation) so that their product stays the same."
        )
    if settings.n_gpu > 1:
        raise ConfigError(
            f"One process sees {settings.n_gpu} GPUs and would split each batch among them, which TRL's trainers do not "
            "support. Set CUDA_VISIBLE_DEVICES=0, or start one process for each GPU with accelerate launch."
        )


def check_report_to(settings: Any) -> None:
    """Refuse a tracker that transformers does not know, or that is not installed, before a model is loaded.

    Raises:
        ConfigError: one of `report_to`.
    """
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    named = [settings.report_to] if isinstance(settings.report_to, str) else settings.report_to or []
    for name in named:
        if name not in INTEGRATION_TO_CALLBACK and (name not in ("none", "all") or len(named) > 1):
            raise unknown_name("report_to", name, [*INTEGRATION_TO_CALLBACK, "none"])
        # transformers lists neither of these two as available where it is.
        if name not in (*get_available_reporting_integrations(), "none", "all", "azure_ml", "flyte"):
            raise ConfigError(
                f"report_to names {name!r}, whose library is not installed. Install it, or say --report_to none; train.jsonl "
                "is written anyway."
            )


def last_checkpoint(folder: Path, trainer: str = "") -> Path | None:
    """The last finished checkpoint of a run, from which it can go on; None if there is none yet.

    Args:
        folder: the run's output.
        trainer: the recipe's trainer; all but SFT's and TRL's own keep their dials in every checkpoint.

    Raises:
        OutputError: all of them are damaged; or the last one holds weights only. The trainer would go on silently, with an optimizer that has forgotten its
            averages and a second warm-up, which is another run.
    """
    from calibrated_sd.trainers.dials import DIALS_FILE
    from calibrated_sd.trainers.finished import last_finished_checkpoint

    required = (DIALS_FILE,) if trainer in ("sdpo", "sdft", "distillation") else ()
    checkpoint = last_finished_checkpoint(folder, required=required)
    if checkpoint is None:
        return None
    if not (checkpoint / "scheduler.pt").is_file():
        raise OutputError(
            f"{checkpoint} holds weights only (save_only_model: true), so the run cannot go on where it stopped: its "
            "optimizer and its learning rate would start anew. Nothing was changed. Start again with --if-exists overwrite "
            "and --save_only_model false, or train from these weights as a run of its own with --model."
        )
    return checkpoint


def warn_of_lost_updates(run: RunArguments, settings: Any) -> None:
    """Warn where all weights are trained in 16 bits and nothing keeps them in float32.

    Next to a weight of 0.05, bf16 has a step of 2⁻¹², so a change by 1e-5 is rounded away: most weights never move.
    DeepSpeed and FSDP keep float32 copies under mixed precision; adapters are float32 by themselves.
    """
    from calibrated_sd.planning.training_state import loaded_width

    sharded = getattr(settings, "deepspeed_plugin", None) is not None or bool(settings.fsdp)
    if run.lora_r == 0 and not sharded and loaded_width(settings) < 4:
        warnings.warn(
            f"All weights are trained in 16 bits, with no float32 copy: most changes at learning_rate="
            f"{settings.learning_rate:g} are smaller than half a step of the number format, and are lost in rounding. Start "
            "it with a DeepSpeed launch file (csd cp launch/8gpus_zero2.yaml .), train an adapter (lora_r), or load with "
            "model_init_kwargs: {dtype: float32} and bf16: true.",
            stacklevel=2,
        )


def make_trainer(run: RunArguments, settings: Any, rows: list[dict[str, Any]], folder: Path) -> Any:
    """The trainer of a recipe.

    Raises:
        ConfigError: anything the trainer or its libraries refuse, or an optional library that the settings need and that
            is missing.
    """
    from calibrated_sd.experiments.training import assemble
    from calibrated_sd.trainers.callbacks import JsonlLogCallback

    log = JsonlLogCallback(folder / "train.jsonl")
    try:
        return assemble(settings, rows, model_path(run.model), asdict(run), [log], trainer=run.trainer)
    except ImportError as error:
        raise ConfigError(
            f"The settings of this run need a library that is not installed: {error} Install it, or change the setting "
            "(use_vllm, or attn_implementation in model_init_kwargs)."
        ) from error
    except CalibratedSDError:
        raise
    except Exception as error:  # of TRL, transformers, PEFT, accelerate and the hub, each with errors of its own
        reason = shortened(" ".join(str(error).split()), 1500, plain=True)
        raise ConfigError(
            f"The {run.trainer} trainer cannot be made with these settings ({type(error).__name__}: {reason}). Nothing was "
            "trained. Change the setting that this is about; csd train --dry-run shows them all."
        ) from error
