"""`csd probe`: what a context does to expressed doubt, without sampling anything."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from calibrated_sd.cli.console import IfExists, console, error_console, quiet_libraries
from calibrated_sd.cli.models import load_causal_model, model_folder
from calibrated_sd.cli.progress import Progress
from calibrated_sd.errors import ConfigError, DataError, OutputError
from calibrated_sd.organism.species import SPECIES

# Settings that decide the numbers: a folder is only continued with the same ones.
_SETTINGS = (
    *("model", "problems", "contexts", "controls", "traces", "markers", "template", "seed", "limit", "dtype"),
    *(
        "batch_size",
        "max_trace_tokens",
        "skip_too_long",
        "thinking",
        "prompt_column",
        "answer_column",
        "solution_column",
    ),
)
_OPTIONAL = ("wrong_solution", "regenerated")


def probe_command(
    model: Annotated[str, typer.Option(help="Folder with model and tokenizer, a Hub id, or 'organism'.")],
    problems: Annotated[
        str, typer.Option(help="Problem file (.jsonl .json .csv .parquet), 'organism', or 'organism:SUITE'.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for probe.jsonl and probe.json.")],
    contexts: Annotated[
        str, typer.Option(help="Levels with commas: stripped, solution, answer, hint, regenerated, hedged, …")
    ] = "none,stripped,solution",
    controls: Annotated[
        bool, typer.Option(help="Also measure irrelevant (another problem's solution), wrong, instruction.")
    ] = True,
    traces: Annotated[
        str, typer.Option(help="Texts to score: 'built', 'column:NAME', or a completions.jsonl of this model.")
    ] = "built",
    if_exists: IfExists = "raise",
    limit: Annotated[int | None, typer.Option(help="Only the first problems (of each suite).")] = None,
    markers: Annotated[str, typer.Option(help="Marker set: a name or a .yaml file.")] = "lexical",
    template: Annotated[
        str, typer.Option(help="Wrapper of the context: training, or paper (its section 3).")
    ] = "training",
    seed: Annotated[int, typer.Option(help="Places the doubt in built texts, picks the other problem.")] = 0,
    dtype: Annotated[
        str, typer.Option(help="auto (bfloat16 on a GPU, else float32), float32, bfloat16, float16.")
    ] = "auto",
    batch_size: Annotated[int, typer.Option(help="Prompts computed together; lower it when memory runs out.")] = 8,
    max_trace_tokens: Annotated[int | None, typer.Option(help="Score only the beginning of longer texts.")] = None,
    skip_too_long: Annotated[
        bool, typer.Option("--skip-too-long", help="Leave out and count what exceeds the model's window.")
    ] = False,
    thinking: Annotated[
        bool | None,
        typer.Option("--thinking/--no-thinking", help="enable_thinking of the chat template, if it has it."),
    ] = None,
    prompt_column: Annotated[
        str | None, typer.Option(help="Column with the prompt, if it has an unusual name.")
    ] = None,
    answer_column: Annotated[
        str | None, typer.Option(help="Column with the answer, if it has an unusual name.")
    ] = None,
    solution_column: Annotated[str | None, typer.Option(help="Column with the worked solution.")] = None,
) -> None:
    """Score given texts under each context: how much likelier or unlikelier does it make words of doubt?

    Nothing is sampled. Every figure is a difference to the prompt without context, with an interval over problems, beside
    neutral words at the same places and beside controls that show a solution without knowing the answer.

    Examples:

      csd probe --model organism --problems organism:train --limit 32 --output outputs/probe-organism

      csd probe --model Qwen/Qwen3-8B --problems data/math500/problems.jsonl --contexts solution,answer,hedged
      --output outputs/probe-math500
    """
    settings = {key: value for key, value in locals().items() if key in _SETTINGS}
    quiet_libraries()
    from calibrated_sd.context_analysis.probe_plan import ProbeIds, parse_contexts, plan_probe
    from calibrated_sd.context_analysis.prompts import TEMPLATES
    from calibrated_sd.context_analysis.traces import find_traces
    from calibrated_sd.errors import unknown_name
    from calibrated_sd.markers import MarkerSet
    from calibrated_sd.records import MANIFEST, SCHEMA_VERSION, check_output, prepare_output, read_json, write_json

    # Everything that can be wrong is checked, the quick things first, before anything is written or deleted.
    levels = parse_contexts(contexts, controls)
    if template not in TEMPLATES:
        raise unknown_name("template", template, TEMPLATES)
    for name in ("batch_size", "max_trace_tokens", "limit"):
        if settings[name] is not None and settings[name] < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {settings[name]}.")
    marker_set = MarkerSet.load(markers)
    manifest = check_output(output, if_exists, kind="probe") / MANIFEST
    if if_exists == "resume" and manifest.is_file():
        _check_same_settings(read_json(manifest), settings, output)
    folder = model_folder(model)
    inputs = (folder, *((problems,) if problems not in SPECIES else ()), traces.partition(":")[2] or traces)
    check_output(output, if_exists, inputs=inputs)
    rows = _problems(settings)
    texts = find_traces(traces, rows, seed)
    weights, tokenizer = load_causal_model(folder, dtype)
    ids = ProbeIds.of(tokenizer, marker_set)
    jobs, left_out = plan_probe(
        tokenizer,
        rows,
        texts,
        levels,
        ids,
        window=getattr(weights.config.get_text_config(), "max_position_embeddings", None),
        template=template,
        seed=seed,
        max_trace_tokens=max_trace_tokens,
        skip_too_long=skip_too_long,
        chat_template_kwargs=None if thinking is None else {"enable_thinking": thinking},
    )
    prepare_output(output, if_exists, kind="probe", inputs=inputs)
    write_json(manifest, {"schema_version": SCHEMA_VERSION, "kind": "probe", "settings": settings})

    from calibrated_sd.context_analysis.probe import run_probe
    from calibrated_sd.context_analysis.probe_figures import probe_figures
    from calibrated_sd.experiments.provenance import provenance

    since = time.monotonic()
    with Progress("texts", len(jobs)) as progress:
        scored = run_probe(
            weights, jobs, ids, output / "probe.jsonl", batch_size=batch_size, on_progress=progress.update
        )
    document = {"schema_version": SCHEMA_VERSION, "kind": "probe", "settings": settings, "left_out": left_out}
    document |= probe_figures(scored)
    block = provenance(seed=seed, model_path=folder, wall_time_s=time.monotonic() - since)
    write_json(output / "probe.json", {**document, "provenance": block})
    _show(document, marker_set.name, output)


def _check_same_settings(manifest: dict[str, Any], settings: dict[str, Any], output: Path) -> None:
    old = manifest.get("settings", {}) if manifest.get("kind") == "probe" else {}
    changed = [f"{key} {old.get(key)!r} → {settings[key]!r}" for key in settings if old.get(key) != settings[key]]
    if changed:
        raise OutputError(
            f"{output} was started by another command or with other settings ({', '.join(changed)}), so it cannot be "
            "continued. Nothing was changed. Repeat the old settings, give another folder, or add --if-exists overwrite."
        )


def _problems(settings: dict[str, Any]) -> list[dict[str, Any]]:
    name, _, part = settings["problems"].partition(":")
    limit = settings["limit"]
    if name in SPECIES:
        from calibrated_sd.organism.suites import load_suite

        return load_suite(part or name, organism=name, **({} if limit is None else {"n": limit}))
    from calibrated_sd.evaluation.datasets import load_problems

    path = settings["problems"]
    columns = {key: value for key in ("prompt", "answer", "solution") if (value := settings[f"{key}_column"])}
    rows: list[dict[str, Any]] = [dict(row) for row in load_problems(path, columns=columns, limit=limit)]
    kind, _, named = settings["traces"].partition(":")
    for column in dict.fromkeys((*_OPTIONAL, *([named] if kind == "column" else []))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said already
            try:
                found = load_problems(path, columns={**columns, "solution": column}, limit=limit)
            except DataError:
                if column in _OPTIONAL:
                    continue
                raise
        for row, other in zip(rows, found, strict=True):
            row[column] = other.get("solution")
    return rows


def _show(document: dict[str, Any], markers: str, output: Path) -> None:
    from calibrated_sd.context_analysis.probe_table import contrast_table, level_tables
    from calibrated_sd.trainers.monitoring.low_density import low_density_message

    for table in (*level_tables(document), contrast_table(document)):
        if table is not None:
            console.print(table)
            console.print()
    counts = document["counts"]
    console.print(
        f"{counts['markers']} markers and {counts['held_out']} held-out ones in {counts['texts']} texts of "
        f"{counts['problems']} problems; lines in {output / 'probe.jsonl'}, figures in {output / 'probe.json'}.",
        highlight=False,
        markup=False,
    )
    if document["left_out"]:
        parts = ", ".join(f"{what} {count}" for what, count in document["left_out"].items())
        console.print(f"Left out: {parts}.", highlight=False, markup=False)
    density = document["base_density"]
    message = None if density["value"] is None else low_density_message(density["value"], markers)
    if message:
        error_console.print(f"{message} (Measured as {density['unit']}.)", highlight=False, markup=False)
