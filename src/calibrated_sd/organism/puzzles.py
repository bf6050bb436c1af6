"""The puzzles of the first organism: three families, each with disjoint in-domain and held-out parameters.

==============  =====================================================  =====================  =====================
family          question                                               in-domain              held out
==============  =====================================================  =====================  =====================
``congruence``  x below m·n with x mod m = a and x mod n = b           six pairs (m, n)       five other pairs
``linear``      x below p with k·x mod p = b                           p in 5, 7, 11          p in 8, 9, 10
``sumproduct``  x ≤ y with x + y = s and x·y = q                       even s                 odd s
==============  =====================================================  =====================  =====================

Self-distillation trains on in-domain ``congruence`` problems only. The other parameters of that family are near, the
other two families far out of distribution. All have a small, enumerable set of candidates, so that search with
verification succeeds and a confident guess mostly fails. The second organism's families are in `second_puzzles`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from calibrated_sd.organism.dialect import FIRST
from calibrated_sd.organism.problem import MAX_NUMBER, Problem, Words, computed, plain
from calibrated_sd.organism.second_puzzles import SECOND_MAKERS

__all__ = ["FAMILIES", "MAX_NUMBER", "Problem", "all_problems"]

FAMILIES = ("congruence", "linear", "sumproduct")

CONGRUENCE_PAIRS = {
    "train": ((7, 5), (9, 5), (8, 5), (9, 7), (11, 8), (7, 9)),
    "heldout": ((11, 5), (8, 7), (11, 7), (9, 8), (8, 9)),
}
LINEAR_MODULI = {"train": (5, 7, 11), "heldout": (8, 9, 10)}
SUMS = {"train": tuple(range(8, 21, 2)), "heldout": tuple(range(7, 21, 2))}


class Congruence(Problem):
    """Two congruences; parameters m, n, a, b."""

    dialect = FIRST

    @property
    def question(self) -> str:
        m, n, a, b = self.parameters
        return f"find x below {m * n} such that x mod {m} = {a} and x mod {n} = {b} ."

    def verification(self, x: int) -> tuple[Words, int, int]:
        _, n, _, b = self.parameters
        return plain(x, "mod", n, "="), x % n, b


class Linear(Problem):
    """A linear congruence; parameters k, modulus, b."""

    dialect = FIRST

    @property
    def question(self) -> str:
        k, modulus, b = self.parameters
        return f"find x below {modulus} such that {k} * x mod {modulus} = {b} ."

    def verification(self, x: int) -> tuple[Words, int, int]:
        k, modulus, b = self.parameters
        return [*plain(k, "*", x, "="), *computed(k * x), *plain("mod", modulus, "=")], k * x % modulus, b


class SumProduct(Problem):
    """Two numbers by sum and product; parameters s, q."""

    dialect = FIRST

    @property
    def question(self) -> str:
        s, q = self.parameters
        return f"find x and y such that x + y = {s} and x * y = {q} with x the smaller ."

    def verification(self, x: int) -> tuple[Words, int, int]:
        s, q = self.parameters
        y = s - x
        return [*plain("y", "="), *computed(y), *plain(",", x, "*", y, "=")], x * y, q


def _congruences(split: str) -> Iterator[Problem]:
    for m, n in CONGRUENCE_PAIRS[split]:
        for x in range(m * n):
            a, b = x % m, x % n
            yield Congruence("congruence", split, (m, n, a, b), x, tuple(range(a, m * n, m)))


def _linear(split: str) -> Iterator[Problem]:
    for modulus in LINEAR_MODULI[split]:
        for k in range(2, modulus):
            if math.gcd(k, modulus) == 1:
                for x in range(1, modulus):
                    yield Linear("linear", split, (k, modulus, k * x % modulus), x, tuple(range(1, modulus)))


def _sumproduct(split: str) -> Iterator[Problem]:
    for s in SUMS[split]:
        for x in range(1, s // 2 + 1):
            yield SumProduct("sumproduct", split, (s, x * (s - x)), x, tuple(range(1, s // 2 + 1)))


_MAKERS = {"congruence": _congruences, "linear": _linear, "sumproduct": _sumproduct, **SECOND_MAKERS}


def all_problems(family: str, split: str | None = None) -> list[Problem]:
    """Every problem of a family, in a fixed order (`split=None`: in-domain first, then held out)."""
    splits = ("train", "heldout") if split is None else (split,)
    return [problem for s in splits for problem in _MAKERS[family](s)]
