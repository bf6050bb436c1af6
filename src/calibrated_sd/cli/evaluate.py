"""`csd evaluate`: sample, grade and count, from a checkpoint to figures with intervals."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calibrated_sd.cli.console import IfExists, console, quiet_libraries
from calibrated_sd.errors import ConfigError, DataError, OutputError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable

BACKENDS = ("transformers", "vllm")
ORGANISM = "organism"
# Settings that decide what is sampled: a folder is only continued with the same ones.
_SETTINGS = (
    *("model", "suite", "n", "backend", "max_new_tokens", "temperature", "top_p", "seed", "batch_size"),
    *("grader", "arm", "limit", "prompt_column", "answer_column"),
)


def evaluate_command(
    model: Annotated[str, typer.Option(help="Folder with model and tokenizer, a Hub id, or 'organism'.")],
    suite: Annotated[
        str, typer.Option(help="Problem file (.jsonl .json .csv .parquet), 'organism', or 'organism:SUITE'.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for completions.jsonl and metrics.json.")],
    n: Annotated[int, typer.Option(help="Samples per problem.")] = 16,
    backend: Annotated[
        str, typer.Option(help="transformers, or vllm (for GPUs; this backend is untested on a GPU so far).")
    ] = "transformers",
    if_exists: IfExists = "raise",
    max_new_tokens: Annotated[int, typer.Option(help="Token limit of a completion.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 = always the most likely token.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Sample from the smallest set of tokens with this probability.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the samples; also written into the records.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Rows computed together; lower it when memory runs out.")] = 256,
    grader: Annotated[str, typer.Option(help="boxed (exact) or math-verify (LaTeX expressions).")] = "boxed",
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

      csd evaluate --model Qwen/Qwen3-1.7B --suite aime24.parquet --max-new-tokens 8192 --temperature 0.6 --top-p 0.95
      --grader math-verify --backend vllm --output outputs/aime24
    """
    settings = {key: value for key, value in locals().items() if key in _SETTINGS}
    quiet_libraries()
    from calibrated_sd.evaluation.grading import get_grader
    from calibrated_sd.experiments.provenance import provenance
    from calibrated_sd.records import MANIFEST, SCHEMA_VERSION, check_output, prepare_output, read_json, write_json

    # Everything that can be wrong is checked, the quick things first, before anything is written or deleted.
    _check_settings(settings)
    get_grader(grader)
    manifest = check_output(output, if_exists) / MANIFEST
    if if_exists == "resume" and manifest.is_file():
        _check_same_settings(read_json(manifest), settings, output)
    folder = _model_folder(model)
    problems = _problems(settings)
    weights, tokenizer, config, sample = (_vllm if backend == "vllm" else _transformers)(folder, settings)

    from calibrated_sd.evaluation.generate import check_prompts

    check_prompts(config, tokenizer, problems, max_new_tokens)

    prepare_output(output, if_exists)
    write_json(manifest, {"schema_version": SCHEMA_VERSION, "kind": "evaluate", "settings": settings})

    from calibrated_sd.evaluation.completions import record_completions
    from calibrated_sd.evaluation.metrics import summarise

    since = time.monotonic()
    with _Progress(n * len(problems)) as progress:
        records = record_completions(
            weights,
            tokenizer,
            problems,
            output / "completions.jsonl",
            n=n,
            arm=arm,
            seed=seed,
            grader=grader,
            backend=sample,
            on_progress=progress.update,
            **{key: settings[key] for key in ("max_new_tokens", "temperature", "top_p", "batch_size")},
        )
    suites = dict.fromkeys(p["suite"] for p in problems)
    figures = {name: summarise([r for r in records if r["suite"] == name]) for name in suites}
    block = provenance(seed=seed, model_path=folder, wall_time_s=time.monotonic() - since)
    metrics = {"schema_version": SCHEMA_VERSION, "kind": "evaluate", "settings": settings, "suites": figures}
    write_json(output / "metrics.json", {**metrics, "provenance": block})
    _show(figures, len(records), output)


def _check_settings(settings: dict[str, Any]) -> None:
    from calibrated_sd.evaluation.generate import Sampling

    if settings["backend"] not in BACKENDS:
        raise unknown_name("backend", settings["backend"], BACKENDS)
    for name in ("n", "batch_size"):
        if settings[name] < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {settings[name]}.")
    Sampling(settings["max_new_tokens"], settings["temperature"], settings["top_p"], settings["seed"])


