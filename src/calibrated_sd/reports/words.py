"""Recurring phrases of tables, figures and the page: what was run, how much of it, what a metric is called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from calibrated_sd.reports.folder import BASE, Arm, ReproduceFolder, Suite
from calibrated_sd.reports.scores import Scores

CONTEXTS = {"none": "∅", "stripped": "s∖think", "regenerated": "ỹ", "solution": "s"}
"""Context level → the paper's notation, from poor to rich."""
CONTEXT_MEANINGS = {
    "none": "nothing but the problem",
    "stripped": "a solution without its reasoning",
    "regenerated": "an answer rewritten after seeing the solution",
    "solution": "the whole solution",
}
MEASURES = {
    "ood_accuracy_": "OOD accuracy",
    "markers_per_response_": "markers per response",
    "markers_per_1k_": "markers per 1k tokens",
    "accuracy_": "accuracy",
    "markers_": "markers",
    "length_": "length",
    "ood_": "OOD accuracy",
}
"""First part of a key of ``claims.json`` → what is measured."""


def span(numbers: Sequence[int]) -> str:
    """``96`` or ``32–96``; a question mark where nothing is known."""
    if not numbers:
        return "?"
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}–{numbers[-1]}"


def times(n: int, thing: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{n} {thing}{'' if n == 1 else 's'}"


def role_names(suites: Iterable[Suite]) -> dict[str, str]:
    """Suite → ``in-domain``, ``held-out``, ``far 1``, ``far 2``, …"""
    names, far = {}, 0
    for suite in suites:
        far += suite.role == "far"
        names[suite.name] = {"train": "in-domain", "heldout": "held-out", "far": f"far {far}"}.get(
            suite.role, suite.role
        )
    return names


def design_in_words(folder: ReproduceFolder, scores: Scores) -> str:
    """``64–91 questions per suite × 2 samples``: the last evaluations."""
    questions, samples = scores.design()
    return f"{span(questions)} questions per suite × {span(samples)} sample{'' if samples == [1] else 's'}"


def seeds_in_words(folder: ReproduceFolder) -> str:
    """Seeds that were trained to the end, and those that were planned if they are more."""
    done = len({run.seed for run in folder.runs if run.status == "ok"})
    planned = len({run.seed for run in folder.runs} | set(folder.seeds))
    return times(done, "training seed") + (f" of {planned} planned" if done < planned else "")


def status_in_words(folder: ReproduceFolder, arm: str) -> str:
    """Empty for an arm whose runs are all finished, else ``failed`` or ``failed (seed 1), running (seed 2)``."""
    runs = [run for run in folder.runs if run.arm == arm]
    unfinished = [run for run in runs if run.status != "ok"]
    statuses = {run.status for run in unfinished}
    if len(unfinished) == len(runs) and len(statuses) == 1:
        return statuses.pop()
    return ", ".join(f"{run.status} (seed {run.seed})" for run in unfinished)


def key_in_words(key: str, arms: Sequence[Arm]) -> str:
    """A key of ``claims.json`` in words: ``ood_sdpo_minus_base`` → ``OOD accuracy: SDPO, c = s minus base``."""
    labels = {arm.name: "base" if arm.name == BASE else arm.label for arm in arms}
    labels |= {level: f"c = {symbol}" for level, symbol in CONTEXTS.items()}
    if key.startswith("ood_") and "sdpo_stripped" in labels:
        labels["stripped"] = labels["sdpo_stripped"]
    measure, rest = "", key
    if match := re.match(r"ood_(pass@\d+)_", key):
        measure, rest = f"OOD {match[1]}", key[match.end() :]
    else:
        for start, name in MEASURES.items():
            if key.startswith(start) and key != start:
                measure, rest = name, key.removeprefix(start)
                break
    rest, _, condition = rest.partition("_on_")
    parts = re.split(r"_(minus|over)_", rest)
    words = [
        {"minus": "minus", "over": "divided by"}[part] if i % 2 else labels.get(part, part.replace("_", " "))
        for i, part in enumerate(parts)
    ]
    text = f"{measure}: {' '.join(words)}" if measure else " ".join(words)
    return text + (f" (on {condition.replace('_', ' ')})" if condition else "")
