"""`csd off-policy`: SFT data sets with and without doubt from a ladder, and controls of length and tokens (Table 2)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from calibrated_sd.cli.console import IfExists, console, error_console, quiet_libraries
from calibrated_sd.errors import ConfigError, DataError


def off_policy_command(
    ladder: Annotated[Path, typer.Argument(help="Folder written by csd ladder, with levels none and solution.")],
    output: Annotated[Path, typer.Option(help="Folder for the data sets (.jsonl) and report.json.")],
    n: Annotated[int, typer.Option(help="Pairs at most (paper: 800); one per problem, in file order.")] = 800,
    guided: Annotated[str, typer.Option(help="Level whose answers are D_sg.")] = "solution",
    length_tolerance: Annotated[
        float | None,
        typer.Option(help="Length-matched pairs: leave out those whose lengths differ by a larger share."),
    ] = None,
    add_instruction: Annotated[
        bool, typer.Option("--add-instruction", help="Append the boxed instruction where a prompt mentions no box.")
    ] = False,
    whole_chats: Annotated[
        bool,
        typer.Option(
            "--whole-chats",
            help="For trainers that render whole chats, as TRL's own: answers begin with the <think> of the template.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Picks the examples of a token-matched subset.")] = 0,
    if_exists: IfExists = "raise",
) -> None:
    """Write D_ug (right answers without context) and D_sg (with a solution in the prompt), and matched controls.

    Examples:

      csd off-policy outputs/ladder --output outputs/off-policy

      csd off-policy outputs/ladder-ds7b --n 800 --length-tolerance 0.2 --output outputs/off-policy-ds7b
    """
    quiet_libraries()
    from calibrated_sd.context_analysis.ladder import PROBLEMS, SCREEN
    from calibrated_sd.context_analysis.ladder_prompts import LEVELS
    from calibrated_sd.context_analysis.off_policy import as_rows, build_off_policy
    from calibrated_sd.context_analysis.off_policy_report import off_policy_figures
    from calibrated_sd.context_analysis.selection import problem_key
    from calibrated_sd.errors import unknown_name
    from calibrated_sd.experiments.provenance import provenance
    from calibrated_sd.records import (
        MANIFEST,
        SCHEMA_VERSION,
        check_output,
        prepare_output,
        read_completions,
        read_jsonl,
        read_object,
        write_json,
        write_jsonl,
    )

    if n < 1:
        raise ConfigError(f"--n must be at least 1, got {n}.")
    if length_tolerance is not None and not 0 <= length_tolerance < 1:
        raise ConfigError(f"--length-tolerance must lie in [0, 1), got {length_tolerance}. 0.2 = within 20 %.")
    if guided not in LEVELS or guided == "none":
        raise unknown_name("level of guided answers", guided, [level for level in LEVELS if level != "none"])
    check_output(output, if_exists, kind="off-policy", inputs=(ladder,))
    files = {level: ladder / level / "completions.jsonl" for level in ("none", guided)}
    missing = [str(path) for path in (ladder / PROBLEMS, *files.values()) if not path.is_file()]
    if missing:
        raise DataError(
            f"{ladder} lacks {', '.join(missing)}, so it is no finished ladder with the levels none and {guided}. Run csd "
            f"ladder with --levels none,{guided} to its end first."
        )
    problems = read_jsonl(ladder / PROBLEMS)
    wanted = {problem_key(p) for p in problems}
    screened = [r for part in sorted((ladder / SCREEN).glob("part_*.jsonl")) for r in read_completions(part)]
    built = build_off_policy(
        problems,
        [[r for r in screened if problem_key(r) in wanted], read_completions(files["none"])],
        [read_completions(files[guided])],
        n=n,
        seed=seed,
        tolerance=length_tolerance,
    )
    if not built.pairs:
        reasons = ", ".join(f"{why}: {count}" for why, count in built.skipped.items())
        raise DataError(
            f"No problem of {ladder} has a right, finished answer of both kinds ({reasons}; right but cut at the token "
            f"limit: {built.n_cut}). Measure more problems or samples, or raise --max-new-tokens of the ladder."
        )
    by_key = {problem_key(p): p for p in problems}
    sampled = read_object(ladder / MANIFEST, "settings")["settings"]
    tokenizer = _tokenizer(sampled["model"])
    thinking = sampled.get("thinking")
    template_kwargs = {} if thinking is None else {"enable_thinking": thinking}
    opening = _opening(tokenizer, problems[0]["prompt"], template_kwargs) if whole_chats else ""
    rows = {
        name: as_rows(answers, by_key, add_instruction, opening=opening, template_kwargs=template_kwargs)
        for name, answers in built.sets.items()
    }
    settings = {"ladder": str(ladder), "n": n, "guided": guided, "length_tolerance": length_tolerance}
    settings |= {"add_instruction": add_instruction, "whole_chats": whole_chats, "seed": seed}

    prepare_output(output, if_exists, kind="off-policy", inputs=(ladder,))
    write_json(output / MANIFEST, {"schema_version": SCHEMA_VERSION, "kind": "off-policy", "settings": settings})
    for name, lines in rows.items():
        write_jsonl(output / f"{name}.jsonl", lines)
    found = off_policy_figures(built)
    found["lost_by_chat_template"] = lost = _lost_by_template(tokenizer, rows["D_ug"], template_kwargs)
    head = {"schema_version": SCHEMA_VERSION, "kind": "off-policy", "settings": settings}
    write_json(output / "report.json", {**head, **found, "provenance": provenance(seed=seed)})
    _show(found, output)
    if lost:
        error_console.print(
            f"The model's chat template drops the thinking of {lost} of {len(rows['D_ug'])} answers in D_ug. csd train "
            "keeps it. TRL's own SFT renders whole chats: there, set chat_template_path to a template that keeps it (TRL "
            "ships some that end in _training.jinja), and write the data with --whole-chats.",
            markup=False,
            highlight=False,
        )


def _tokenizer(model: str) -> Any:
    """The tokenizer of the ladder's model, or None if it is not on this machine."""
    from transformers import AutoTokenizer

    from calibrated_sd.cli.models import model_folder

    try:
        return AutoTokenizer.from_pretrained(model_folder(model), local_files_only=True)
    except (OSError, ValueError, KeyError):
        return None


