"""The puzzles of the second organism: other arithmetic, built like the first one's.

=============  ===================================================  =====================  =====================
family         question                                             in-domain              held out
=============  ===================================================  =====================  =====================
``digits``     two-digit n with digit sum s, k·tens + units = q     k in 2, 4, 6, 8        k in 3, 5, 7
``coins``      n coins worth a among c coins worth a or b, sum q    four pairs (a, b)      four other pairs
``rectangle``  shorter side n, the other d longer, area q           odd d                  even d
=============  ===================================================  =====================  =====================

Self-distillation trains on in-domain ``digits`` problems only; the others are near and far as in `puzzles`.
"""

from __future__ import annotations

from collections.abc import Iterator

from calibrated_sd.organism.dialect import SECOND
from calibrated_sd.organism.problem import MAX_NUMBER, Problem, Words, computed, plain

SECOND_FAMILIES = ("digits", "coins", "rectangle")

FACTORS = {"train": (2, 4, 6, 8), "heldout": (3, 5, 7)}
DIGIT_SUMS = range(3, 17)  # at least three candidates each
COIN_PAIRS = {"train": ((2, 5), (3, 7), (4, 9), (5, 8)), "heldout": ((2, 7), (3, 8), (4, 7), (5, 9))}
COINS = range(3, 8)
DIFFERENCES = {"train": tuple(range(1, 12, 2)), "heldout": tuple(range(2, 13, 2))}
LONGEST_SHORT_SIDE = 10


class Digits(Problem):
    """A two-digit number; parameters s, k, q."""

    dialect = SECOND

    @property
    def question(self) -> str:
        s, k, q = self.parameters
        return f"what two-digit number has digit sum {s} and {k} times tens plus units {q} ."

    def verification(self, x: int) -> tuple[Words, int, int]:
        _, k, q = self.parameters
        tens, units = divmod(x, 10)
        words = [*plain(k, "*"), *computed(tens), *plain("="), *computed(k * tens), *plain("+"), *computed(units)]
        return [*words, *plain("=")], k * tens + units, q


class Coins(Problem):
    """Coins of two kinds; parameters c, a, b, q."""

    dialect = SECOND

    @property
    def question(self) -> str:
        c, a, b, q = self.parameters
        return f"how many of {c} coins worth {a} or {b} make {q} in all , what number of {a} ."

    def verification(self, x: int) -> tuple[Words, int, int]:
        c, a, b, q = self.parameters
        first, rest = a * x, c - x
        words = [*plain(x, "*", a, "="), *computed(first), *plain("+"), *computed(rest), *plain("*", b, "=")]
        return [*words, *computed(rest * b), *plain("sum")], first + rest * b, q


class Rectangle(Problem):
    """The sides of a rectangle; parameters d, q."""

    dialect = SECOND

    @property
    def question(self) -> str:
        d, q = self.parameters
        return f"what short side has a rectangle of area {q} and other side longer by {d} ."

    def verification(self, x: int) -> tuple[Words, int, int]:
        d, q = self.parameters
        return [*plain("side"), *computed(x + d), *plain(",", x, "*", x + d, "=")], x * (x + d), q


def _digits(split: str) -> Iterator[Problem]:
    for k in FACTORS[split]:
        for s in DIGIT_SUMS:
            numbers = tuple(x for x in range(10, 100) if sum(divmod(x, 10)) == s)
            for x in numbers:
                tens, units = divmod(x, 10)
                yield Digits("digits", split, (s, k, k * tens + units), x, numbers)


def _coins(split: str) -> Iterator[Problem]:
    for a, b in COIN_PAIRS[split]:
        for c in COINS:
            for x in range(c + 1):
                yield Coins("coins", split, (c, a, b, a * x + b * (c - x)), x, tuple(range(c + 1)))


def _rectangle(split: str) -> Iterator[Problem]:
    for d in DIFFERENCES[split]:
        sides = tuple(x for x in range(1, LONGEST_SHORT_SIDE + 1) if x * (x + d) <= MAX_NUMBER)
        for x in sides:
            yield Rectangle("rectangle", split, (d, x * (x + d)), x, sides)


SECOND_MAKERS = {"digits": _digits, "coins": _coins, "rectangle": _rectangle}
