"""The puzzles of the model organism: three families, each with disjoint in-domain and held-out parameters.

=============  =====================================================  =====================  =====================
family         question                                               in-domain              held out
=============  =====================================================  =====================  =====================
``congruence``  x below m·n with x mod m = a and x mod n = b           six pairs (m, n)       five other pairs
``linear``      x below p with k·x mod p = b                           p in 5, 7, 11          p in 8, 9, 10
``sumproduct``  x ≤ y with x + y = s and x·y = q                       even s                 odd s
=============  =====================================================  =====================  =====================

Self-distillation trains on in-domain ``congruence`` problems only. The other parameters of that family are near, the
other two families far out of distribution. All have a small, enumerable set of candidates, so that search with
verification succeeds and a confident guess mostly fails.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

FAMILIES = ("congruence", "linear", "sumproduct")
MAX_NUMBER = 150

CONGRUENCE_PAIRS = {
    "train": ((7, 5), (9, 5), (8, 5), (9, 7), (11, 8), (7, 9)),
    "heldout": ((11, 5), (8, 7), (11, 7), (9, 8), (8, 9)),
}
LINEAR_MODULI = {"train": (5, 7, 11), "heldout": (8, 9, 10)}
SUMS = {"train": tuple(range(8, 21, 2)), "heldout": tuple(range(7, 21, 2))}


@dataclass(frozen=True)
class Problem:
    """One puzzle.

    Attributes:
        family: one of :data:`FAMILIES`.
        split: ``"train"`` or ``"heldout"`` parameters.
        parameters: the numbers that define it, family-specific.
        answer: the one right value of x.
        candidates: every value a sensible search would try; contains the answer.
    """

    family: str
    split: str
    parameters: tuple[int, ...]
    answer: int
    candidates: tuple[int, ...]

    @property
    def problem_id(self) -> str:
        return f"{self.family}-" + "-".join(map(str, self.parameters))

    @property
    def question(self) -> str:
        p = self.parameters
        if self.family == "congruence":
            m, n, a, b = p
            return f"find x below {m * n} such that x mod {m} = {a} and x mod {n} = {b} ."
        if self.family == "linear":
            k, modulus, b = p
            return f"find x below {modulus} such that {k} * x mod {modulus} = {b} ."
        s, q = p
        return f"find x and y such that x + y = {s} and x * y = {q} with x the smaller ."

    def verification(self, x: int) -> tuple[list[tuple[str, bool]], int, int]:
        """The words that test a candidate.

        Returns:
            ``(words, computed, needed)``: the words up to the computed value, each with a flag that says whether it
            is a computed number (weighted more in pretraining), then the computed and the needed value.
        """
        p = self.parameters
        if self.family == "congruence":
            n, b = p[1], p[3]
            return [(str(x), False), ("mod", False), (str(n), False), ("=", False)], x % n, b
        if self.family == "linear":
            k, modulus, b = p
            words = [(str(k), False), ("*", False), (str(x), False), ("=", False), (str(k * x), True)]
            return [*words, ("mod", False), (str(modulus), False), ("=", False)], k * x % modulus, b
        s, q = p
        y = s - x
        words = [("y", False), ("=", False), (str(y), True), (",", False)]
        return [*words, (str(x), False), ("*", False), (str(y), False), ("=", False)], x * y, q


def _congruences(split: str) -> Iterator[Problem]:
    for m, n in CONGRUENCE_PAIRS[split]:
        for x in range(m * n):
            a, b = x % m, x % n
            yield Problem("congruence", split, (m, n, a, b), x, tuple(range(a, m * n, m)))


def _linear(split: str) -> Iterator[Problem]:
    for modulus in LINEAR_MODULI[split]:
        for k in range(2, modulus):
            if math.gcd(k, modulus) == 1:
                for x in range(1, modulus):
                    yield Problem("linear", split, (k, modulus, k * x % modulus), x, tuple(range(1, modulus)))


def _sumproduct(split: str) -> Iterator[Problem]:
    for s in SUMS[split]:
        for x in range(1, s // 2 + 1):
            yield Problem("sumproduct", split, (s, x * (s - x)), x, tuple(range(1, s // 2 + 1)))


_MAKERS = {"congruence": _congruences, "linear": _linear, "sumproduct": _sumproduct}


def all_problems(family: str, split: str | None = None) -> list[Problem]:
    """Every problem of a family, in a fixed order (`split=None`: in-domain first, then held out)."""
    splits = ("train", "heldout") if split is None else (split,)
    return [problem for s in splits for problem in _MAKERS[family](s)]
