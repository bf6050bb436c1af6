"""Context levels: what the teacher may see beside the question, and how a user writes a mixture of them.

The ladder of arXiv:2603.24472 (table 1), from poor to rich: nothing (c = ∅), a solution without its thinking
(c = s∖think), a solution that the model wrote itself after reading one (c = ỹ), a full solution (c = s). SDPO takes its
solutions from the model itself: a successful sibling rollout. Two more rungs lie near the lower end, and two controls
beside the ladder tell information from style: another problem's solution, and a wrong one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from calibrated_sd.contexts.answers import alter_answer, extract_answer
from calibrated_sd.contexts.hints import cut_hint
from calibrated_sd.contexts.strip import strip_thinking
from calibrated_sd.errors import ConfigError, shortened, unknown_name


@dataclass(frozen=True)
class Sources:
    """What is known about one problem when its teacher context is built. Every text may be None: not there.

    Attributes:
        rollout: a successful sibling rollout.
        solution: the data set's reference solution.
        demo: which of the two `stripped` and `hint` are made from, ``"rollout"`` or ``"solution"``.
        answer: the data set's final answer.
        regenerated: what the model wrote when it was given the solution.
        other: a demonstration of another problem.
        wrong: a wrong solution: the data set's, or an unsuccessful sibling rollout.
        hint_fraction: share of the demonstration that `hint` shows, between 0 and 1.
    """

    rollout: str | None = None
    solution: str | None = None
    demo: str = "rollout"
    answer: str | None = None
    regenerated: str | None = None
    other: str | None = None
    wrong: str | None = None
    hint_fraction: float = 0.5

    @property
    def demonstration(self) -> str | None:
        """The demonstration that `demo` names."""
        return self.solution if self.demo == "solution" else self.rollout


@dataclass(frozen=True)
class Context:
    """One rung of the ladder, or a control beside it.

    Attributes:
        name: how it is written in a config.
        title: what the teacher sees, for tables and messages.
        demonstration: picks the demonstration from the sources: a text, None where this row has none, and the empty
            string where the level wants none (then the teacher reads exactly the student's prompt).
    """

    name: str
    title: str
    demonstration: Callable[[Sources], str | None]

    @property
    def is_free(self) -> bool:
        """True for c = ∅: the teacher reads the student's own prompt tokens."""
        return self.name == "none"

    def needs_solution(self, demo: str = "rollout") -> bool:
        """True if the level has no other source than the data set's `solution` column."""
        return self.name in ("solution", "regenerated") or (
            demo == "solution" and self.name in ("stripped", "hint", "irrelevant")
        )


def _stripped(sources: Sources) -> str | None:
    # A solution that is all thinking leaves nothing to show, which is the same as having no solution.
    demonstration = sources.demonstration
    return strip_thinking(demonstration) or None if demonstration else None


def _hint(sources: Sources) -> str | None:
    demonstration = sources.demonstration
    return cut_hint(demonstration, sources.hint_fraction) or None if demonstration else None


def _answer(sources: Sources) -> str | None:
    return sources.answer or (extract_answer(sources.solution) if sources.solution else None)


def _wrong(sources: Sources) -> str | None:
    if sources.wrong:
        return sources.wrong
    right = sources.solution or sources.rollout
    return alter_answer(right) if right else None


CONTEXTS: dict[str, Context] = {
    "rollout": Context("rollout", "c = s: a successful sibling rollout", lambda sources: sources.rollout),
    "solution": Context("solution", "c = s: the data set's solution", lambda sources: sources.solution),
    "regenerated": Context("regenerated", "c = ỹ: the model's own rewrite", lambda sources: sources.regenerated),
    "stripped": Context("stripped", "c = s∖think: a solution without its thinking", _stripped),
    "hint": Context("hint", "the beginning of a solution", _hint),
    "answer": Context("answer", "the final answer alone", _answer),
    "none": Context("none", "c = ∅: the question alone", lambda sources: ""),
    "irrelevant": Context("irrelevant", "control: another problem's solution", lambda sources: sources.other),
    "wrong": Context("wrong", "control: a wrong solution", _wrong),
}
"""Every context level by name, rich ones first. To add one: one entry here, one test, one line in the docs."""


def parse_levels(text: str | Mapping[str, float], keep_zero: bool = False) -> dict[str, float]:
    """Read a mixture of levels, e.g. ``"solution:0.7,none:0.3"``, a mapping, or a JSON object.

    A single name means weight 1.

    Args:
        text: the mixture.
        keep_zero: keep levels with weight 0, which a schedule may raise later; without, they are dropped.

    Returns:
        weight of each level in the order written; the weights sum to 1.

    Raises:
        ConfigError: unknown level, a level named twice, a weight that is no number or is negative, or weights whose
            sum is not 1 (within 1e-6).
    """
    pairs = _pairs(text)
    levels: dict[str, float] = {}
    for name, raw in pairs:
        if name not in CONTEXTS:
            raise unknown_name("context level", name, CONTEXTS)
        if name in levels:
            raise ConfigError(f"context_levels names {name!r} twice in {text!r}. Give each level one weight.")
        try:
            weight = float(raw)
        except (TypeError, ValueError):
            weight = math.nan
        if not (math.isfinite(weight) and weight >= 0):
            raise ConfigError(f"context_levels gives {name!r} the weight {raw!r}. Weights are numbers between 0 and 1.")
        levels[name] = weight
    total = sum(levels.values())
    if abs(total - 1) > 1e-6:
        raise ConfigError(
            f"The weights in context_levels={text!r} sum to {total:g}, not 1. Write them so that they sum to 1, e.g. "
            "'solution:0.7,none:0.3'."
        )
    return {name: weight for name, weight in levels.items() if weight > 0 or keep_zero}


def _pairs(text: str | Mapping[str, float]) -> list[tuple[str, Any]]:
    if isinstance(text, str) and text.lstrip().startswith("{"):
        try:
            text = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ConfigError(
                f"context_levels={shortened(text)} starts like a JSON object but is none: {error}."
            ) from error
    if isinstance(text, Mapping):
        return [(str(name), weight) for name, weight in text.items()]
    parts = [part.strip() for part in str(text).split(",")]
    if len(parts) == 1 and ":" not in parts[0]:
        return [(parts[0], 1.0)]
    pairs: list[tuple[str, Any]] = []
    for part in parts:
        name, colon, weight = part.partition(":")
        if not colon:
            raise ConfigError(
                f"context_levels={text!r}: the part {part!r} has no weight. Write 'level:weight' for each level, e.g. "
                "'solution:0.7,none:0.3'."
            )
        pairs.append((name.strip(), weight.strip()))
    return pairs
