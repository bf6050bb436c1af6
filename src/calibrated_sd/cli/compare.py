"""`csd compare`: is the second run better than the first, question by question?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from calibrated_sd.cli.console import IfExists, console, error_console, quiet_libraries
from calibrated_sd.errors import ConfigError


def compare_command(
    a: Annotated[Path, typer.Argument(metavar="A", help="The run to compare with: a folder or a .jsonl file.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The other run.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder for comparison.json; by default nothing is written.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    if_exists: IfExists = "raise",
    tokenizer: Annotated[
        str | None, typer.Option(help="For lm-eval's files: tokenizer that counts tokens (folder or id); else words.")
    ] = None,
    filter_name: Annotated[
        str | None, typer.Option("--filter", help="For lm-eval's files: the filter whose verdict counts.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="For lm-eval's files: the metric that says whether an answer is right.")
    ] = None,
    grader: Annotated[
        str | None, typer.Option(help="For lm-eval's files: grade again: boxed, math-verify or stated.")
    ] = None,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples and random exchanges of the arms.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of both.")] = 0,
) -> None:
    """Compare two runs on the same problems: B − A for every metric, paired by question, with intervals and tests.

    A run is a folder of `csd evaluate`, a completions.jsonl, or what lm-eval writes with --log_samples. Both must have
    seen the same prompts and have the same number of samples per question. The p-values of a fixed family of metrics are
    adjusted together (Holm); accuracy is the primary one.

    Examples:

      csd compare outputs/base outputs/sdpo --output outputs/base_vs_sdpo

      csd compare lm_eval/base lm_eval/sdpo --tokenizer Qwen/Qwen3-1.7B --filter flexible-extract --json
    """
    quiet_libraries()
    from rich.console import Console

    from calibrated_sd.evaluation.compare import compare_runs
    from calibrated_sd.evaluation.run_files import read_run
    from calibrated_sd.records import MANIFEST, SCHEMA_VERSION, check_output, prepare_output, write_json

    if resamples < 1:
        raise ConfigError(f"--resamples must be at least 1, got {resamples}.")
    if seed < 0:
        raise ConfigError(f"--seed must be a whole number from 0, got {seed}. Give another one.")
    inputs = (a, b, tokenizer)
    if output is not None:
        check_output(output, if_exists, kind="compare", inputs=inputs)
    options = {"tokenizer": _tokenizer(tokenizer), "filter_name": filter_name, "metric": metric, "grader": grader}
    found = compare_runs(read_run(a, **options), read_run(b, **options), n_resamples=resamples, rng=seed)
    settings = {"a": a, "b": b, "tokenizer": tokenizer, "filter": filter_name, "metric": metric, "grader": grader}
    document = {
        "schema_version": SCHEMA_VERSION,
        "kind": "compare",
        "settings": {**settings, "resamples": resamples, "seed": seed},
        **found,
    }
    if output is not None:
        from calibrated_sd.experiments.provenance import provenance

        document["provenance"] = provenance(seed=seed)
        prepare_output(output, if_exists, kind="compare", inputs=inputs)
        write_json(output / MANIFEST, {key: document[key] for key in ("schema_version", "kind", "settings")})
        write_json(output / "comparison.json", document)
    for warning in found["warnings"]:
        error_console.print(f"Warning: {warning}", markup=False, highlight=False)
    if as_json:
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))
        return
    wide = console if console.is_terminal else Console(width=200)  # a pipe has no width: no cell is folded there
    for suite, compared in found["suites"].items():
        wide.print(_table(suite, compared, with_interval=wide.width >= 130))
    console.print(
        f"A = {a}, B = {b}. ± is half of the 95 % interval; intervals, tests and what they cover: "
        f"{output / 'comparison.json' if output else '--json or --output'}.",
        markup=False,
        highlight=False,
    )


def _tokenizer(name: str | None) -> Any:
    if name is None:
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"The tokenizer {name} cannot be loaded ({' '.join(str(error).split())[:200]}). Give its folder or Hub id."
        ) from error


def _table(suite: str, compared: dict[str, Any], with_interval: bool) -> Any:
    from rich.table import Table

    title = f"{suite}: {compared['n_questions']} questions × {compared['samples']}, B − A"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("metric", no_wrap=True)
    headings = ["A", "B", "B − A", *(["95 % interval"] if with_interval else []), "p", "p (Holm)"]
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("unit")
    for name, row in compared["metrics"].items():
        shown = row["difference"]
        unit = shown["unit"] if compared["length_unit"] == "tokens" else shown["unit"].replace("tokens", "words")
        if shown["n"] < compared["n_questions"]:
            unit += f" ({shown['n']} questions)"
        interval = "" if shown["lo"] is None else f"[{shown['lo']:+.3g}, {_number(shown['hi'], '+')}]"
        values = [_with_error(row["a"]), _with_error(row["b"]), _with_error(shown, "+")]
        tests = [_p(row["p_value"]), _p(row["p_holm"])]
        table.add_row(name, *values, *([interval] if with_interval else []), *tests, unit)
    return table


def _with_error(shown: dict[str, Any], sign: str = "") -> str:
    if shown["value"] is None:
        return ""
    if shown["lo"] is None or shown["hi"] is None:
        return f"{shown['value']:{sign}.3g}"
    return f"{shown['value']:{sign}.3g} ± {(shown['hi'] - shown['lo']) / 2:.2g}"


def _number(value: float | None, sign: str = "") -> str:
    return "∞" if value is None else f"{value:{sign}.3g}"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}" if value >= 0.001 else "< 0.001"
