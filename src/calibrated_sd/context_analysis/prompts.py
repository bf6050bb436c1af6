r"""Prompts of every context level for the problems of a file: what the ladder samples under and the probe scores under.

The training wrapper is the one that the trainers use (TRL's SDPO templates). The paper's own analysis (arXiv:2603.24472,
sections 3 and 4) sets its blank lines a little differently, which ``template="paper"`` follows.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from calibrated_sd.contexts import CONTEXTS, Sources, last_user_text, render_reprompt
from calibrated_sd.errors import unknown_name
from calibrated_sd.organism.grammar import Habits, confident, successful_search
from calibrated_sd.organism.problem import Problem as Puzzle
from calibrated_sd.organism.puzzles import all_problems
from calibrated_sd.organism.species import SPECIES

Prompt = str | list[dict[str, Any]]
"""A text, used as it is, or chat messages."""

INSTRUCTION = "instruction"
"""Control: the wrapper's closing instruction with no solution in it."""
PROMPT_LEVELS = (*CONTEXTS, INSTRUCTION)
"""Every level that a prompt can be made for."""
TEMPLATES = ("training", "paper")
"""Wrappers around a demonstration."""

_PAPER = "{prompt}{solution}{feedback}\n\nCorrectly solve the original question."
_PAPER_SOLUTION = "\n\nCorrect solution: {successful_previous_attempt}"


def context_prompts(
    problems: Sequence[Mapping[str, Any]],
    level: str,
    *,
    demonstrations: Mapping[str, str] | None = None,
    template: str = "training",
    seed: int = 0,
) -> list[Prompt | None]:
    """The prompt of each problem under one context level.

    Args:
        problems: dicts with `problem_id` and `prompt`, and where there are any `answer`, `solution`, `wrong_solution`,
            `regenerated`. Puzzles of the model organism get their demonstrations from its own grammar.
        level: a name of :data:`~calibrated_sd.contexts.CONTEXTS`, or ``"instruction"``.
        demonstrations: problem_id → the demonstration that the level is made from, instead of the problem's own
            solution; a problem that is not in it has none. For ``"regenerated"``, the rewrite itself.
        template: ``"training"`` (the trainers' wrapper) or ``"paper"`` (the one of the paper's sections 3 and 4).
        seed: decides whose solution ``"irrelevant"`` shows, and how the organism's demonstrations read.

    Returns:
        One prompt per problem, of the kind (text or messages) that the problem's own is; None where the problem lacks
        what the level shows.

    Raises:
        ConfigError: unknown level or template.
        DataError: messages that do not end with a user turn.
    """
    if level not in PROMPT_LEVELS:
        raise unknown_name("context level", level, PROMPT_LEVELS)
    if template not in TEMPLATES:
        raise unknown_name("template", template, TEMPLATES)
    if level == INSTRUCTION:
        return [_with_context(problem["prompt"], "", template) for problem in problems]
    if CONTEXTS[level].is_free:
        return [_copy(problem["prompt"]) for problem in problems]
    shown = [
        CONTEXTS[level].demonstration(sources)
        for sources in context_sources(
            problems, demonstrations=demonstrations, seed=seed, with_other=level == "irrelevant"
        )
    ]
    return [
        _with_context(problem["prompt"], text, template) if text else None
        for problem, text in zip(problems, shown, strict=True)
    ]


def context_sources(
    problems: Sequence[Mapping[str, Any]],
    *,
    demonstrations: Mapping[str, str] | None = None,
    seed: int = 0,
    with_other: bool = True,
) -> list[Sources]:
    """What is known about each problem, another problem's demonstration included. Arguments: :func:`context_prompts`.

    ``with_other=False`` leaves that one out: finding it takes a time that grows with the square of the problems.
    """
    sources = [_sources(problem, demonstrations, seed) for problem in problems]
    if not with_other:
        return sources
    return [replace(one, other=_another(i, problems, sources, seed)) for i, one in enumerate(sources)]


def puzzle_of(problem: Mapping[str, Any]) -> Puzzle | None:
    """The organism's puzzle that a problem asks, or None if it is another question."""
    prompt = problem["prompt"]
    question = prompt if isinstance(prompt, str) else last_user_text(prompt)
    return _puzzles().get(question)


@cache
def _puzzles() -> dict[str, Puzzle]:
    families = [family for species in SPECIES.values() for family in species.families]
    return {puzzle.question: puzzle for family in families for puzzle in all_problems(family)}


def _sources(problem: Mapping[str, Any], demonstrations: Mapping[str, str] | None, seed: int) -> Sources:
    wrong, answer = _text(problem.get("wrong_solution")), _text(problem.get("answer"))
    if demonstrations is not None:
        given = _text(demonstrations.get(problem["problem_id"]))
        return Sources(rollout=given, solution=given, regenerated=given, demo="solution", wrong=wrong, answer=answer)
    solution, regenerated = _text(problem.get("solution")), _text(problem.get("regenerated"))
    puzzle = puzzle_of(problem)
    if puzzle is not None:
        rng = random.Random(f"demonstration/{seed}/{puzzle.problem_id}")
        solution = solution or successful_search(puzzle, rng, Habits()).text
        regenerated = regenerated or confident(puzzle, rng).text
    return Sources(solution=solution, regenerated=regenerated, demo="solution", wrong=wrong, answer=answer)


def _another(own: int, problems: Sequence[Mapping[str, Any]], sources: Sequence[Sources], seed: int) -> str | None:
    """A demonstration of another question; the same one for as long as the list of problems is the same."""
    order = list(range(len(problems)))
    random.Random(f"irrelevant/{seed}/{problems[own]['problem_id']}").shuffle(order)
    for i in order:
        text = sources[i].demonstration
        if text and text != sources[own].demonstration and problems[i]["prompt"] != problems[own]["prompt"]:
            return text
    return None


def _with_context(prompt: Prompt, demonstration: str, template: str) -> Prompt:
    if isinstance(prompt, str):
        return _wrapped(prompt, demonstration, template)
    text = _wrapped(last_user_text(prompt), demonstration, template)
    return [*_copy(prompt)[:-1], {"role": "user", "content": text}]


def _wrapped(question: str, demonstration: str, template: str) -> str:
    if template == "paper":
        return render_reprompt(question, demonstration, reprompt_template=_PAPER, solution_template=_PAPER_SOLUTION)
    return render_reprompt(question, demonstration)


def _copy(prompt: Any) -> Any:
    return prompt if isinstance(prompt, str) else [dict(message) for message in prompt]


def _text(value: Any) -> str | None:
    return None if value is None or not str(value).strip() else str(value)
