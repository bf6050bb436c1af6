"""E8, additive form: a KL penalty to the context-free reference around markers, beside the teacher's divergence."""

from __future__ import annotations

import math
from dataclasses import dataclass

from calibrated_sd.calibrators.base import Penalty, Strength, TokenStats, Views
from calibrated_sd.calibrators.marker_positions import MarkerPositions, gate_of
from calibrated_sd.objectives import forward_kl
from calibrated_sd.objectives.divergences import widen
from calibrated_sd.shapes import PerToken


@dataclass(frozen=True)
class AnchorKL(MarkerPositions, Penalty):
    """Add λ·KL(p_R‖p_S) at the positions P around markers, and nothing elsewhere. The strength is λ.

    P as in `Anchor`: the sampled token is a marker, or the reference gives markers more than `theta`; widened by
    `dilation` positions to either side, so that what follows the marker counts, too. Unlike the floor it defends the
    whole distribution there and pulls from both sides.

    Source: a context-free anchor is published in several forms, for one as the KL term of SDPG (arXiv:2606.04036);
    restricting it to markers is ours.

    Args:
        theta: marker mass of the reference above which a position counts, 0 or more (over 1: sampled markers only).
        dilation: how many neighbours on each side join P.
    """

    dilation: int = 1

    name = "anchor_kl"
    dial = "λ, the weight of the KL to the context-free reference around markers"
    suggested = 0.5
    strength_range = (0.0, math.inf)
    loss_tables = 5

    def token_gate(self, stats: TokenStats) -> PerToken:
        """1 on P, 0 elsewhere."""
        return self.positions(stats).float()

    def penalty(self, views: Views, strength: Strength) -> PerToken:
        """See `Penalty.penalty`. Works on the positions of P only; infinite where the student rules a token out."""
        strength = self.check_strength(strength)
        if strength == 0:
            return widen(views.student.detach()[..., 0]).new_zeros(views.student.shape[:2])
        chosen = gate_of(self, views) > 0
        divergences = forward_kl(student=views.student[chosen], teacher=self.reference_of(views)[chosen])
        return divergences.new_zeros(chosen.shape).masked_scatter(chosen, divergences)
