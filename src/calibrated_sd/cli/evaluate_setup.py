"""What `csd evaluate` checks and works out before anything is written: the model, the problems, the settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibrated_sd.cli.console import console
from calibrated_sd.errors import ConfigError, DataError, OutputError
from calibrated_sd.organism.species import SPECIES

if TYPE_CHECKING:
    from calibrated_sd.evaluation.engines import EngineSettings

DEFAULTS: dict[str, Any] = {"n": 16, "max_new_tokens": 256, "temperature": 1.0, "top_p": 1.0, "grader": "boxed"}
"""Used where neither an option nor the suite's definition says anything."""
DECIDING = (
    *("model", "adapter", "suite", "n", "backend", "max_new_tokens", "temperature", "top_p", "thinking", "seed"),
    *("batch_size", "batch_tokens", "cache", "dtype", "grader", "arm", "limit", "prompt_column", "answer_column"),
)
"""Settings that decide what is sampled: a folder is only continued with the same ones."""


def check_same_settings(manifest: Mapping[str, Any], settings: Mapping[str, Any], output: Path) -> None:
    """Raise OutputError where a folder cannot be continued with these settings."""
    if manifest.get("kind") != "evaluate":
        raise OutputError(
            f"{output} was written by csd {manifest.get('kind')}, not by csd evaluate. Nothing was changed. Give "
            "another folder."
        )
    old = manifest.get("settings", {})
    changed = [f"{key} {old.get(key)!r} → {settings[key]!r}" for key in DECIDING if old.get(key) != settings[key]]
    if changed:
        raise OutputError(
            f"{output} was started with other settings ({', '.join(changed)}), so it cannot be continued. Nothing was "
            "changed. Repeat the old settings, give another folder, or add --if-exists overwrite."
        )


def suite_file(suite: str, data_dir: str) -> Path | None:
    """The problem file of a suite: a file, the folder of a prepared suite, or a prepared suite's name.

    None for the organism's suites, which are made, not read.
    """
    if suite.partition(":")[0] in SPECIES:
        return None
    path = Path(suite)
    if path.suffix and not path.is_dir():
        return path
    if (path / "problems.jsonl").is_file():
        return path / "problems.jsonl"
    if path.is_dir() or path.name != suite:
        raise DataError(
            f"{suite} is no problem file (.jsonl, .json, .csv, .parquet) and no folder of a prepared suite (with a "
            "problems.jsonl). Give one of them, or the name of a suite that csd data prepared."
        )
    from calibrated_sd.data.suites import find_suite

    return find_suite(suite, data_dir)


def load_suite_problems(settings: Mapping[str, Any], file: Path | None) -> list[Any]:
    """The problems of ``settings["suite"]``, at most ``settings["limit"]`` of each suite."""
    limit = settings["limit"]
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit must be at least 1, got {limit}.")
    if file is None:
        from calibrated_sd.organism.suites import load_suite

        name, _, part = settings["suite"].partition(":")
        return load_suite(part or name, organism=name, **({} if limit is None else {"n": limit}))
    from calibrated_sd.evaluation.datasets import load_problems

    columns = {key: settings[f"{key}_column"] for key in ("prompt", "answer") if settings[f"{key}_column"]}
    name = file.parent.name if file.name == "problems.jsonl" else None  # a prepared suite is called like its folder
    return list(load_problems(file, columns=columns, limit=limit, suite=name))


def effective_settings(given: Mapping[str, Any], file: Path | None, folder: str) -> dict[str, Any]:
    """Settings without a gap: options first, then the suite's own definition, then ``DEFAULTS``.

    A suite that was prepared from a benchmark states n, grader and two sets of sampling settings, for models that think
    and for those that do not. Without ``--thinking`` or ``--no-thinking`` the model's chat template decides: with a
    ``<think>`` in it, the model thinks.
    """
    settings = dict(given)
    definition = None
    if file is not None and file.name == "problems.jsonl":
        from calibrated_sd.data.suites import suite_definition

        definition = suite_definition(str(file))
    if definition is not None:
        thinks = settings["thinking"]
        if thinks is None:
            thinks = "<think>" in chat_template(folder)
        sampled = definition.sampling["thinking" if thinks else "no_thinking"]
        stated = {"n": definition.n, "grader": definition.grader}
        stated |= {key: getattr(sampled, key) for key in ("max_new_tokens", "temperature", "top_p")}
        settings |= {key: value for key, value in stated.items() if settings[key] is None}
    settings |= {key: value for key, value in DEFAULTS.items() if settings[key] is None}
    if settings["thinking"] is not None and "enable_thinking" not in chat_template(folder):
        console.print(
            "The model's chat template has no switch enable_thinking, so --thinking and --no-thinking change only the "
            "suite's sampling settings.",
            highlight=False,
        )
    return settings


def chat_template(folder: str) -> str:
    """The model's chat template, all of them together if it has several; empty if it has none."""
    from transformers import AutoTokenizer

    try:
        template = AutoTokenizer.from_pretrained(folder).chat_template
    except (OSError, ValueError, KeyError):  # loading it for use reports this properly
        return ""
    return "\n".join(template.values()) if isinstance(template, dict) else template or ""


def check_sampling(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError for numbers out of range, or a grader that cannot be had, before a model is loaded."""
    from calibrated_sd.evaluation.generate import Sampling
    from calibrated_sd.evaluation.grading_pool import GradingPool

    for name in ("n", "batch_size"):
        if settings[name] < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {settings[name]}.")
    Sampling(settings["max_new_tokens"], settings["temperature"], settings["top_p"], settings["seed"])
    GradingPool(settings["grader"], settings["grading_workers"])  # starts no process, but loads the grader


def engine_settings(settings: Mapping[str, Any], folder: str) -> EngineSettings:
    """The part of the settings that says what is loaded, and how."""
    from calibrated_sd.evaluation.engines import EngineSettings

    shared = ("backend", "adapter", "dtype", "cache", "batch_tokens", "data_parallel", "tensor_parallel", "seed")
    vllm_only = ("gpu_memory_utilization", "max_model_len", "enforce_eager")
    return EngineSettings(model=folder, **{key: settings[key] for key in (*shared, *vllm_only)})


def adapter_note(adapter: str | None, model: str) -> dict[str, Any] | None:
    """What to record about an adapter; says so where PEFT noted another base model."""
    if adapter is None:
        return None
    from calibrated_sd.evaluation.lora import read_adapter

    found = read_adapter(adapter)
    if found.base_model is not None and Path(found.base_model).name != Path(model).name:
        console.print(
            f"The adapter was trained on {found.base_model}; the model is {model}. Make sure that they are the same.",
            highlight=False,
        )
    return {"sha256": found.sha256, "rank": found.rank, "base_model": found.base_model}
