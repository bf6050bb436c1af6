"""`csd ladder`: sample a model under each context level; score, length and markers with intervals (Table 1)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calibrated_sd.cli import evaluate_setup as setup
from calibrated_sd.cli.console import IfExists, console, error_console, quiet_libraries
from calibrated_sd.cli.models import model_folder
from calibrated_sd.errors import OutputError

if TYPE_CHECKING:
    from calibrated_sd.context_analysis.ladder import Ladder, LadderPlan

CUT_SHARE = 0.1
"""Share of completions cut at the token limit from which the printed table says so."""
# Settings that decide what is sampled: a folder is only continued with the same ones.
_SETTINGS = (
    *("model", "problems", "levels", "n", "select", "n_screen", "max_problems", "min_pass_rate", "max_pass_rate"),
    *("solution_from", "template", "limit", "backend", "adapter", "max_new_tokens", "temperature", "top_p", "thinking"),
    *("seed", "dtype", "batch_size", "batch_tokens", "grader", "prompt_column", "answer_column", "solution_column"),
)


def ladder_command(
    model: Annotated[str, typer.Option(help="Folder with model and tokenizer, a Hub id, or 'organism'.")],
    problems: Annotated[
        str, typer.Option(help="Problem file, suite that csd data prepared, 'organism', or 'organism:SUITE'.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for samples, selection.json and ladder.json.")],
    levels: Annotated[
        str, typer.Option(help="Context levels; also wrong, irrelevant, instruction, answer, hint.")
    ] = "none,stripped,regenerated,solution",
    n: Annotated[int, typer.Option(help="Samples per problem and level.")] = 8,
    select: Annotated[
        str, typer.Option(help="pass-rate (screen first), paper (screening samples are c = ∅; biased) or all.")
    ] = "pass-rate",
    n_screen: Annotated[int, typer.Option(help="Context-free samples per problem for screening.")] = 8,
    max_problems: Annotated[int, typer.Option(help="Stop when so many problems are found, in file order.")] = 100,
    min_pass_rate: Annotated[float, typer.Option(help="Lowest base pass rate taken.")] = 0.125,
    max_pass_rate: Annotated[float, typer.Option(help="Highest base pass rate taken.")] = 0.5,
    solution_from: Annotated[
        str, typer.Option(help="s: the first right screening sample (rollout) or the file's own (column).")
    ] = "rollout",
    template: Annotated[
        str, typer.Option(help="Wrapper of the context: training (as the trainers) or paper (as its section 3).")
    ] = "training",
    limit: Annotated[int | None, typer.Option(help="Look at the first problems of the file only.")] = None,
    backend: Annotated[str, typer.Option(help="transformers, or vllm (see csd evaluate).")] = "transformers",
    adapter: Annotated[str | None, typer.Option(help="Folder of a LoRA adapter for the model.")] = None,
    if_exists: IfExists = "raise",
    max_new_tokens: Annotated[int, typer.Option(help="Token limit of a completion (paper: 32768).")] = 256,
    temperature: Annotated[float, typer.Option(help="0 = always the most likely token.")] = 0.6,
    top_p: Annotated[float, typer.Option(help="Sample from the smallest set of tokens with this probability.")] = 0.95,
    thinking: Annotated[
        bool | None, typer.Option("--thinking/--no-thinking", help="Sets enable_thinking in the chat template.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all samples; also written into the records.")] = 0,
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, float16; auto = bfloat16 on a GPU, float32 on a CPU.")
    ] = "auto",
    batch_size: Annotated[int, typer.Option(help="transformers: rows computed together, at most.")] = 256,
    batch_tokens: Annotated[
        int, typer.Option(help="transformers: tokens of a batch, at most; lower it when memory runs out.")
    ] = 2**18,
    data_parallel: Annotated[int, typer.Option(help="Copies of the model, each with its share of the problems.")] = 1,
    tensor_parallel: Annotated[int, typer.Option(help="vllm: GPUs per copy.")] = 1,
    gpu_memory_utilization: Annotated[float | None, typer.Option(help="vllm: share of each GPU's memory.")] = None,
    max_model_len: Annotated[int | None, typer.Option(help="vllm: tokens of prompt and completion together.")] = None,
    enforce_eager: Annotated[bool, typer.Option(help="vllm: start faster, run slower.")] = False,
    grader: Annotated[str, typer.Option(help="boxed, math-verify, or module:function.")] = "boxed",
    grading_workers: Annotated[int, typer.Option(help="Processes that grade.")] = 2,
    data_dir: Annotated[str, typer.Option(help="Where csd data put its suites.")] = "data",
    prompt_column: Annotated[str | None, typer.Option(help="Column with the prompt, if unusual.")] = None,
    answer_column: Annotated[str | None, typer.Option(help="Column with the answer, if unusual.")] = None,
    solution_column: Annotated[str | None, typer.Option(help="Column with the solution, if unusual.")] = None,
) -> None:
    """Screen problems by base pass rate, sample each context level, and tabulate score, length and markers.

    Examples:

      csd ladder --model organism --problems organism:heldout --n 4 --max-problems 40 --output outputs/ladder

      csd ladder --model deepseek-ai/DeepSeek-R1-Distill-Qwen-7B --problems data/dapo/problems.jsonl --backend vllm
      --max-new-tokens 32768 --grader math-verify --template paper --output outputs/ladder-ds7b
    """
    given = {key: value for key, value in locals().items() if key not in ("output", "if_exists")}
    quiet_libraries()
    from calibrated_sd.cli.ladder_engine import LadderModel, load_ladder_problems
    from calibrated_sd.context_analysis.ladder import LADDER, LadderPlan, measure_ladder
    from calibrated_sd.context_analysis.ladder_prompts import parse_ladder
    from calibrated_sd.context_analysis.ladder_table import ladder_figures
    from calibrated_sd.evaluation.named_functions import function_file
    from calibrated_sd.experiments.provenance import provenance
    from calibrated_sd.records import MANIFEST, SCHEMA_VERSION, check_output, prepare_output, read_json, write_json

    # Everything that can be wrong is checked, the quick things first, before anything is written or deleted.
    plan = LadderPlan(
        levels=parse_ladder(levels),
        n=n,
        select=select,
        n_screen=n_screen,
        max_problems=max_problems,
        band=(min_pass_rate, max_pass_rate),
        solution_from=solution_from,
        template=template,
        seed=seed,
    )
    setup.check_sampling(given)
    folder = model_folder(model)
    wanted = setup.engine_settings({**given, "cache": "dynamic"}, folder).resolved()
    settings = {**{key: given[key] for key in _SETTINGS}, "dtype": wanted.dtype}
    inputs = (folder, adapter, setup.suite_file(problems, data_dir), function_file(grader))
    manifest = check_output(output, if_exists, kind="ladder", inputs=inputs) / MANIFEST
    if if_exists == "resume" and manifest.is_file():
        _check_same_settings(read_json(manifest), settings, output)
    rows = load_ladder_problems(given)

    from calibrated_sd.evaluation.engines import load_engine

    with load_engine(wanted) as engine:
        sampled = LadderModel(engine, given)
        rows = sampled.check(rows)
        prepare_output(output, if_exists, kind="ladder", inputs=inputs)
        write_json(manifest, {"schema_version": SCHEMA_VERSION, "kind": "ladder", "settings": settings})
        since = time.monotonic()
        measured = measure_ladder(rows, output, plan, sampled.record, too_long=sampled.too_long)
    found = ladder_figures(measured.records)
    selected = {key: value for key, value in measured.selection.as_dict(plan.selector).items() if key != "problems"}
    document = {
        "schema_version": SCHEMA_VERSION,
        "kind": "ladder",
        "settings": settings,
        "selection": selected,
        "left_out": measured.left_out,
        "rewrites": measured.rewrites,
        **found,
        "provenance": provenance(seed=seed, model_path=folder, wall_time_s=time.monotonic() - since),
    }
    write_json(output / LADDER, document)
    _show(measured, plan, found, output)


def _check_same_settings(manifest: dict[str, Any], settings: dict[str, Any], output: Path) -> None:
    old = manifest.get("settings", {}) if manifest.get("kind") == "ladder" else {}
    changed = [f"{key} {old.get(key)!r} → {settings[key]!r}" for key in settings if old.get(key) != settings[key]]
    if changed:
        raise OutputError(
            f"{output} was started by another command or with other settings ({', '.join(changed)}), so it cannot be "
            "continued. Nothing was changed. Repeat the old settings, give another folder, or add --if-exists overwrite."
        )


def _show(measured: Ladder, plan: LadderPlan, found: dict[str, Any], output: Path) -> None:
    from rich.table import Table

    from calibrated_sd.context_analysis.ladder_table import interval_text, ratio_rows, table_rows
    from calibrated_sd.trainers.monitoring.low_density import low_density_message

    selection = measured.selection
    n_problems = len({(r["suite"], r["problem_id"]) for r in measured.records[plan.levels[0]]})
    titles = (f"{n_problems} problems, {plan.n} samples per level; 95 % intervals over problems", None)
    for title, (headings, *lines) in zip(titles, (table_rows(found), ratio_rows(found)), strict=True):
        table = Table(title=title, title_justify="left", title_style="bold")
        for heading in headings:
            table.add_column(heading)
        for line in lines:
            table.add_row(*line)
        console.print(table)
    if plan.select == "paper":
        console.print(
            "Biased: as in the paper, the row c = ∅ consists of the samples by which problems were chosen.",
            markup=False,
        )
    if "correct" in measured.rewrites:
        console.print(f"ỹ: {interval_text(measured.rewrites['correct'])} of the rewrites are right.", markup=False)
    for check in found["checks"]:
        console.print(
            f"{check['claim']} {check['statement']}: {check['verdict']} ({interval_text(check)})",
            highlight=False,
            markup=False,
        )
    cut = {level: shown["truncated_share"]["value"] for level, shown in found["levels"].items()}
    if max(cut.values()) >= CUT_SHARE:
        shares = ", ".join(f"{level} {share:.0%}" for level, share in cut.items())
        console.print(
            f"Cut at --max-new-tokens: {shares}. Their scores and lengths are lower bounds.",
            highlight=False,
            markup=False,
        )
    density = found["levels"].get("none", {}).get("lexical_per_1k", {}).get("value")
    message = None if density is None else low_density_message(density, "lexical")
    if message:
        error_console.print(message, highlight=False, markup=False)
    left_out = {**selection.as_dict(plan.selector)["left_out"], **measured.left_out}
    reasons = "; ".join(f"{why}: {n}" for why, n in left_out.items())
    console.print(
        f"{len(selection.choices)} problems seen, {n_problems} measured{' (' + reasons + ')' if reasons else ''}. Samples "
        f"and figures in {output}. Next: csd off-policy {output} --output DIR",
        highlight=False,
        markup=False,
    )
