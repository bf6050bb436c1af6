"""One prompt as student and teacher read it, with its markers, and the lengths of all prompts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrated_sd.cli.console import console
from calibrated_sd.errors import CalibratedSDError

MEASURED = 512
"""At most so many prompts are measured: the longest by characters, and others evenly spaced."""
SHOWN_CHARACTERS = 2000
ROLLOUT = "(a successful rollout of the same problem)"


@dataclass(frozen=True)
class Lengths:
    """Lengths of the prompts, in `unit`."""

    shortest: int
    median: int
    longest: int
    unit: str


class Tokens:
    """The model's tokenizer where it is at hand.

    Attributes:
        tokenizer: None where it is not on this machine; messages are then shown as they are.
        why: what is missing, for the reader.
    """

    def __init__(self, tokenizer: Any, why: str, arguments: Mapping[str, Any] | None):
        self.tokenizer, self.why, self.arguments = tokenizer, why, dict(arguments or {})

    @classmethod
    def of(cls, model: str, arguments: Any) -> Tokens:
        """The tokenizer of a folder or of the local Hub cache; nothing is fetched."""
        from transformers import AutoTokenizer

        given = arguments if isinstance(arguments, Mapping) else None
        names = {"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json"}
        if Path(model).is_dir() and not any((Path(model) / name).is_file() for name in names):
            return cls(None, f"{model} holds no tokenizer", given)
        try:
            tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
        except (OSError, ValueError, KeyError):
            return cls(None, f"the tokenizer of {model} is not on this machine", given)
        if not tokenizer.chat_template:
            return cls(None, f"the tokenizer of {model} has no chat template", given)
        return cls(tokenizer, "", given)

    def text(self, messages: Any, more: Mapping[str, Any] | None = None) -> str:
        """A prompt as the model reads it, or its messages; `more` goes on top of the chat template's arguments."""
        if isinstance(messages, str):
            return messages
        if self.tokenizer is None:
            return "\n".join(f"[{m['role']}] {m['content']}" for m in messages)
        return self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, **{**self.arguments, **(more or {})}
        )

    def count(self, text: str) -> int | None:
        """Tokens of a text; None without a tokenizer."""
        if self.tokenizer is None:
            return None
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt_lengths(self, rows: Sequence[Mapping[str, Any]]) -> Lengths | None:
        """Lengths of the prompts in tokens; None without a tokenizer."""
        if self.tokenizer is None:
            return None
        texts = sorted((self.text(row["prompt"]) for row in rows), key=len)
        step = max(1, len(texts) * 2 // MEASURED)
        chosen = texts if len(texts) <= MEASURED else [*texts[::step], *texts[-MEASURED // 2 :]]
        counts = [len(ids) for ids in self.tokenizer(chosen, add_special_tokens=False)["input_ids"]]
        spaced = counts if len(texts) <= MEASURED else counts[: len(texts[::step])]
        return Lengths(min(counts), int(statistics.median(spaced)), max(counts), "tokens")


def show_prompts(run: Any, settings: Any, row: Mapping[str, Any], tokens: Tokens) -> None:
    """Print one problem as student and teacher read it."""
    from calibrated_sd.markers import MarkerSet

    markers = MarkerSet.load(getattr(settings, "calibration_markers", "lexical"))
    if tokens.tokenizer is None:
        console.print(f"\nMessages are shown without a chat template: {tokens.why}.", highlight=False, markup=False)
    _show("student reads", tokens.text(row["prompt"]), tokens, markers)
    if run.trainer == "sft":
        completion = row.get("completion")
        if completion:
            text = completion if isinstance(completion, str) else completion[-1]["content"]
            _show("and learns to write", text, tokens, markers)
        return
    if run.trainer == "grpo":
        return
    more = getattr(settings, "teacher_chat_template_kwargs", None)
    more = more if isinstance(more, Mapping) else None
    for name, prompt in teacher_prompts(run, settings, row).items():
        if prompt is None:
            console.print(
                f"\nteacher reads ({name}): this problem has no material for it.", highlight=False, markup=False
            )
        else:
            _show(f"teacher reads ({name})", tokens.text(prompt, more), tokens, markers)


def teacher_prompts(run: Any, settings: Any, row: Mapping[str, Any]) -> dict[str, Any]:
    """The teacher's prompt under each context level, made as the trainer makes it; None where the problem lacks material."""
    from calibrated_sd.contexts import CONTEXTS, parse_levels
    from calibrated_sd.trainers.teacher_context.prompts import compose_privileged, compose_reprompt

    compose = compose_reprompt if run.trainer == "sdpo" else compose_privileged
    given = getattr(settings, "context_levels", None)
    levels = list(parse_levels(given)) if given else ["rollout" if run.trainer == "sdpo" else "solution"]
    prompts: dict[str, Any] = {}
    for level in levels:
        if CONTEXTS[level].is_free:
            prompts[level] = row["prompt"]
            continue
        shown = _demonstration(run, settings, row, level)
        question = row["prompt"][-1]["content"]
        text = compose(settings, question, shown, "") if shown else None
        prompts[level] = [*row["prompt"][:-1], {"role": "user", "content": text}] if text else None
    return prompts


def _demonstration(run: Any, settings: Any, row: Mapping[str, Any], level: str) -> str:
    """What a level shows of this problem; a stand-in where that is sampled in training; empty where there is none."""
    from calibrated_sd.context_analysis.prompts import context_sources
    from calibrated_sd.contexts import CONTEXTS

    shortened = level in ("stripped", "answer", "hint") and getattr(settings, "context_demo", "rollout") == "rollout"
    if run.trainer == "sdpo" and level == "rollout":
        return ROLLOUT
    if run.trainer == "sdpo" and shortened:
        return f"{ROLLOUT[:-1]}, as {level!r} leaves it)"
    if row.get("privileged_context") and not getattr(settings, "context_levels", None):
        return str(row["privileged_context"])
    try:
        return CONTEXTS[level].demonstration(context_sources([{"problem_id": "0", **row}])[0]) or ""
    except (CalibratedSDError, KeyError):
        return ""


def _show(title: str, text: str, tokens: Tokens, markers: Any) -> None:
    from rich.text import Text

    from calibrated_sd.markers import find_spans

    spans = find_spans(text, markers)
    count = tokens.count(text)
    length = "" if count is None else f"{count} tokens, "
    hits = ", ".join(dict.fromkeys(span.phrase for span in spans))
    console.print(
        f"\n{title}: {length}{len(spans)} marker{'' if len(spans) == 1 else 's'}{f' ({hits})' if hits else ''}",
        style="bold",
        highlight=False,
        markup=False,
    )
    printed = Text(text)
    for span in spans:
        printed.stylize("reverse bold", span.start, span.end)
    if len(text) > SHOWN_CHARACTERS:
        half = SHOWN_CHARACTERS // 2
        printed = printed[:half] + Text(f"\n… {len(text) - SHOWN_CHARACTERS} characters left out …\n") + printed[-half:]
    console.print(printed, highlight=False)
