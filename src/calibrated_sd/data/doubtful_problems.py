"""Word problems with a few whole numbers to try, for giving a small language model the habit of doubting.

Every question names the range of its answer, so a search with verification succeeds, and a guess hits one time in two
to five. The families are those of the study on SmolLM2 (docs/how-to/give_a_model_the_habit.md):

=============  =============================================  ===============================
family         condition on the number x                      role
=============  =============================================  ===============================
``product``    x · (x + d) = P, differences d in TRAINED      trained on
``product``    the same with the differences in HELD_OUT      held out
``sum``        x · (S − x) = P                                far
``shopping``   x · b + (n − x) · a = T                        far
=============  =============================================  ===============================
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

FAMILIES = ("product", "sum", "shopping")
TRAINED, HELD_OUT = (1, 2, 4, 6, 7), (3, 5, 8)
"""Differences d of the family ``product``."""
N_CANDIDATES = range(2, 6)
"""How many numbers the range of a question can hold; a harder question holds more."""

NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jack", "Lena", "Max")
_GOODS = ("pens", "books"), ("apples", "melons"), ("cards", "toys"), ("cups", "plates"), ("roses", "lamps")

TEMPLATES: dict[str, tuple[str, ...]] = {
    "product": (
        "A garden is {d} meters longer than it is wide. Its area is {need} square meters. The width is a whole number "
        "of meters from {low} to {high}. How wide is the garden?",
        "{name} is {d} years younger than {other}. Their ages multiplied give {need}. {name} is from {low} to {high} "
        "years old. How old is {name}?",
        "A number from {low} to {high}, multiplied by the number {d} larger, gives {need}. What is the number?",
    ),
    "sum": (
        "Two numbers add up to {s}, and multiplied they give {need}. The first is from {low} to {high}. What is the first number?",
        "{name} and {other} own {s} marbles together. Their counts multiplied give {need}. {name} owns from {low} to "
        "{high} of them. How many does {name} own?",
    ),
    "shopping": (
        "{name} buys {n} things: some {cheap} for {a} dollars each and some {dear} for {b} dollars each. All cost {need} "
        "dollars. {name} takes from {low} to {high} {dear}. How many {dear} is it?",
        "A shop sells {cheap} for {a} dollars and {dear} for {b} dollars. {name} pays {need} dollars for {n} of them, "
        "and from {low} to {high} are {dear}. How many {dear} are there?",
    ),
}


@dataclass(frozen=True)
class WordProblem:
    """One question with a short range of candidates.

    Attributes:
        family: a name in `FAMILIES`.
        parameters: (d,) for ``product``, (S,) for ``sum``, (n, a, b) for ``shopping``.
        low, high: the range of the answer, both ends included.
        answer: the one number of the range that fits.
    """

    family: str
    parameters: tuple[int, ...]
    low: int
    high: int
    answer: int

    @property
    def candidates(self) -> range:
        return range(self.low, self.high + 1)

    @property
    def problem_id(self) -> str:
        return f"{self.family}-{'-'.join(map(str, self.parameters))}-{self.low}-{self.high}-{self.answer}"

    @property
    def need(self) -> int:
        """The number that the right candidate makes."""
        return self.makes(self.answer)

    def makes(self, x: int) -> int:
        """The number that a candidate makes."""
        return _MAKES[self.family](x, *self.parameters)

    def off(self, x: int) -> int:
        """How far what a candidate makes is from what is needed; 0 for the right one."""
        return abs(self.makes(x) - self.need)

    def working(self, x: int) -> str:
        """The sums that lead from a candidate to what it makes, e.g. ``"4+3=7, 4*7=28"``."""
        if self.family == "product":
            (d,) = self.parameters
            return f"{x}+{d}={x + d}, {x}*{x + d}={self.makes(x)}"
        if self.family == "sum":
            (s,) = self.parameters
            return f"{s}-{x}={s - x}, {x}*{s - x}={self.makes(x)}"
        n, a, b = self.parameters
        return f"{x}*{b}={x * b}, {n - x}*{a}={(n - x) * a}, {x * b}+{(n - x) * a}={self.makes(x)}"

    @property
    def question(self) -> str:
        """The question in words; template, names and goods follow from the problem alone."""
        rng = random.Random(self.problem_id)
        words: dict[str, object] = {"low": self.low, "high": self.high, "need": self.need}
        words["name"], words["other"] = rng.sample(NAMES, 2)
        words["cheap"], words["dear"] = rng.choice(_GOODS)
        words |= dict(zip({"product": "d", "sum": "s", "shopping": "nab"}[self.family], self.parameters, strict=True))
        return rng.choice(TEMPLATES[self.family]).format(**words)


_MAKES: dict[str, Callable[..., int]] = {
    "product": lambda x, d: x * (x + d),
    "sum": lambda x, s: x * (s - x),
    "shopping": lambda x, n, a, b: x * b + (n - x) * a,
}


@lru_cache
def all_problems(family: str, split: str | None = None) -> tuple[WordProblem, ...]:
    """Every problem of a family whose range holds exactly one answer, in a fixed order.

    Args:
        family: a name in `FAMILIES`.
        split: ``"trained"`` or ``"held_out"`` differences of ``product``; None for all.
    """
    problems = []
    for parameters, largest in _parameters(family):
        if split is not None and parameters[0] not in {"trained": TRAINED, "held_out": HELD_OUT}[split]:
            continue
        for size in N_CANDIDATES:
            for low in range(1, largest - size + 2):
                values = [_MAKES[family](x, *parameters) for x in range(low, low + size)]
                problems += [
                    WordProblem(family, parameters, low, low + size - 1, low + i)
                    for i, value in enumerate(values)
                    if values.count(value) == 1
                ]
    return tuple(problems)


def _parameters(family: str) -> Iterator[tuple[tuple[int, ...], int]]:
    """(parameters, largest candidate): both factors of a product stay in the table of twelve, candidates at most 9."""
    if family == "product":
        yield from (((d,), min(9, 12 - d)) for d in sorted((*TRAINED, *HELD_OUT)))
    elif family == "sum":
        yield from (((s,), min(9, s - 1)) for s in range(6, 15))
    else:
        yield from (((n, a, b), n - 1) for n in range(5, 9) for a in range(1, 6) for b in range(a + 1, 10))
