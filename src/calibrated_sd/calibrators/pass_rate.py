"""E12: weigh a question by how undecided the student still is about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange

from calibrated_sd.calibrators.base import Strength, TokenStats, Weight
from calibrated_sd.objectives.divergences import widen
from calibrated_sd.shapes import PerToken

FORMS = ("sqrt", "p(1-p)", "4p(1-p)")


@dataclass(frozen=True)
class PassRate(Weight):
    """1 − s + s·w with w = √(p(1−p)), p the share of the row's group that succeeded. The strength is s.

    Questions that always or never succeed weigh nothing, those at p = ½ most. By default w is divided by its mean over
    the rows of the micro-batch, so that the size of a step stays. Then a micro-batch whose rows all belong to one
    question has nothing to compare, and every weight is 1: set `normalise` to false there.

    Args:
        form: "sqrt", "p(1-p)" or "4p(1-p)" (which is 1 at p = ½).
        normalise: divide by the mean over the rows of the micro-batch that have a completion. Rows of weight 0 stay 0.

    Source: √(p(1−p)), normalised: SC-SDPO, arXiv:2605.27765; p(1−p): PACED, arXiv:2603.11178; 4p(1−p): SSOPD,
    arXiv:2605.17497. All second hand.
    """

    form: str = "sqrt"
    normalise: bool = True

    name = "pass_rate"
    dial = "s, how much the weight of a row depends on the pass rate of its question"
    suggested = 1.0
    strength_range = (0.0, 1.0)
    loss_tables = 0
    needs_reference = False
    needs_markers = False
    needs_stats: ClassVar[frozenset[str]] = frozenset({"pass_rate"})

    def __post_init__(self) -> None:
        self.expect("form", lambda x: x in FORMS, "'sqrt', 'p(1-p)' or '4p(1-p)'")
        self.expect("normalise", lambda x: isinstance(x, bool), "true or false")

    def weights(self, stats: TokenStats, strength: Strength) -> PerToken:
        """See `Weight.weights`; the same for all positions of a row."""
        strength = self.check_strength(strength)
        mask = stats.completion_mask
        if strength == 0:
            return self.all_ones(stats)
        with torch.no_grad():
            rate = widen(self.stat(stats, "pass_rate")).clamp(0.0, 1.0)
            weight = rate * (1.0 - rate)
            if self.form == "sqrt":
                weight = weight.sqrt()
            elif self.form == "4p(1-p)":
                weight = 4.0 * weight
            if self.normalise:
                real = (mask > 0).any(dim=-1)
                mean = torch.where(real, weight, 0.0).sum() / real.sum().clamp(min=1)
                weight = weight / torch.where(mean > 0, mean, 1.0)
            row = 1.0 - strength + strength * weight
            return rearrange(row, "b -> b 1").expand(mask.shape).clone()


__all__ = ["PassRate"]
