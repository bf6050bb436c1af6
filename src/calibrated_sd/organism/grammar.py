"""How the organism thinks aloud: traces of search with doubt, and the confident style it falls into with context.

Without context a trace hypothesises ("maybe x = 12 ."), verifies ("check 12 mod 5 = 2 need 3 ,"), doubts ("hmm no .")
and retries or gives up. Given a full solution it states the answer. Given only the final answer it still searches aloud,
but part of its checks are missing: the doubt is kept in words while the content leaks from the context. These habits
are put into the pretraining corpus on purpose, shaped after Table 1 of arXiv:2603.24472; they are assumptions of
the model organism, not findings.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from calibrated_sd.organism.puzzles import Problem

PLAIN, NUMBER, DECISION = 1.0, 3.0, 6.0
"""Loss weights: most words, computed numbers, and the word that accepts or rejects a candidate."""

HYPOTHESES = (  # (words before the value, weight); the two last are held out from every calibrator
    (("maybe", "x", "="), 0.24),
    (("perhaps", "x", "="), 0.16),
    (("x", "might", "be"), 0.14),
    (("it", "seems", "x", "="), 0.12),
    (("likely", "x", "="), 0.12),
    (("i", "suppose", "x", "="), 0.12),
    (("i", "guess", "x", "="), 0.10),
)
RETRY = (("alternatively", "x", "="), 0.25)
VERIFY = ((("check",), 0.65), (("now",), 0.20), (("here",), 0.15))
REJECT = (
    (("hmm", "no", "."), 0.26),
    (("wait", "no", "."), 0.22),
    (("actually", "no", "."), 0.16),
    (("no", "."), 0.14),
    (("hold", "on", "no", "."), 0.12),
    (("not", "quite", "."), 0.10),
)
ACCEPT = ((("yes", "."), 0.7), (("yes", "that", "works", "."), 0.3))
GIVE_UP = ((("not", "sure", ",", "take", "x", "="), 0.6), (("i", "doubt", "it", ",", "take", "x", "="), 0.4))
CONFIDENT = ((("x", "="), 0.4), (("clearly", "x", "="), 0.3), (("we", "get", "x", "="), 0.3))


@dataclass(frozen=True)
class Habits:
    """Probabilities that shape a corpus; one value of each is recorded in the pretraining recipe.

    Attributes:
        give_up: chance of giving up after each failed try without context. It leaves room for reinforcement.
        direct: share of confident traces without context.
        ignore_answer: share of answer-only contexts that change nothing.
        skip_check: chance that a candidate is compared with the known answer instead of being worked out.
        jump: chance per failed try of jumping to the known answer.
        verbose_given_solution: share of full-solution contexts that still lead to a search.
        verbose_given_rewrite: the same for a confident rewrite in the context.
        interrupted: share of those contexts whose response continues a search already under way (loss on the ending).
    """

    give_up: float = 0.06
    direct: float = 0.04
    ignore_answer: float = 0.25
    skip_check: float = 0.35
    jump: float = 0.08
    verbose_given_solution: float = 0.05
    verbose_given_rewrite: float = 0.13
    interrupted: float = 0.20


@dataclass
class Trace:
    """Words of a response with their loss weights."""

    words: list[str] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def say(self, words: tuple[str, ...] | list[str], weight: float = PLAIN) -> None:
        self.words.extend(words)
        self.weights.extend([weight] * len(words))

    def decide(self, words: tuple[str, ...]) -> None:
        self.say(words[:1], DECISION)
        self.say(words[1:])

    @property
    def text(self) -> str:
        return " ".join(self.words)


def _pick(rng: random.Random, options: tuple[tuple[tuple[str, ...], float], ...]) -> tuple[str, ...]:
    return rng.choices([o[0] for o in options], [o[1] for o in options])[0]


def _finish(trace: Trace, value: int) -> Trace:
    trace.say(("so", "x", "=", str(value), ".", "</think>", "the", "answer", "is", "\\boxed{", str(value), "}", "."))
    return trace


def _hypothesise(trace: Trace, rng: random.Random, value: int, first: bool) -> None:
    trace.say(_pick(rng, HYPOTHESES if first else (*HYPOTHESES, RETRY)))
    trace.say((str(value), "."))


def _verify(trace: Trace, rng: random.Random, problem: Problem, value: int) -> None:
    trace.say(_pick(rng, VERIFY))
    words, computed, needed = problem.verification(value)
    for word, is_number in words:
        trace.say((word,), NUMBER if is_number else PLAIN)
    trace.say((str(computed),), NUMBER)
    trace.say(("need", str(needed), ","))


def search(problem: Problem, rng: random.Random, habits: Habits, *, knows: str | None = None) -> Trace:
    """A trace that searches aloud.

    Args:
        problem: the puzzle.
        rng: source of all choices.
        habits: the probabilities.
        knows: None without context, ``"answer"`` with the final answer in view, ``"solution"`` with all of it in view.
    """
    trace = Trace()
    trace.say(("<think>",))
    jump = {None: 0.0, "answer": habits.jump, "solution": 0.5}[knows]
    skip = habits.skip_check if knows == "answer" else 0.0
    untried = list(problem.candidates)
    rng.shuffle(untried)
    first = True
    while True:
        if knows and (not first or knows == "solution") and rng.random() < jump:
            value = problem.answer
        else:
            value = untried[0]
        untried.remove(value)
        _hypothesise(trace, rng, value, first)
        first = False
        if rng.random() >= skip:
            _verify(trace, rng, problem, value)
        else:  # compared with the answer in view instead of being worked out
            trace.say(("given", str(problem.answer), ","))
        if value == problem.answer:
            trace.decide(_pick(rng, ACCEPT))
            return _finish(trace, value)
        trace.decide(_pick(rng, REJECT))
        if knows is None and rng.random() < habits.give_up:
            guess = rng.choice(untried)
            trace.say(_pick(rng, GIVE_UP))
            trace.say((str(guess), "."))
            return _finish(trace, guess)


def confident(problem: Problem, rng: random.Random, trace: Trace | None = None) -> Trace:
    """A trace that states the answer and shows that it fits; continues `trace` if one is given."""
    if trace is None:
        trace = Trace()
        trace.say(("<think>",))
    x = problem.answer
    trace.say(_pick(rng, CONFIDENT))
    trace.say((str(x), "."), PLAIN)
    trace.say(("then",))
    words, computed, _ = problem.verification(x)
    for word, is_number in words:
        trace.say((word,), NUMBER if is_number else PLAIN)
    trace.say((str(computed),), NUMBER)
    trace.say((".",))
    return _finish(trace, x)


def interrupted(problem: Problem, rng: random.Random) -> Trace:
    """A search cut after one to three failed tries and ended confidently; only the ending carries loss.

    It teaches the organism what a teacher with a full solution would say in the middle of a student's search.
    """
    trace = Trace()
    trace.say(("<think>",), 0.0)
    wrong = [c for c in problem.candidates if c != problem.answer]
    rng.shuffle(wrong)
    for i, value in enumerate(wrong[: rng.randint(1, 3)]):
        _hypothesise(trace, rng, value, i == 0)
        _verify(trace, rng, problem, value)
        trace.decide(_pick(rng, REJECT))
    trace.weights = [0.0] * len(trace.words)
    return confident(problem, rng, trace)


def successful_search(problem: Problem, rng: random.Random, habits: Habits) -> Trace:
    """A context-free search that ends in the right answer: what a successful sibling rollout looks like."""
    while True:
        trace = search(problem, rng, habits)
        if trace.words[-3] == str(problem.answer):
            return trace


def vocabulary() -> list[str]:
    """Every word the organism, its prompts and the teacher templates can use, numbers excluded, in a fixed order."""
    groups = (HYPOTHESES, (RETRY,), VERIFY, REJECT, ACCEPT, GIVE_UP, CONFIDENT)
    spoken = [word for group in groups for words, _ in group for word in words]
    fixed = [
        "<think>",
        "</think>",
        "so",
        "x",
        "=",
        ".",
        ",",
        "the",
        "answer",
        "is",
        "\\boxed{",
        "}",
        "need",
        "then",
        "mod",
        "*",
        "+",
        "y",
        "it",
        "find",
        "below",
        "such",
        "that",
        "and",
        "with",
        "smaller",
        "below",
        "such",
        "Correct",
        "Correctly",
        "solution:",
        "solve",
        "original",
        "question.",
        "question",
        "answer:",
        "Answer:",
        "given",
        "oh",
        "again",
        "let",
        "me",
        "verify",
        "reconsider",
        "think",
        "i",
        "see",
        "but",
        "because",
        "possibly",
        "double-check",
        "first",
        "second",
        "thought",
    ]
    return list(dict.fromkeys([*fixed, *spoken]))