def _opening(tokenizer: Any, prompt: Any, template_kwargs: dict[str, Any]) -> str:
    """The ``<think>`` (and blanks) with which the template ends a prompt; empty where it does not."""
    if tokenizer is None or isinstance(prompt, str):
        return ""
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **template_kwargs)
    found = re.search(r"<think>\s*\Z", text)
    return found.group() if found else ""


def _lost_by_template(tokenizer: Any, rows: list[dict[str, Any]], template_kwargs: dict[str, Any]) -> int | None:
    """How many chats lose part of their answer when the model's template renders them; None without a tokenizer."""
    if isinstance(rows[0]["prompt"], str):
        return 0
    if tokenizer is None:
        return None
    chats = [[*row["prompt"], *row["completion"]] for row in rows]
    texts = [tokenizer.apply_chat_template(chat, tokenize=False, **template_kwargs) for chat in chats]
    return sum(chat[-1]["content"].strip() not in text for chat, text in zip(chats, texts, strict=True))


def _show(found: dict[str, Any], output: Path) -> None:
    from rich.table import Table

    from calibrated_sd.context_analysis.ladder_table import interval_text

    table = Table(title="Data sets; 95 % intervals over problems", title_justify="left", title_style="bold")
    for heading in ("file", "examples", "problems", "tokens", "length", "E(y)", "E per 1k"):
        table.add_column(heading)
    for name, shown in found["sets"].items():
        figures = [interval_text(shown[k]) for k in ("n_tokens", "legacy_per_response", "legacy_per_1k")]
        table.add_row(name, *(f"{shown[k]:,}" for k in ("examples", "problems", "tokens")), *figures)
    console.print(table)
    matched = found["length_matched"]
    parts = [f"length-matched: D_ug − D_sg = {interval_text(matched['n_tokens_difference'])} tokens"]
    parts += [f"{name}: {m['residual_share']:+.1%} tokens" for name, m in found["token_matched"].items()]
    parts += [f"left out, {why}: {count}" for why, count in found["skipped"].items()]
    console.print("; ".join(parts) + f". Files in {output}.", highlight=False, markup=False)
