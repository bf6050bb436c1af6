"""`csd data ls | prepare | coverage`: problem sets made ready, with a report of what was dropped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calibrated_sd.cli.console import IfExists, console, quiet_libraries
from calibrated_sd.errors import ConfigError, DataError, OutputError

if TYPE_CHECKING:
    from calibrated_sd.data.report import Report

data_app = typer.Typer(help="Problem sets: list known ones, prepare files, cut coverage subsets.", no_args_is_help=True)

PromptColumn = Annotated[str | None, typer.Option(help="Column with the prompt, if it has an unusual name.")]
AnswerColumn = Annotated[str | None, typer.Option(help="Column with the answer, if it has an unusual name.")]
KeepPrompts = Annotated[
    bool, typer.Option("--keep-prompts", help="Leave prompts as they are; otherwise they end in the boxed instruction.")
]


@data_app.command("ls")
def ls_command(
    data_dir: Annotated[Path, typer.Option(help="Where prepared suites lie.")] = Path("data"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the known data sets: what for, where from, which revision, which licence, and whether they are prepared.

    Examples:

      csd data ls

      csd data ls --data-dir data --json
    """
    import dataclasses
    import json

    from calibrated_sd.data.folder import recorded_suite
    from calibrated_sd.data.sources import known_sources

    rows = []
    for source in known_sources().values():
        suite = recorded_suite(data_dir / source.name)
        prepared = None if suite is None else {"problems": suite["report"]["kept"], **suite["source"]}
        rows.append({**dataclasses.asdict(source), "prepared": prepared})
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        origin = f"{row['hub_id']} at {row['revision'] or 'a revision to be resolved'}"
        if row["generator"]:
            origin = f"made by {row['generator']}"
        state = "not prepared"
        if row["prepared"]:
            state = f"{row['prepared']['problems']} problems in {data_dir / row['name']}"
            if row["prepared"]["revision"]:
                state += f", from revision {row['prepared']['revision']}"
        lines = (f"{row['title']}. For {row['use']}. {row['note']}", origin, f"licence: {row['licence']}", state)
        console.print(f"[bold]{row['name']}[/bold]", highlight=False)
        for line in lines:
            console.print(f"  {line}", markup=False, highlight=False)


