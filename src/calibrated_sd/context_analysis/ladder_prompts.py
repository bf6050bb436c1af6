"""What each rung of the ladder shows: solutions from the file or from the model, and the prompts made of them. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from calibrated_sd.context_analysis.prompts import PROMPT_LEVELS, context_prompts, context_sources, puzzle_of
from calibrated_sd.context_analysis.selection import Key, first_correct, problem_key
from calibrated_sd.contexts import strip_thinking
from calibrated_sd.contexts.strip import CLOSING_TAG
from calibrated_sd.errors import ConfigError, unknown_name
from calibrated_sd.organism.corpus import answer_only

RUNGS = ("none", "stripped", "regenerated", "solution")
"""c = ∅, s∖think, ỹ and s: the rows of the paper's Table 1, in the order of rising information."""
LEVELS = tuple(level for level in PROMPT_LEVELS if level != "rollout")
"""Every level a ladder can have: its rungs and the controls. A rollout as the solution is ``solution_from="rollout"``."""
SOLUTION_FROM = ("rollout", "column")
"""``rollout``: the first right screening sample, as in the paper; ``column``: the file's own (the organism's grammar's)."""

Row = dict[str, Any]


def parse_ladder(text: str) -> tuple[str, ...]:
    """Read ``"none,stripped,solution"``: distinct levels, the rungs in their order and first, then the controls.

    Raises:
        ConfigError: an unknown level, none at all, or one named twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in LEVELS:
            raise unknown_name("context level", name, LEVELS)
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"--levels {text!r} must name at least one level and none twice, e.g. {','.join(RUNGS)}.")
    return (*(rung for rung in RUNGS if rung in names), *(name for name in names if name not in RUNGS))


def need_solutions(levels: Iterable[str]) -> bool:
    """Whether a level shows something that is made from a solution."""
    return not set(levels) <= {"none", "instruction", "answer"}


def add_written_solutions(problems: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows with a ``solution`` wherever the file has one; puzzles of the model organism get one from its grammar."""
    return [
        {**problem, "solution": sources.solution}
        for problem, sources in zip(problems, context_sources(problems, with_other=False), strict=True)
    ]


def add_sampled_solutions(
    problems: Sequence[Mapping[str, Any]], samples: Mapping[Key, Sequence[Mapping[str, Any]]]
) -> list[Row]:
    """Rows whose ``solution`` is the first right screening sample (None without one), whatever the file says."""
    return [{**p, "solution": first_correct(samples.get(problem_key(p), ()))} for p in problems]


def stripped_solution(problem: Mapping[str, Any]) -> str | None:
    """What level ``stripped`` shows of a row's solution: the text after ``</think>``, else one line with the answer.

    The paper strips the thinking of a reasoning model. A solution without tags has none, and showing all of it would
    make the rung equal to the full solution, so the final answer alone stands for it.
    """
    solution, answer = problem.get("solution"), problem.get("answer")
    if not solution:
        return None
    if CLOSING_TAG in solution:
        return strip_thinking(solution) or None
    puzzle = puzzle_of(problem)
    if puzzle is not None:
        return answer_only(puzzle)
    return None if answer is None else f"The final answer is \\boxed{{{answer}}}."


def level_rows(rows: Sequence[Row], level: str, *, template: str, seed: int) -> list[Row | None]:
    """Each row with the prompt of that level in place of its own; None where it lacks what the level shows."""
    material: Sequence[Row] = rows
    if level == "stripped":
        material = [{**row, "solution": stripped_solution(row)} for row in rows]
        # A puzzle without solution would get one from the grammar: the level shows nothing where there is nothing.
        shown = [bool(row["solution"]) for row in material]
    else:
        shown = [True] * len(rows)
    prompts = context_prompts(material, level, template=template, seed=seed)
    return [
        {**row, "prompt": prompt} if prompt is not None and there else None
        for row, prompt, there in zip(rows, prompts, shown, strict=True)
    ]


def complete_rows(
    rows: Sequence[Row],
    levels: Sequence[str],
    *,
    template: str,
    seed: int,
    too_long: Callable[[Row], bool] = lambda row: False,
) -> tuple[list[Row], dict[str, list[Row]], dict[str, int]]:
    """The problems that have a prompt under every level, so that all levels are measured on the same ones.

    Args:
        rows: with ``solution`` and ``regenerated`` where the levels want them.
        levels: all levels of the ladder.
        template, seed: see :func:`~calibrated_sd.context_analysis.prompts.context_prompts`.
        too_long: whether a row's prompt leaves too little of the model's window; its problem is left out.

    Returns:
        ``(problems, rows of each level, how many problems were left out and why)``.
    """
    prompts = {level: level_rows(rows, level, template=template, seed=seed) for level in levels}
    kept: list[int] = []
    left_out: dict[str, int] = {}
    for i in range(len(rows)):
        made = {level: prompts[level][i] for level in levels}
        missing = next((level for level, row in made.items() if row is None), None)
        if missing is None:
            missing = next((level for level, row in made.items() if row is not None and too_long(row)), None)
            why = None if missing is None else f"prompt of level {missing} too long"
        else:
            why = f"nothing to show for level {missing}"
        if why is None:
            kept.append(i)
        else:
            left_out[why] = left_out.get(why, 0) + 1
    chosen = {level: [row for i in kept if (row := prompts[level][i]) is not None] for level in levels}
    return [rows[i] for i in kept], chosen, left_out