def _check_same_settings(manifest: dict[str, Any], settings: dict[str, Any], output: Path) -> None:
    if manifest.get("kind") != "evaluate":
        raise OutputError(
            f"{output} was written by csd {manifest.get('kind')}, not by csd evaluate. Nothing was changed. Give "
            "another folder."
        )
    old = manifest.get("settings", {})
    changed = [f"{key} {old.get(key)!r} → {settings[key]!r}" for key in settings if old.get(key) != settings[key]]
    if changed:
        raise OutputError(
            f"{output} was started with other settings ({', '.join(changed)}), so it cannot be continued. Nothing was "
            "changed. Repeat the old settings, give another folder, or add --if-exists overwrite."
        )


def _model_folder(model: str) -> str:
    """Where the weights are: a checked local folder, or a Hub id as it stands."""
    if model == ORGANISM:
        from calibrated_sd.organism.checkpoint import organism_path

        return str(organism_path())
    folder = Path(model)
    if not folder.is_dir():
        if model.count("/") == 1 and not model.startswith((".", "/", "~")):
            return model  # looks like OWNER/NAME
        raise ConfigError(f"There is no model folder {model}. Give a folder, a Hub id like OWNER/NAME, or 'organism'.")
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} has no config.json, so it is no model folder. Give the folder of save_pretrained.")
    names = {entry.name for entry in folder.iterdir()}
    if not names & {"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt"}:
        raise ConfigError(
            f"{folder} holds a model but no tokenizer (no tokenizer.json). Save the tokenizer there with "
            f"tokenizer.save_pretrained({str(folder)!r}), or give a folder that has both."
        )
    return str(folder)


def _problems(settings: dict[str, Any]) -> list[Any]:
    suite, limit = settings["suite"], settings["limit"]
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {limit}.")
    name, _, part = suite.partition(":")
    if name == ORGANISM:
        from calibrated_sd.organism.suites import load_suite

        return load_suite(part or ORGANISM, **({} if limit is None else {"n": limit}))
    if not Path(suite).suffix:
        raise DataError(
            f"There is no suite {suite!r}: give a problem file (.jsonl, .json, .csv, .parquet), 'organism' or "
            "'organism:SUITE'. Benchmarks are not shipped; download their file first."
        )
    from calibrated_sd.evaluation.datasets import load_problems

    columns = {key: settings[f"{key}_column"] for key in ("prompt", "answer") if settings[f"{key}_column"]}
    return list(load_problems(suite, columns=columns, limit=limit))


def _load(what: str, folder: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"The {what} of {folder} cannot be loaded ({' '.join(str(error).split())[:300]}). "
            + (
                "Is the folder complete?"
                if Path(folder).is_dir()
                else "No such folder exists here; is the Hub id right?"
            )
        ) from error


def _transformers(folder: str, settings: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Model, tokenizer, the model's configuration, and the function that samples."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    from calibrated_sd.evaluation.generate import iter_completions

    disable_progress_bar()  # one bar is enough
    gpu = torch.cuda.is_available()
    tokenizer = _load("tokenizer", folder, lambda: AutoTokenizer.from_pretrained(folder))
    # Half precision is slower than float32 on CPUs without matrix instructions for it.
    dtype = torch.bfloat16 if gpu else torch.float32
    model = _load("model", folder, lambda: AutoModelForCausalLM.from_pretrained(folder, dtype=dtype))
    return model.to("cuda" if gpu else "cpu"), tokenizer, model.config, iter_completions


def _vllm(folder: str, settings: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """As :func:`_transformers`, with a ``vllm.LLM`` as the model."""
    from calibrated_sd.evaluation.vllm_backend import import_vllm, iter_completions_vllm

    vllm = import_vllm()
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = _load("tokenizer", folder, lambda: AutoTokenizer.from_pretrained(folder))
    config = _load("configuration", folder, lambda: AutoConfig.from_pretrained(folder))
    llm = _load("model", folder, lambda: vllm.LLM(model=folder, seed=settings["seed"]))
    return llm, tokenizer, config, iter_completions_vllm


class _Progress:
    """A progress bar on a terminal; elsewhere one plain line per tenth of the work."""

    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("completions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task("completions", total=total)
        self.shown = -1

    def __enter__(self) -> _Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, done: int, total: int) -> None:
        self.bar.update(self.task, completed=done)
        if not console.is_terminal and (tenth := 10 * done // max(total, 1)) > self.shown:
            self.shown = tenth
            console.print(f"completions {done}/{total}", highlight=False)


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
