"""Texts as safe HTML: markers of doubt highlighted, teacher suppression per token as colour.

Completions are untrusted. Everything here escapes the text piece by piece and returns `Markup` only for tags of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from calibrated_sd.markers.counting import find_spans
from calibrated_sd.markers.lexicon import MarkerSet
from calibrated_sd.reports.folder import BASE, ReproduceFolder

MAX_CHARACTERS = 4000
MAX_TOKENS = 500
MAX_ROLLOUTS = 5
SHADES = 8
"""Steps of colour on each side of the scale."""
LEVELS = {
    "none": "∅: nothing",
    "stripped": "c = s∖think: the solution without its thinking",
    "regenerated": "c = ỹ: an answer rewritten with the solution in view",
    "solution": "c = s: the full solution",
    "rollout": "c = a successful rollout of the same group",
}
"""Context level → what the teacher saw, from poor to rich."""


@dataclass(frozen=True)
class Example:
    """One completion, ready for the page."""

    arm: str
    html: Markup
    correct: bool | None
    n_tokens: int | None
    lexical: int
    held_out: int


@dataclass(frozen=True)
class ExampleProblem:
    """One problem with a completion of each arm."""

    suite: str
    problem_id: str
    problem: str
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Level:
    """A rollout under one teacher context: coloured tokens and the most suppressed ones in words."""

    label: str
    html: Markup
    strongest: str


@dataclass(frozen=True)
class Trace:
    """A base rollout under each context level."""

    problem: str
    answer: str
    levels: tuple[Level, ...]


def mark_doubt(text: str) -> tuple[Markup, int, int]:
    """Escaped text with markers tagged, and the numbers of lexical and of held-out markers (all, also those cut off)."""
    spans = [(span, "held") for span in find_spans(text, MarkerSet.load("held_out"))]
    spans += [(span, "doubt") for span in find_spans(text, MarkerSet.load("lexical"))]
    counts = [sum(kind == wanted for _, kind in spans) for wanted in ("doubt", "held")]
    shown = text[:MAX_CHARACTERS]
    parts, place = [], 0
    # At one place the longer phrase wins: "not sure" is one held-out marker, whatever it contains.
    for span, kind in sorted(spans, key=lambda item: (item[0].start, -item[0].end)):
        if span.start < place or span.end > len(shown):
            continue
        parts += [
            escape(shown[place : span.start]),
            Markup('<mark class="{}">{}</mark>').format(kind, shown[span.start : span.end]),
        ]
        place = span.end
    parts.append(escape(shown[place:]))
    if len(shown) < len(text):
        parts.append(Markup('<span class="cut"> … {} characters left out</span>').format(len(text) - len(shown)))
    return Markup("").join(parts), *counts


def example_problems(folder: ReproduceFolder) -> list[ExampleProblem]:
    """The example completions, grouped by problem, arms in the order of the tables."""
    labels = {arm.name: arm.label for arm in folder.arms}
    order = list(labels)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in folder.examples:
        if isinstance(row.get("completion"), str):
            groups.setdefault((str(row.get("suite")), str(row.get("problem_id"))), []).append(row)
    suites = {suite.name: suite.label for suite in folder.suites}
    problems = []
    for (suite, problem_id), rows in groups.items():
        rows.sort(key=lambda row: order.index(row["arm"]) if row.get("arm") in order else len(order))
        examples = []
        for row in rows:
            html, lexical, held_out = mark_doubt(row["completion"])
            arm = str(row.get("arm", BASE))
            correct = row.get("correct") if isinstance(row.get("correct"), bool) else None
            examples.append(Example(labels.get(arm, arm), html, correct, row.get("n_tokens"), lexical, held_out))
        problem = str(rows[0].get("problem") or problem_id)
        problems.append(ExampleProblem(suites.get(suite, suite), problem_id, problem, tuple(examples)))
    return problems


def color_limit(rows: Iterable[Mapping[str, Any]]) -> int:
    """Nats at which the colour is full: where 98 % of the non-zero log-ratios lie within, between 1 and 6."""
    sizes = sorted(abs(r) for row in rows for r in _ratios(row) if r is not None and abs(r) >= 0.05)
    if not sizes:
        return 1
    return min(6, max(1, math.ceil(sizes[min(len(sizes) - 1, int(0.98 * len(sizes)))])))


def traces(folder: ReproduceFolder, limit: float) -> list[Trace]:
    """The rollouts of ``traces.jsonl``, coloured; `limit` is the log-ratio (nats) with full colour."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in folder.traces:
        if isinstance(row.get("tokens"), list):
            groups.setdefault(str(row.get("id")), []).append(row)
    order = list(LEVELS)
    result = []
    for rows in list(groups.values())[:MAX_ROLLOUTS]:
        rows.sort(
            key=lambda row: order.index(row["context_label"]) if row.get("context_label") in order else len(order)
        )
        levels = tuple(_level(row, limit) for row in rows)
        result.append(Trace(str(rows[0].get("problem", "")), str(rows[0].get("answer", "")), levels))
    return result


def readable(tokens: list[Any]) -> list[str]:
    """Tokens as a reader would write them: byte-level and sentencepiece space signs replaced, words of a word-level
    tokenizer separated by spaces."""
    texts = [str(t).replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n") for t in tokens]
    if not any(" " in text or "\n" in text for text in texts):
        texts = [text if i == 0 else f" {text}" for i, text in enumerate(texts)]
    return texts


def _ratios(row: Mapping[str, Any]) -> list[float | None]:
    ratios = row.get("log_ratio")
    if not isinstance(ratios, list):
        return []
    return [
        float(r) if isinstance(r, (int, float)) and not isinstance(r, bool) and math.isfinite(r) else None
        for r in ratios
    ]


def _level(row: Mapping[str, Any], limit: float) -> Level:
    texts = readable(row["tokens"])
    ratios = _ratios(row)
    flags = row.get("is_marker") if isinstance(row.get("is_marker"), list) else []
    parts = []
    for i, text in enumerate(texts[:MAX_TOKENS]):
        ratio = ratios[i] if i < len(ratios) else None
        classes = ["m"] if i < len(flags) and flags[i] else []
        word = text.lstrip(" ")
        space = text[: len(text) - len(word)]
        if ratio is None:
            title = "no value"
        else:
            title = f"{ratio:+.2f} nats".replace("-", "−")
            shade = min(SHADES, math.ceil(abs(ratio) / limit * SHADES)) if abs(ratio) >= 0.05 else 0
            if shade:
                classes.append(f"{'r' if ratio < 0 else 'b'}{shade}")
        parts.append(
            Markup('{}<span class="{}" title="{}">{}</span>').format(space, " ".join(["t", *classes]), title, word)
        )
    if len(texts) > MAX_TOKENS:
        parts.append(Markup('<span class="cut"> … {} tokens left out</span>').format(len(texts) - MAX_TOKENS))
    pairs = [
        (ratio, text.strip())
        for ratio, text in zip(ratios, texts, strict=False)
        if ratio is not None and ratio <= -0.05
    ]
    strongest = ", ".join(f"“{text}” {ratio:.1f}".replace("-", "−") for ratio, text in sorted(pairs)[:4])
    label = str(row.get("context_label", ""))
    return Level(LEVELS.get(label, label), Markup("").join(parts), strongest)
