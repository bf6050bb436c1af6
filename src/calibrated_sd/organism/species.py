"""The two organisms by name: what they are asked, how they speak, which suites measure them, where their weights are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from calibrated_sd.errors import unknown_name
from calibrated_sd.organism.dialect import FIRST, SECOND, Dialect
from calibrated_sd.organism.puzzles import FAMILIES
from calibrated_sd.organism.second_puzzles import SECOND_FAMILIES

CONTEXTS = ("none", "stripped", "regenerated", "solution")
"""c = ∅, s∖think, ỹ and s in the paper's notation, in the order of rising information."""

IRRELEVANT = "irrelevant"
"""Another puzzle's solution in the context."""


class Suite(NamedTuple):
    """One evaluation suite: its role (train, heldout or far), its label, and the problems it draws from."""

    role: str
    label: str
    family: str
    split: str | None


@dataclass(frozen=True)
class Species:
    """One organism.

    Attributes:
        name: as in `model:` and `problems:` of a recipe.
        dialect: its words.
        families: its puzzles; self-distillation trains on in-domain problems of the first.
        shares: of the families in the corpus, in their order.
        suites: name → suite.
        contexts: levels that its ladder measures.
        weights: folder of the shipped checkpoint.
    """

    name: str
    dialect: Dialect
    families: tuple[str, ...]
    shares: tuple[float, ...]
    suites: dict[str, Suite]
    contexts: tuple[str, ...]
    weights: Path

    @property
    def ood_suites(self) -> tuple[str, ...]:
        return tuple(name for name, suite in self.suites.items() if suite.role != "train")


_HERE = Path(__file__).resolve().parent

SPECIES = {
    "organism": Species(
        name="organism",
        dialect=FIRST,
        families=FAMILIES,
        shares=(0.46, 0.30, 0.24),  # the hardest to learn is shown most
        suites={
            "train": Suite("train", "congruence, trained problems", "congruence", "train"),
            "heldout": Suite("heldout", "congruence, other moduli", "congruence", "heldout"),
            "far_linear": Suite("far", "linear congruence", "linear", None),
            "far_sumproduct": Suite("far", "sum and product", "sumproduct", None),
        },
        contexts=CONTEXTS,
        weights=_HERE / "weights",
    ),
    "organism2": Species(
        name="organism2",
        dialect=SECOND,
        families=SECOND_FAMILIES,
        shares=(0.42, 0.38, 0.20),
        suites={
            "train": Suite("train", "digits, trained problems", "digits", "train"),
            "heldout": Suite("heldout", "digits, other factors", "digits", "heldout"),
            "far_coins": Suite("far", "coins", "coins", None),
            "far_rectangle": Suite("far", "rectangle", "rectangle", None),
        },
        contexts=(*CONTEXTS, IRRELEVANT),
        weights=_HERE / "weights2",
    ),
}
"""Name → organism."""


def species(name: str = "organism") -> Species:
    """The organism of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in SPECIES:
        raise unknown_name("organism", name, SPECIES)
    return SPECIES[name]


def species_of(family: str) -> Species:
    """The organism that is asked the puzzles of a family."""
    return next(s for s in SPECIES.values() if family in s.families)
