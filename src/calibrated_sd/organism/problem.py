"""What every puzzle of an organism is: a question, its one answer, the candidates of a search, and how one is tested."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from calibrated_sd.organism.dialect import Dialect

MAX_NUMBER = 150
"""The largest number with a token of its own."""

Words = list[tuple[str, bool]]


@dataclass(frozen=True)
class Problem(ABC):
    """One puzzle; each family is a subclass.

    Attributes:
        family: one of the families of an organism.
        split: ``"train"`` or ``"heldout"`` parameters.
        parameters: the numbers that define it, family-specific.
        answer: the one right value.
        candidates: every value a sensible search would try; contains the answer.
    """

    family: str
    split: str
    parameters: tuple[int, ...]
    answer: int
    candidates: tuple[int, ...]

    dialect: ClassVar[Dialect]

    @property
    def problem_id(self) -> str:
        return f"{self.family}-" + "-".join(map(str, self.parameters))

    @property
    @abstractmethod
    def question(self) -> str:
        """The text of the user turn."""

    @abstractmethod
    def verification(self, x: int) -> tuple[Words, int, int]:
        """The words that test a candidate.

        Returns:
            ``(words, computed, needed)``: the words up to the computed value, each with a flag that says whether it
            is a computed number (weighted more in pretraining), then the computed and the needed value.
        """


def plain(*words: str | int) -> Words:
    """Words and given numbers, none of them computed."""
    return [(str(word), False) for word in words]


def computed(number: int) -> Words:
    """One computed number."""
    return [(str(number), True)]
