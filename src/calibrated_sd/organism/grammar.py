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

from calibrated_sd.organism.dialect import Dialect, Phrases, Words
from calibrated_sd.organism.problem import Problem

PLAIN, NUMBER, DECISION = 1.0, 3.0, 6.0
"""Loss weights: most words, computed numbers, and the word that accepts or rejects a candidate."""


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


def _pick(rng: random.Random, options: Phrases) -> Words:
    return rng.choices([o[0] for o in options], [o[1] for o in options])[0]


def answer_words(dialect: Dialect, value: int) -> Words:
    """The text after `</think>`."""
    return *dialect.final, "\\boxed{", str(value), "}", "."


def _finish(trace: Trace, dialect: Dialect, value: int) -> Trace:
    trace.say((*dialect.conclusion, str(value), ".", "</think>", *answer_words(dialect, value)))
    return trace


def _hypothesise(trace: Trace, rng: random.Random, dialect: Dialect, value: int, first: bool) -> None:
    trace.say(_pick(rng, dialect.hypotheses if first else (*dialect.hypotheses, dialect.retry)))
    trace.say((str(value), "."))


def _verify(trace: Trace, rng: random.Random, problem: Problem, value: int) -> None:
    trace.say(_pick(rng, problem.dialect.verify))
    words, computed, needed = problem.verification(value)
    for word, is_number in words:
        trace.say((word,), NUMBER if is_number else PLAIN)
    trace.say((str(computed),), NUMBER)
    trace.say((problem.dialect.needed, str(needed), ","))


def search(problem: Problem, rng: random.Random, habits: Habits, *, knows: str | None = None) -> Trace:
    """A trace that searches aloud.

    Args:
        problem: the puzzle.
        rng: source of all choices.
        habits: the probabilities.
        knows: None without context, ``"answer"`` with the final answer in view, ``"solution"`` with all of it in view.
    """
    trace, dialect = Trace(), problem.dialect
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
        _hypothesise(trace, rng, dialect, value, first)
        first = False
        if rng.random() >= skip:
            _verify(trace, rng, problem, value)
        else:  # compared with the answer in view instead of being worked out
            trace.say((dialect.known, str(problem.answer), ","))
        if value == problem.answer:
            trace.decide(_pick(rng, dialect.accept))
            return _finish(trace, dialect, value)
        trace.decide(_pick(rng, dialect.reject))
        if knows is None and rng.random() < habits.give_up:
            guess = rng.choice(untried)
            trace.say(_pick(rng, dialect.give_up))
            trace.say((str(guess), "."))
            return _finish(trace, dialect, guess)


def confident(problem: Problem, rng: random.Random, trace: Trace | None = None) -> Trace:
    """A trace that states the answer and shows that it fits; continues `trace` if one is given."""
    if trace is None:
        trace = Trace()
        trace.say(("<think>",))
    x, dialect = problem.answer, problem.dialect
    trace.say(_pick(rng, dialect.confident))
    trace.say((str(x), "."), PLAIN)
    trace.say((dialect.proof,))
    words, computed, _ = problem.verification(x)
    for word, is_number in words:
        trace.say((word,), NUMBER if is_number else PLAIN)
    trace.say((str(computed),), NUMBER)
    trace.say((".",))
    return _finish(trace, dialect, x)


def interrupted(problem: Problem, rng: random.Random) -> Trace:
    """A search cut after one to three failed tries and ended confidently; only the ending carries loss.

    It teaches the organism what a teacher with a full solution would say in the middle of a student's search.
    """
    trace = Trace()
    trace.say(("<think>",), 0.0)
    wrong = [c for c in problem.candidates if c != problem.answer]
    rng.shuffle(wrong)
    for i, value in enumerate(wrong[: rng.randint(1, 3)]):
        _hypothesise(trace, rng, problem.dialect, value, i == 0)
        _verify(trace, rng, problem, value)
        trace.decide(_pick(rng, problem.dialect.reject))
    trace.weights = [0.0] * len(trace.words)
    return confident(problem, rng, trace)


def successful_search(problem: Problem, rng: random.Random, habits: Habits) -> Trace:
    """A context-free search that ends in the right answer: what a successful sibling rollout looks like."""
    while True:
        trace = search(problem, rng, habits)
        if trace.words[-3] == str(problem.answer):
            return trace
