"""Rows for SFT: a prompt and what the model is to write after it, token for token as it writes it itself.

Many chat templates cut the thinking out of an assistant's turn, because they are made for histories. A completion that
goes through one would be learnt without its reasoning. So the template renders the prompt only; the completion follows
as it is, and ends with the end-of-turn token.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.organism.species import SPECIES

COMPLETION = "completion"


def sft_rows(path: str, n: int | None = None) -> list[dict[str, Any]]:
    """Prompt and completion of every row of a file, as chats.

    Args:
        path: a file with the columns `prompt` and `completion` (texts or message lists), as `csd off-policy` writes it;
            or a problem file whose `solution` is then the completion. Any format that problems come in.
        n: only the first so many.

    Raises:
        DataError: no file, or neither completions nor solutions in it; an empty completion.
    """
    if path in SPECIES:
        raise DataError(
            "trainer='sft' learns written answers, and the organism's problems have none. Give a file with prompts and "
            "completions as `problems`, e.g. one that `csd off-policy` wrote."
        )
    rows = _with_completions(path)
    if rows is None:
        rows = _worked_solutions(path)
    return [_row(row, f"{path}, row {i + 1}") for i, row in enumerate(rows[:n])]


def _with_completions(path: str) -> list[dict[str, Any]] | None:
    """Rows of a file with completions; None for any other file."""
    from calibrated_sd.evaluation.problem_files import iter_rows

    rows = list(iter_rows(Path(path)))
    return rows if any(COMPLETION in row for row in rows) else None


def _worked_solutions(path: str) -> list[dict[str, Any]]:
    from calibrated_sd.evaluation.datasets import load_problems

    problems: Sequence[Mapping[str, Any]] = load_problems(path)
    if not all(problem.get("solution") for problem in problems):
        raise DataError(
            f"{path} has neither a column 'completion' nor a 'solution' in every row, so there is nothing to learn with "
            "trainer='sft'. Add one of them, or make completions with `csd ladder` and `csd off-policy`."
        )
    return [{"prompt": problem["prompt"], COMPLETION: problem["solution"]} for problem in problems]


def _row(row: Mapping[str, Any], place: str) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, role in (("prompt", "user"), (COMPLETION, "assistant")):
        value = row.get(key)
        kept[key] = [{"role": role, "content": value}] if isinstance(value, str) else value
        messages = kept[key]
        if not isinstance(messages, list) or not messages or not str(messages[-1].get("content") or "").strip():
            raise DataError(f"{place}: the {key} is empty or no text. Fill it in, or delete the row.")
    if len(kept[COMPLETION]) != 1:
        raise DataError(f"{place}: the completion has {len(kept[COMPLETION])} messages. Give one assistant message.")
    return {**kept, "finish_reason": row.get("finish_reason") or "stop"}


def encode_rows(
    rows: Sequence[Mapping[str, Any]], tokenizer: Any, template_kwargs: Mapping[str, Any] | None, max_length: int | None
) -> list[dict[str, list[int]]]:
    """`input_ids` and `labels` of rows as `sft_rows` gives them; prompts have the label −100.

    A completion that was cut off while it was sampled (`finish_reason` ``"length"``) gets no end-of-turn token.

    Args:
        rows: prompts and completions.
        tokenizer: with a chat template.
        template_kwargs: arguments for the template, e.g. ``{"enable_thinking": True}``.
        max_length: tokens that training will keep of a row, for a warning: what is cut loses its end-of-turn token, and
            a model that never sees one learns not to stop.

    Raises:
        ConfigError: a tokenizer without chat template or end-of-turn token.
    """
    if not getattr(tokenizer, "chat_template", None) or tokenizer.eos_token_id is None:
        raise ConfigError(
            "trainer='sft' renders prompts with the model's chat template, but this tokenizer lacks a chat template or "
            "an end-of-turn token. Use an instruction-tuned model, or save a tokenizer with both beside the weights."
        )
    encoded = []
    for row in rows:
        prompt = tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, tokenize=True, return_dict=True, **(template_kwargs or {})
        )["input_ids"]
        answer = tokenizer(row[COMPLETION][0]["content"], add_special_tokens=False)["input_ids"]
        end = [] if row.get("finish_reason") == "length" else [tokenizer.eos_token_id]
        encoded.append({"input_ids": [*prompt, *answer, *end], "labels": [-100] * len(prompt) + [*answer, *end]})
    cut = 0 if max_length is None else sum(len(row["input_ids"]) > max_length for row in encoded)
    if cut:
        longest = max(len(row["input_ids"]) for row in encoded)
        warnings.warn(
            f"{cut} of {len(encoded)} rows are longer than max_length={max_length} (the longest has {longest} tokens): "
            "they lose their end, with the end-of-turn token, and such a model learns not to stop. Raise max_length.",
            stacklevel=2,
        )
    return encoded