@data_app.command("prepare")
def prepare_command(
    what: Annotated[str, typer.Argument(metavar="SOURCE|FILE", help="A name from csd data ls, or a local file.")],
    output: Annotated[Path, typer.Option(help="Folder of suites; the suite becomes a folder in it.")],
    name: Annotated[str | None, typer.Option(help="Name of the suite; that of the source or file if left out.")] = None,
    prompt_column: PromptColumn = None,
    answer_column: AnswerColumn = None,
    max_prompt_tokens: Annotated[int | None, typer.Option(help="Drop longer prompts (needs --tokenizer).")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or Hub id whose tokenizer measures prompts.")] = None,
    source_file: Annotated[
        list[Path] | None, typer.Option(help="Local copy of the source, instead of a download; may be repeated.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit on the hub, instead of the known one.")] = None,
    size: Annotated[int | None, typer.Option(help="How many problems a generated source makes (1000).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of a generated source, and of what is held out.")] = 0,
    hold_out: Annotated[
        float | None, typer.Option(help="Also write train.jsonl and held_out.jsonl, with this share held out.")
    ] = None,
    keep_prompts: KeepPrompts = False,
    if_exists: IfExists = "raise",
) -> None:
    """Clean a problem set: one row per problem, chat prompts, one answer each; report what was dropped and why.

    Examples:

      csd data prepare math500 --output data

      csd data prepare dapo-math-17k --max-prompt-tokens 2048 --tokenizer Qwen/Qwen3-8B --output data

      csd data prepare aime24 --source-file aime24.parquet --output data

      csd data prepare sciknoweval-chemistry --hold-out 0.1 --output data
    """
    quiet_libraries()
    from calibrated_sd.data.folder import check_not_in_place, recorded_suite, write_suite
    from calibrated_sd.data.generated import DEFAULT_SIZE
    from calibrated_sd.data.inputs import choose, open_input
    from calibrated_sd.data.preparing import prepare_rows, token_counter
    from calibrated_sd.data.suites import built_in_suites
    from calibrated_sd.experiments.provenance import provenance
    from calibrated_sd.records import check_output

    chosen = choose(what, source_file or (), name)
    if chosen.source is not None and what != chosen.source.name:
        line = f"{what} is called like {chosen.source.name} ({chosen.source.title}) and is read as that set."
        console.print(line, highlight=False, markup=False)
    generated = chosen.source is not None and chosen.source.generator is not None and not chosen.files
    if size is not None and not generated:
        raise ConfigError("--size is for sources that are generated (gsm-symbolic). Leave it out.")
    size = DEFAULT_SIZE if generated and size is None else size
    if tokenizer is not None and max_prompt_tokens is None:
        raise ConfigError("--tokenizer is there to measure prompts. Say how long they may be with --max-prompt-tokens.")
    if hold_out is not None and not 0 < hold_out < 1:
        raise ConfigError(f"--hold-out is a share between 0 and 1, e.g. 0.1, got {hold_out}.")
    folder = output / chosen.name
    check_not_in_place(chosen.files, folder)
    check_output(folder, if_exists, kind="suite", inputs=(tokenizer,))
    recorded = recorded_suite(folder)
    columns = {key: value for key, value in (("prompt", prompt_column), ("answer", answer_column)) if value}
    settings: dict[str, Any] = {
        "columns": columns,
        "boxed": not keep_prompts,
        "max_prompt_tokens": max_prompt_tokens,
        "tokenizer": tokenizer,
        "size": size,
        "hold_out": hold_out,
        "seed": None if size is None and hold_out is None else seed,
    }
    source = open_input(chosen, revision=revision, recorded=recorded, size=size, seed=seed)
    if if_exists == "resume" and recorded is not None and (folder / "problems.jsonl").is_file():
        _check_same(recorded, {"settings": settings, "source": source.described}, folder)
        console.print(f"{folder} is prepared already, with the same settings.", highlight=False, markup=False)
        return
    prepared = prepare_rows(
        source.rows,
        source.path,
        name=chosen.name,
        source=chosen.source,
        columns=columns,
        boxed=not keep_prompts,
        max_prompt_tokens=max_prompt_tokens,
        count_tokens=None if tokenizer is None else token_counter(tokenizer),
        on_row=_say_rows,
    )
    known = built_in_suites().get(chosen.name if chosen.source is None else chosen.source.name)
    file = write_suite(
        folder,
        prepared,
        source=source.described,
        settings=settings,
        definition=known,
        provenance=provenance(seed=settings["seed"]),
        if_exists=if_exists,
        hold_out=hold_out,
        seed=seed,
    )
    _show_report(prepared.report)
    console.print(f"{len(prepared.problems)} problems in {file}", highlight=False, markup=False)


@data_app.command("coverage")
def coverage_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Problem file, prepared or not.")],
    output: Annotated[Path, typer.Option(help="Folder for one problem file per subset, and coverage.json.")],
    sizes: Annotated[str, typer.Option(help="Different problems per subset, and 'full'.")] = "1,8,64,128,512,full",
    rows: Annotated[int, typer.Option(help="Rows of small subsets, whose problems are repeated; 1 = no repeats.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the order that all subsets are cut from.")] = 0,
    prompt_column: PromptColumn = None,
    answer_column: AnswerColumn = None,
    keep_prompts: KeepPrompts = False,
    if_exists: IfExists = "raise",
) -> None:
    """Cut nested subsets of different problems, each part of the next larger one.

    Examples:

      csd data coverage data/dapo-math-17k/problems.jsonl --output data/coverage

      csd data coverage problems.csv --sizes 1,8,64 --rows 64 --seed 1 --output coverage
    """
    from calibrated_sd.data.coverage import coverage_subsets, parse_sizes
    from calibrated_sd.data.folder import check_not_in_place
    from calibrated_sd.data.inputs import choose, open_input
    from calibrated_sd.data.preparing import prepare_rows
    from calibrated_sd.experiments.provenance import provenance
    from calibrated_sd.records import (
        MANIFEST,
        SCHEMA_VERSION,
        check_output,
        prepare_output,
        read_json,
        write_json,
        write_jsonl,
    )

    wanted = parse_sizes(sizes)
    if not file.is_file():
        raise DataError(
            f"There is no problem file {file}. Prepare one with csd data prepare, and give its problems.jsonl."
        )
    chosen = choose(str(file), name="coverage")
    check_not_in_place([file], output)
    check_output(output, if_exists, kind="coverage")
    source = open_input(chosen)
    columns = {key: value for key, value in (("prompt", prompt_column), ("answer", answer_column)) if value}
    settings = {"sizes": sizes, "rows": rows, "seed": seed, "columns": columns, "boxed": not keep_prompts}
    inputs = {"files": source.described["files"]}
    if if_exists == "resume" and (output / "coverage.json").is_file():
        # Subsets of another seed or size are not nested with those that are there.
        _check_same(read_json(output / "coverage.json"), {"settings": settings, "source": inputs}, output)
        console.print(f"{output} is prepared already, with the same settings.", highlight=False, markup=False)
        return
    prepared = prepare_rows(
        source.rows, file, name=file.name.split(".")[0], source=chosen.source, columns=columns, boxed=not keep_prompts
    )
    subsets = coverage_subsets(prepared.problems, wanted, rows=rows, seed=seed)
    prepare_output(output, if_exists, kind="coverage")
    block = provenance(seed=seed)
    write_json(output / MANIFEST, {"schema_version": SCHEMA_VERSION, "kind": "coverage", "provenance": block})
    written = {
        name: {"rows": len(subset), "problems": len({row["problem_id"] for row in subset})}
        for name, subset in subsets.items()
    }
    for name, subset in subsets.items():
        write_jsonl(output / f"{name}.jsonl", subset)
    report = {"source": inputs, "report": prepared.report.as_dict(), "subsets": written}
    head = {"schema_version": SCHEMA_VERSION, "kind": "coverage", "settings": settings}
    write_json(output / "coverage.json", {**head, **report, "provenance": block})
    _show_report(prepared.report)
    for name, what in written.items():
        line = f"{output / name}.jsonl: {what['rows']} rows, {what['problems']} different problems"
        console.print(line, highlight=False, markup=False)


def _check_same(recorded: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    changed = [
        f"{key} {old!r} → {new!r}"
        for block, values in now.items()
        for key, new in values.items()
        if (old := recorded.get(block, {}).get(key)) != new
    ]
    if changed:
        raise OutputError(
            f"{folder} was prepared with other settings ({', '.join(changed)}). Nothing was changed. Repeat the old "
            "settings, give another folder, or add --if-exists overwrite."
        )


def _say_rows(number: int) -> None:
    if number % (50 * 4096) == 0:
        console.print(f"{number:,} rows read", highlight=False)


def _show_report(report: Report) -> None:
    console.print(f"{report.rows_read} rows read, {report.kept} problems kept", highlight=False)
    for reason, what in report.dropped.items():
        console.print(f"dropped {what['count']}: {reason}", highlight=False, markup=False)
        for example in what["examples"]:
            detail = f" ({example['detail']})" if "detail" in example else ""
            console.print(f"  row {example['row']}{detail}: {example['prompt']}", highlight=False, markup=False)
