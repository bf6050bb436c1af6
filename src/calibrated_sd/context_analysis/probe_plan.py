"""What a probe scores: texts, their markers, and the prompts of every level, all in tokens. Runs no model."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calibrated_sd.context_analysis.hedge_sentences import CONNECTIVES
from calibrated_sd.context_analysis.ladder_prompts import level_rows
from calibrated_sd.context_analysis.prompts import PROMPT_LEVELS, Prompt, context_prompts, context_sources
from calibrated_sd.context_analysis.slots import Slot, find_slots
from calibrated_sd.context_analysis.traces import Trace, hedged_solution
from calibrated_sd.errors import ConfigError, ContextError, DataError, unknown_name
from calibrated_sd.evaluation.generate import render_prompts
from calibrated_sd.markers import MarkerSet, marker_token_ids
from calibrated_sd.markers.lexicon import Phrase
from calibrated_sd.records import prompt_sha256
from calibrated_sd.shapes import MarkerIds

CONTROLS = ("irrelevant", "wrong", "instruction")
"""Levels that are measured beside the ones asked for: what is not due to knowing the solution shows here, too."""
HEDGED = "hedged"
"""Positive control: the solution with doubt put into it. Where it does not raise the markers, the probe is blind."""
PROBE_LEVELS = (*PROMPT_LEVELS, HEDGED)
"""Every level that can be probed."""


@dataclass(frozen=True)
class Job:
    """One text to be scored after the prompts of one problem.

    Attributes:
        suite, problem_id, trace: which text it is.
        ids: its tokens.
        slots: its markers; those of the held-out set are in `held_out`.
        prompts: level → token ids.
        prompt_texts: level → what the model reads.
        plain_ids: the text without the doubt that was put into it; empty if there is no such text.
        is_sample: whether the model wrote the text itself, without context.
    """

    suite: str
    problem_id: str
    trace: int
    ids: tuple[int, ...]
    slots: tuple[Slot, ...]
    held_out: tuple[Slot, ...]
    prompts: Mapping[str, tuple[int, ...]]
    prompt_texts: Mapping[str, str]
    plain_ids: tuple[int, ...] = ()
    is_sample: bool = False

    @property
    def key(self) -> str:
        """The problem's name; texts of one problem share it."""
        return f"{self.suite}/{self.problem_id}"


@dataclass(frozen=True)
class ProbeIds:
    """The marker set, its token ids, and the neutral connectives' ids (None if the tokenizer has none of them)."""

    markers: MarkerSet
    marker_ids: MarkerIds
    neutral_ids: MarkerIds | None

    @classmethod
    def of(cls, tokenizer: Any, markers: str | MarkerSet = "lexical") -> ProbeIds:
        """Find them. Raises ConfigError if no marker begins with a token of its own."""
        marker_set = markers if isinstance(markers, MarkerSet) else MarkerSet.load(markers)
        connectives = MarkerSet("connectives", 1, "word", tuple(Phrase(word) for word in CONNECTIVES))
        try:
            neutral = marker_token_ids(tokenizer, connectives)
        except ConfigError:
            neutral = None
        return cls(marker_set, marker_token_ids(tokenizer, marker_set), neutral)


