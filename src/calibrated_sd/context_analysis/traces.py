"""Texts that a probe scores: doubt put into worked solutions, a column of the file, or the model's own samples."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrated_sd.context_analysis.hedge_sentences import HEDGES, HELD_OUT_HEDGES
from calibrated_sd.context_analysis.prompts import puzzle_of
from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.organism.grammar import Habits, search
from calibrated_sd.records import read_completions

N_HEDGES = 9
"""Doubt sentences in a built trace, fewer where the solution has few lines."""
N_HELD_OUT = 2
"""Further sentences that doubt in held-out words."""
PER_GAP = 4
"""At most so many sentences between two lines."""

_ANNOTATION = re.compile(r"<<[^<>]*>>")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\\$(0-9])")


@dataclass(frozen=True)
class Trace:
    """One text after one problem's prompt.

    Attributes:
        index: its number among the traces of this problem, from 0.
        text: what is scored.
        plain: the text without its doubt, where doubt was put in.
        is_sample: whether the model wrote it itself, without context.
        prompt_sha256: of the prompt that it was sampled after; empty if not known.
    """

    index: int
    text: str
    plain: str | None = None
    is_sample: bool = False
    prompt_sha256: str = ""


def find_traces(source: str, problems: Sequence[Mapping[str, Any]], seed: int = 0) -> list[list[Trace]]:
    """The traces of each problem; an empty list where it has none.

    Args:
        source: ``"built"``, ``"column:NAME"`` or the path of a ``completions.jsonl``.
        problems: dicts with `suite`, `problem_id`, `prompt`; with `solution` for built traces, with NAME for a column.
        seed: places the doubt.

    Raises:
        ConfigError: another `source`.
        DataError: no problem has a trace, or the file of completions cannot be read or holds several runs.
    """
    if source == "built":
        found = [[] if (trace := built_trace(p, seed)) is None else [trace] for p in problems]
        lacking = "no problem has a worked solution. Give a file with a `solution` column (--solution-column NAME)"
    elif source.startswith("column:"):
        name = source.removeprefix("column:")
        found = [[Trace(0, str(p[name]))] if str(p.get(name) or "").strip() else [] for p in problems]
        lacking = f"no problem has a text in the column {name!r}. Name a column that is there"
    elif Path(source).suffix == ".jsonl":
        found = _sampled(source, problems)
        lacking = (
            f"{source} has no context-free completion (context 'none') of these problems. Give the completions.jsonl that "
            "csd evaluate or csd ladder wrote for the same problems"
        )
    else:
        raise ConfigError(
            f"--traces {source!r} names no traces. Write 'built', 'column:NAME', or the path of a completions.jsonl."
        )
    if not any(found):
        raise DataError(f"There is nothing to score: {lacking}, or choose other --traces.")
    return found


def built_trace(problem: Mapping[str, Any], seed: int = 0, avoid: Collection[str] = ()) -> Trace | None:
    """A text that solves the problem and doubts on the way; None without a worked solution.

    The lines of the solution, and between them sentences that express doubt, at random but fixed places; the last line,
    which states the answer, stays last. A puzzle of the organism gets a search from its own grammar.

    Args:
        problem: with `problem_id`, `prompt` and perhaps `solution`.
        seed: places the doubt.
        avoid: sentences of doubt that are not used.
    """
    rng = random.Random(f"trace/{seed}/{problem['problem_id']}")
    puzzle = puzzle_of(problem)
    if puzzle is not None:
        return Trace(0, search(puzzle, rng, Habits()).text)
    lines = solution_lines(str(problem.get("solution") or ""))
    return Trace(0, hedged(lines, rng, avoid), plain="\n".join(lines)) if lines else None


def hedged_solution(problem: Mapping[str, Any], seed: int = 0) -> str | None:
    """The same with other sentences at other places: what a context shows that is itself full of doubt.

    No sentence is one of the built trace of this seed, which would then only have to be copied.
    """
    own = built_trace(problem, seed)
    trace = built_trace(problem, seed + 1, () if own is None else own.text.splitlines())
    return None if trace is None else trace.text


def hedged(lines: Sequence[str], rng: random.Random, avoid: Collection[str] = ()) -> str:
    """The lines with doubt between them.

    Args:
        lines: at least one; nothing comes after the last.
        rng: chooses sentences and places.
        avoid: sentences that are not used.
    """
    doubt, held_out = ([s for s in sentences if s not in avoid] for sentences in (HEDGES, HELD_OUT_HEDGES))
    gaps: list[list[str]] = [[] for _ in lines]  # gaps[i] stands before line i
    room = PER_GAP * len(gaps)
    n_held_out = min(N_HELD_OUT, room // 4)
    sentences = rng.sample(doubt, min(N_HEDGES, room - n_held_out)) + rng.sample(held_out, n_held_out)
    rng.shuffle(sentences)
    for sentence in sentences:
        gap = rng.choice([gap for gap in gaps if len(gap) < PER_GAP])
        gap.append(sentence)
    return "\n".join(part for gap, line in zip(gaps, lines, strict=True) for part in (*gap, line))


def solution_lines(solution: str) -> list[str]:
    """The lines of a worked solution, or its sentences where it is one line; calculator annotations (<<…>>) removed."""
    text = _ANNOTATION.sub("", solution).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) == 1:
        lines = [part.strip() for part in _SENTENCE_END.split(lines[0]) if part.strip()]
    return lines


def _sampled(path: str, problems: Sequence[Mapping[str, Any]]) -> list[list[Trace]]:
    by_problem: dict[tuple[str, str], list[Trace]] = {}
    runs = set()
    for row in read_completions(path):
        if row["context"] == "none" and row["completion"].strip():
            runs.add((row["arm"], row["seed"], row["step"]))
            key = (row["suite"], row["problem_id"])
            by_problem.setdefault(key, []).append(
                Trace(row["sample"], row["completion"], is_sample=True, prompt_sha256=row["prompt_sha256"])
            )
    if len(runs) > 1:
        raise DataError(
            f"{path} holds the samples of {len(runs)} runs (different arm, seed or step), but a probe scores those that "
            "its one model wrote. Give a file of one run."
        )
    return [sorted(by_problem.get((p["suite"], p["problem_id"]), []), key=lambda trace: trace.index) for p in problems]
