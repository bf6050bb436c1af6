"""`csd evaluate`: sample, grade and count, from a checkpoint to figures with intervals."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from calibrated_sd.cli import evaluate_setup as setup
from calibrated_sd.cli.console import IfExists, console, quiet_libraries
from calibrated_sd.cli.models import model_folder
from calibrated_sd.cli.progress import Progress


def evaluate_command(
    model: Annotated[str, typer.Option(help="Folder with model and tokenizer, a Hub id, or 'organism'.")],
    suite: Annotated[
        str,
        typer.Option(
            help="A suite that csd data prepared (its name or folder), a problem file (.jsonl .json .csv .parquet), "
            "'organism', or 'organism:SUITE'."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder for completions.jsonl and metrics.json.")],
    adapter: Annotated[str | None, typer.Option(help="Folder of a LoRA adapter for the model.")] = None,
    n: Annotated[int | None, typer.Option(help="Samples per problem. [suite's own, else 16]")] = None,
    backend: Annotated[
        str, typer.Option(help="transformers, or vllm (tested with its engine for CPUs, not on a GPU so far).")
    ] = "transformers",
    if_exists: IfExists = "raise",
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Token limit of a completion. [suite's own, else 256]")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 = always the most likely token. [suite's own, else 1]")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Sample from the smallest set of tokens with this probability. [suite's own, else 1]"),
    ] = None,
    thinking: Annotated[
        bool | None,
        typer.Option(
            "--thinking/--no-thinking",
            help="Sets enable_thinking in the chat template, and picks the suite's sampling. [the template's default]",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the samples; also written into the records.")] = 0,
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, float16; auto = bfloat16 on a GPU, float32 on a CPU.")
    ] = "auto",
    batch_size: Annotated[int, typer.Option(help="transformers: rows computed together, at most.")] = 256,
    batch_tokens: Annotated[
        int,
        typer.Option(
            help="transformers: rows x (prompt + max-new-tokens) of a batch, at most; lower it when memory runs out."
        ),
    ] = 2**18,
    cache: Annotated[str, typer.Option(help="transformers: dynamic or static; same tokens.")] = "dynamic",
    data_parallel: Annotated[int, typer.Option(help="Copies of the model, each with its share of the problems.")] = 1,
    tensor_parallel: Annotated[int, typer.Option(help="vllm: GPUs per copy.")] = 1,
    gpu_memory_utilization: Annotated[
        float | None, typer.Option(help="vllm: share of each GPU's memory. [vLLM's own default]")
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option(help="vllm: tokens of prompt and completion together. [the model's window]")
    ] = None,
    enforce_eager: Annotated[bool, typer.Option(help="vllm: start faster, run slower.")] = False,
    grader: Annotated[
        str | None,
        typer.Option(
            help="boxed (exact), math-verify (LaTeX expressions), or module:function. [suite's own, else boxed]"
        ),
    ] = None,
    grading_workers: Annotated[int, typer.Option(help="Processes that grade.")] = 2,
    data_dir: Annotated[str, typer.Option(help="Where csd data put its suites.")] = "data",
    arm: Annotated[str, typer.Option(help="Name of these weights in the records.")] = "base",
    limit: Annotated[int | None, typer.Option(help="Only the first problems of each suite; for trying out.")] = None,
    prompt_column: Annotated[
        str | None, typer.Option(help="Column with the prompt, if it has an unusual name.")
    ] = None,
    answer_column: Annotated[
        str | None, typer.Option(help="Column with the answer, if it has an unusual name.")
    ] = None,
) -> None:
    """Sample n completions per problem; write completions.jsonl and metrics.json, every figure with its interval.

    Examples:

      csd evaluate --model organism --suite organism:heldout --n 4 --limit 32 --output outputs/heldout

      csd evaluate --model Qwen/Qwen3-8B --adapter outputs/sdpo --suite aime24 --thinking --backend vllm
      --data-parallel 8 --output outputs/aime24
    """
    given = {key: value for key, value in locals().items() if key not in ("output", "if_exists")}
    quiet_libraries()
    from calibrated_sd.evaluation.named_functions import function_file
    from calibrated_sd.records import MANIFEST, SCHEMA_VERSION, check_output, prepare_output, read_json, write_json

    # Everything that can be wrong is checked, the quick things first, before anything is written or deleted.
    setup.check_sampling({**given, **{k: v for k, v in setup.DEFAULTS.items() if given[k] is None}})
    setup.engine_settings(given, model)
    manifest = check_output(output, if_exists, kind="evaluate") / MANIFEST
    folder, file = model_folder(model), setup.suite_file(suite, data_dir)
    inputs = (folder, file, adapter, function_file(grader))
    check_output(output, if_exists, inputs=inputs)
    settings = setup.effective_settings(given, file, folder)
    setup.check_sampling(settings)
    wanted = setup.engine_settings(settings, folder).resolved()
    settings["dtype"] = wanted.dtype
    if if_exists == "resume" and manifest.is_file():
        setup.check_same_settings(read_json(manifest), settings, output)
    problems = setup.load_suite_problems(settings, file)
    note = setup.adapter_note(adapter, folder)
    template = None if thinking is None else {"enable_thinking": thinking}

    from calibrated_sd.evaluation.engines import load_engine
    from calibrated_sd.evaluation.generate import check_prompts

    with load_engine(wanted) as engine:
        tokens, window = settings["max_new_tokens"], max_model_len if backend == "vllm" else None
        check_prompts(engine.config, engine.tokenizer, problems, tokens, window=window, chat_template_kwargs=template)
        prepare_output(output, if_exists, kind="evaluate", inputs=inputs)
        write_json(manifest, {"schema_version": SCHEMA_VERSION, "kind": "evaluate", "settings": settings})

        from calibrated_sd.evaluation.completions import record_completions

        since, counted = time.monotonic(), _Counted(engine.iterate)
        with Progress("completions", settings["n"] * len(problems)) as progress:
            records = record_completions(
                engine.model,
                engine.tokenizer,
                problems,
                output / "completions.jsonl",
                arm=arm,
                grading_workers=grading_workers,
                backend=counted,
                on_progress=progress.update,
                chat_template_kwargs=template,
                **{
                    k: settings[k]
                    for k in ("n", "seed", "grader", "max_new_tokens", "temperature", "top_p", "batch_size")
                },
            )
    from calibrated_sd.evaluation.suite_figures import suite_figures
    from calibrated_sd.experiments.provenance import provenance

    seconds = time.monotonic() - since
    suites = dict.fromkeys(p["suite"] for p in problems)
    figures = {name: suite_figures([r for r in records if r["suite"] == name]) for name in suites}
    metrics = {
        "schema_version": SCHEMA_VERSION,
        "kind": "evaluate",
        "settings": settings,
        "suites": figures,
        "generated": {"tokens": counted.tokens, "wall_time_s": round(seconds, 2)},  # in this call, not before a resume
        "provenance": {**provenance(seed=seed, model_path=folder, wall_time_s=seconds), "adapter": note},
    }
    write_json(output / "metrics.json", metrics)
    _show(figures, len(records), output)


class _Counted:
    """A backend that counts the tokens it hands on."""

    def __init__(self, iterate: Any) -> None:
        self.iterate, self.tokens = iterate, 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        for batch in self.iterate(*arguments, **options):
            self.tokens += sum(len(c.token_ids) for c in batch)
            yield batch


def _show(figures: dict[str, dict[str, Any]], n_records: int, output: Path) -> None:
    from rich.table import Table

    for suite, metrics in figures.items():
        questions = metrics["n_tokens"]["n"]
        table = Table(title=f"{suite}: {questions} problems", title_justify="left", title_style="bold")
        for heading in ("metric", "value [95 % interval]", "unit"):
            table.add_column(heading)
        for name, shown in metrics.items():
            if shown["value"] is not None:
                interval = "" if shown["lo"] is None else f" [{shown['lo']:.3g}, {_upper(shown)}]"
                table.add_row(name, f"{shown['value']:.3g}{interval}", shown["unit"])
        console.print(table)
    console.print(
        f"{n_records} completions in {output / 'completions.jsonl'}, figures in {output / 'metrics.json'}.",
        highlight=False,
        markup=False,
    )


def _upper(shown: dict[str, Any]) -> str:
    return "∞" if shown["hi"] is None else f"{shown['hi']:.3g}"