def parse_contexts(text: str, controls: bool = True) -> tuple[str, ...]:
    """Levels from ``"none,solution"``; `none` comes first in any case, the controls last.

    Raises:
        ConfigError: unknown level.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in PROBE_LEVELS:
            raise unknown_name("context level", name, PROBE_LEVELS)
    return tuple(dict.fromkeys(("none", *names, *(CONTROLS if controls else ()))))


def plan_probe(
    tokenizer: Any,
    problems: Sequence[Mapping[str, Any]],
    traces: Sequence[Sequence[Trace]],
    levels: Sequence[str],
    ids: ProbeIds,
    *,
    window: int | None = None,
    template: str = "training",
    seed: int = 0,
    max_trace_tokens: int | None = None,
    skip_too_long: bool = False,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> tuple[list[Job], dict[str, int]]:
    """Everything that is to be scored, with its tokens; runs no model.

    Args:
        tokenizer: the model's.
        problems: dicts with `suite, problem_id, prompt` and what the levels need (see `context_prompts`).
        traces: the texts of each problem.
        levels: the levels, `none` among them.
        ids: from :meth:`ProbeIds.of`.
        window: positions of the model; None: not known.
        template, seed: see `context_prompts`.
        max_trace_tokens: score only the beginning of longer texts.
        skip_too_long: leave out a problem's level whose prompt and text exceed the window instead of raising.
        chat_template_kwargs: for example ``{"enable_thinking": False}``.

    Returns:
        The jobs, and how much was left out: ``"no trace"`` and ``"no marker"`` (problems, texts), ``"LEVEL: missing"``
        (problems that lack what the level shows), ``"LEVEL: too long"`` (texts).

    Raises:
        ContextError: prompt and text are longer than the window.
        DataError: no problem has what a level shows (a control that cannot be made is left out), or nothing is left.
    """
    left_out: Counter[str] = Counter()
    prompts = {level: _prompts(problems, level, template, seed) for level in levels}
    for level, of_level in prompts.items():
        if level not in CONTROLS and all(prompt is None for prompt in of_level):
            raise DataError(
                f"No problem has what the context level {level!r} shows. Give a file with a column for it (solution, "
                "answer, wrong_solution or regenerated), or leave the level out (--contexts)."
            )
    held_out_set, strange = MarkerSet.load("held_out"), 0
    avoid = set(ids.marker_ids.tolist())
    jobs = []
    for i, (problem, of_problem) in enumerate(zip(problems, traces, strict=True)):
        if not of_problem:
            left_out["no trace"] += 1
            continue
        given = {level: prompts[level][i] for level in levels if prompts[level][i] is not None}
        left_out.update(f"{level}: missing" for level in levels if level not in given)
        texts, encoded = render_prompts(tokenizer, list(given.values()), list(given), chat_template_kwargs)  # type: ignore[arg-type]
        for trace in of_problem:
            tokens, plain = (
                tokenizer(text, add_special_tokens=False)["input_ids"][:max_trace_tokens]
                for text in (trace.text, trace.plain or "")
            )
            kept = {
                level: n
                for n, level in enumerate(given)
                if _fits(problem, level, encoded[n], tokens, window, skip_too_long)
            }
            left_out.update(f"{level}: too long" for level in given if level not in kept)
            slots = find_slots(tokenizer, tokens, ids.markers, avoid)
            if not slots:
                left_out["no marker"] += 1
            if "none" not in kept or not tokens:
                continue
            strange += trace.prompt_sha256 not in ("", prompt_sha256(texts[list(given).index("none")]))
            jobs.append(
                Job(
                    suite=problem["suite"],
                    problem_id=problem["problem_id"],
                    trace=trace.index,
                    ids=tuple(tokens),
                    slots=tuple(slots),
                    held_out=tuple(find_slots(tokenizer, tokens, held_out_set, neutral=False)),
                    prompts={level: tuple(encoded[n]) for level, n in kept.items()},
                    prompt_texts={level: texts[n] for level, n in kept.items()},
                    plain_ids=tuple(plain),
                    is_sample=trace.is_sample,
                )
            )
    if strange:
        warnings.warn(
            f"{strange} of {len(jobs)} texts were sampled after another prompt than the context-free one of this probe. Give "
            "the same problems, template and thinking mode as when they were sampled, or read the figures as of foreign texts.",
            stacklevel=2,
        )
    if not jobs:
        raise DataError(
            "Nothing is left to be scored: every problem lacks a text, or is too long for the model's window."
        )
    return jobs, dict(sorted(left_out.items()))


def _prompts(problems: Sequence[Mapping[str, Any]], level: str, template: str, seed: int) -> list[Prompt | None]:
    if level == "stripped":  # as on the ladder: of a solution without thinking, the line with the answer
        sources = context_sources(problems, seed=seed)
        rows = [{**p, "solution": one.solution} for p, one in zip(problems, sources, strict=True)]
        shown = level_rows(rows, level, template=template, seed=seed)
        return [None if row is None else row["prompt"] for row in shown]
    if level != HEDGED:
        return context_prompts(problems, level, template=template, seed=seed)
    texts = {p["problem_id"]: text for p in problems if (text := hedged_solution(p, seed)) is not None}
    return context_prompts(problems, "solution", demonstrations=texts, template=template, seed=seed)


def _fits(
    problem: Mapping[str, Any], level: str, prompt: Sequence[int], trace: Sequence[int], window: int | None, skip: bool
) -> bool:
    if window is None or len(prompt) + len(trace) <= window:
        return True
    if skip:
        return False
    raise ContextError(
        f"Problem {problem['problem_id']!r} under the context {level!r}: the prompt has {len(prompt)} tokens and the text to "
        f"be scored {len(trace)}, together more than the model's window of {window}. Add --skip-too-long to leave such "
        "pairs out and count them, or --max-trace-tokens to score only the beginning of each text."
    )
