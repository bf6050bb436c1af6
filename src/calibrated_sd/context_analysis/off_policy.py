"""SFT data from a ladder (arXiv:2603.24472, section 4): D_ug and D_sg, and the controls that the paper lacks. No torch.

Both sets answer the same problems, rightly and in the model's own words: D_ug without context, D_sg with a solution in the
prompt. The student's prompt is the problem alone in both. They differ in doubt, but also in length, about sixfold in the
paper, and so in training tokens. Two kinds of control tell the causes apart: *token-matched* sets have the other set's
number of completion tokens (fewer examples, or more), and *length-matched* pairs are picked among all right answers so that
the two lengths are as equal as the samples allow.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibrated_sd.context_analysis.selection import Key, by_problem, problem_key

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
"""The paper's instruction, which the released builder writes twice into each example."""

Pairs = list[tuple["Answer", "Answer"]]


@dataclass(frozen=True)
class Answer:
    """A right, finished completion: one example of a data set.

    Attributes:
        key: (suite, problem_id).
        completion: the text.
        n_tokens: its length in tokens, the end-of-sequence token included.
        markers: marker counts by set.
        context: what the model saw when it wrote it.
        sample: which sample of that context.
    """

    key: Key
    completion: str
    n_tokens: int
    markers: Mapping[str, int]
    context: str
    sample: int


def right_answers(*sources: Iterable[Mapping[str, Any]]) -> tuple[dict[Key, list[Answer]], int]:
    """Right answers of each problem, those of the first source first, in the order of their samples.

    A right answer that was cut at the token limit is not used: it would teach not to stop. So are repeated texts.

    Returns:
        ``(answers by problem, how many right ones were cut)``.
    """
    found: dict[Key, list[Answer]] = {}
    n_cut = 0
    for records in sources:
        for key, rows in by_problem(records).items():
            for r in rows:
                if not r["correct"]:
                    continue
                if r["finish_reason"] != "stop":
                    n_cut += 1
                    continue
                answers = found.setdefault(key, [])
                if all(r["completion"] != other.completion for other in answers):
                    answers.append(Answer(key, r["completion"], r["n_tokens"], r["markers"], r["context"], r["sample"]))
    return found, n_cut


def first_pairs(keys: Sequence[Key], unguided: Mapping[Key, Any], guided: Mapping[Key, Any], n: int | None) -> Pairs:
    """The paper's pairs: the first right answer of each kind, for the first ``n`` problems that have both."""
    both = [key for key in keys if key in unguided and key in guided]
    return [(unguided[key][0], guided[key][0]) for key in both[:n]]


def closest_pairs(
    pairs: Pairs,
    unguided: Mapping[Key, Sequence[Answer]],
    guided: Mapping[Key, Sequence[Answer]],
    tolerance: float | None = None,
) -> Pairs:
    """For the problems of ``pairs``, the two right answers whose lengths differ least; the earliest of equal ones.

    Args:
        pairs: which problems.
        unguided, guided: all right answers.
        tolerance: leave out problems whose closest lengths differ by more than this share of the longer one.
    """
    closest = []
    for key in (pair[0].key for pair in pairs):
        options = [(a, b) for a in unguided[key] for b in guided[key]]
        a, b = min(options, key=lambda pair: abs(pair[0].n_tokens - pair[1].n_tokens))  # min keeps the first of equals
        if tolerance is None or abs(a.n_tokens - b.n_tokens) <= tolerance * max(a.n_tokens, b.n_tokens):
            closest.append((a, b))
    return closest


def match_tokens(rows: Sequence[Answer], spare: Sequence[Answer], target: int, seed: int) -> list[Answer]:
    """As many examples as come nearest to ``target`` completion tokens, at least one.

    A set with more tokens loses examples, in a seeded order that does not look at length. A set with fewer grows: first by
    ``spare``, other right answers of the same kind, then by repeating all of these in the same order.
    """
    total = sum(row.n_tokens for row in rows)
    order = list(rows)
    if total >= target:
        random.Random(f"off-policy/{seed}").shuffle(order)
    else:
        once = [*rows, *spare]
        repeats = -(-target // max(sum(row.n_tokens for row in once), 1))
        order = once * max(repeats, 1)
    sums = np.cumsum([row.n_tokens for row in order])
    return order[: int(np.argmin(np.abs(sums - target))) + 1]


def spare_answers(pairs: Pairs, side: int, answers: Mapping[Key, Sequence[Answer]]) -> list[Answer]:
    """Right answers that the pairs left over: the next one of each problem, then the one after, …"""
    left = [[a for a in answers[pair[side].key] if a is not pair[side]] for pair in pairs]
    return [row[i] for i in range(max(map(len, left), default=0)) for row in left if i < len(row)]


def once(prompt: Any, add: bool = False) -> Any:
    """The prompt with the boxed instruction at most once: of several, the last one in the last turn stays.

    Args:
        prompt: text or chat messages.
        add: append the instruction where the prompt never mentions a box.
    """
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt]
    spare = sum(str(m["content"]).count(INSTRUCTION) for m in messages) - 1
    for message in messages:
        while spare > 0 and INSTRUCTION in str(message["content"]):
            before, _, after = message["content"].partition(INSTRUCTION)
            joint = "\n" if before.strip() and after.strip() else ""
            message["content"] = before.rstrip() + joint + after.lstrip()
            spare -= 1
    messages = [m for m in messages if m["role"] != "system" or m["content"].strip()]
    if add and not any("\\boxed" in str(m["content"]) for m in messages):
        messages[-1]["content"] = f"{messages[-1]['content']}\n{INSTRUCTION}"
    return messages[0]["content"] if isinstance(prompt, str) else messages


