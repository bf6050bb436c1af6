"""E12: a cap on what a single token may contribute to the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from calibrated_sd.calibrators.base import Strength, TokenStats, Weight
from calibrated_sd.objectives.divergences import widen
from calibrated_sd.shapes import PerToken


@dataclass(frozen=True)
class Clip(Weight):
    """w = min(1, c/D) with D the divergence of the token and c = 1/strength nats: no token counts more than c.

    The cap is on the divergence of a token, never on the single terms p·log(p/q) of which it is the sum: those may be
    negative. Cutting only the large positive ones leaves something that is no divergence: for p_T = (.7, .2, .1) and
    p_S = (.1, .3, .6) the KL is 1.10, the sum of terms cut at 0.05 is −0.21, less than the 0 of a perfect student, and
    its minimum is a student that never says what the teacher says most.

    Args:
        beyond: "scaled" keeps the direction of such a token's gradient and shortens it to c/D; "zero" leaves the token
            out. The gradient of min(D, c) itself is that of "zero".

    Source: the published clip acts on single terms, OPSD, arXiv:2601.18734; the cap on the sum is ours.
    """

    beyond: str = "scaled"

    name = "clip"
    dial = "1/c, the inverse of the cap c on the divergence of a token in nats"
    suggested = 10.0
    strength_range = (0.0, math.inf)
    loss_tables = 0
    needs_reference = False
    needs_markers = False
    needs_stats: ClassVar[frozenset[str]] = frozenset({"divergence_to_student"})

    def __post_init__(self) -> None:
        self.expect("beyond", lambda x: x in ("scaled", "zero"), "'scaled' or 'zero'")

    def weights(self, stats: TokenStats, strength: Strength) -> PerToken:
        """See `Weight.weights`. Padding weighs 1."""
        strength = self.check_strength(strength)
        mask = stats.completion_mask
        if strength == 0:
            return self.all_ones(stats)
        with torch.no_grad():
            size = widen(self.stat(stats, "divergence_to_student"))
            above = (mask > 0) & (size * strength > 1.0)
            beyond = torch.zeros_like(size) if self.beyond == "zero" else 1.0 / (size * strength)
            return torch.where(above, beyond, 1.0)


__all__ = ["Clip"]