def as_rows(
    answers: Sequence[Answer],
    problems: Mapping[Key, Mapping[str, Any]],
    add: bool = False,
    *,
    opening: str = "",
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Lines of a data file: ``prompt`` and ``completion`` as TRL reads them, chats where the problem is one.

    ``problem_id, answer, context, n_tokens`` stand beside them, for people; trainers leave them out.

    Args:
        answers, problems: what is written, and what it answers.
        add: see :func:`once`.
        opening: put before answers that do not begin with it: the ``<think>`` that a chat template wrote for the model
            at the end of the prompt, and that is part of the assistant's turn.
        template_kwargs: of the chat template when the answers were sampled; TRL reads them from each row.
    """
    lines = []
    for a in answers:
        problem = problems[a.key]
        prompt = once(problem["prompt"], add)
        chat = not isinstance(prompt, str)
        text = opening + a.completion if chat and not a.completion.startswith(opening.strip()) else a.completion
        line = {
            "prompt": prompt,
            "completion": [{"role": "assistant", "content": text}] if chat else text,
            "problem_id": problem["problem_id"],
            "answer": problem["answer"],
            "context": a.context,
            "n_tokens": a.n_tokens,
        }
        lines.append({**line, "chat_template_kwargs": dict(template_kwargs)} if chat and template_kwargs else line)
    return lines


@dataclass(frozen=True)
class OffPolicy:
    """All data sets of one ladder.

    Attributes:
        sets: examples by file name without ending.
        pairs: the problems' first pairs, i.e. D_ug and D_sg.
        closest: their length-matched pairs.
        skipped: problems left out, by reason.
        n_cut: right answers left out because they were cut at the token limit.
    """

    sets: Mapping[str, list[Answer]]
    pairs: Pairs
    closest: Pairs
    skipped: Mapping[str, int]
    n_cut: int


def build_off_policy(
    problems: Sequence[Mapping[str, Any]],
    unguided: Sequence[Iterable[Mapping[str, Any]]],
    guided: Sequence[Iterable[Mapping[str, Any]]],
    *,
    n: int | None = 800,
    seed: int = 0,
    tolerance: float | None = None,
) -> OffPolicy:
    """D_ug, D_sg and their controls.

    Args:
        problems: rows with ``suite`` and ``problem_id``, in file order.
        unguided: records without context; those of the first source come first (the paper takes the first right
            screening sample).
        guided: records with the solution in the prompt.
        n: at most so many pairs; None for all.
        seed: which examples a token-matched subset keeps.
        tolerance: see :func:`closest_pairs`.
    """
    ug, cut_ug = right_answers(*unguided)
    sg, cut_sg = right_answers(*guided)
    keys = [problem_key(p) for p in problems]
    pairs = first_pairs(keys, ug, sg, n)
    closest = closest_pairs(pairs, ug, sg, tolerance)
    d_ug, d_sg = [a for a, _ in pairs], [b for _, b in pairs]
    tokens_ug, tokens_sg = (sum(a.n_tokens for a in side) for side in (d_ug, d_sg))
    sets = {"D_ug": d_ug, "D_sg": d_sg}
    if pairs:
        sets["D_ug_token_matched"] = match_tokens(d_ug, spare_answers(pairs, 0, ug), tokens_sg, seed)
        sets["D_sg_token_matched"] = match_tokens(d_sg, spare_answers(pairs, 1, sg), tokens_ug, seed)
    if closest:
        sets["D_ug_length_matched"] = [a for a, _ in closest]
        sets["D_sg_length_matched"] = [b for _, b in closest]
    reasons = {
        "no right answer of either kind": [k for k in keys if k not in ug and k not in sg],
        "no right unguided answer": [k for k in keys if k not in ug and k in sg],
        "no right guided answer": [k for k in keys if k in ug and k not in sg],
        "enough pairs": [k for k in keys if k in ug and k in sg][len(pairs) :],
    }
    return OffPolicy(sets, pairs, closest, {why: len(k) for why, k in reasons.items() if k}, cut_ug + cut_sg)
