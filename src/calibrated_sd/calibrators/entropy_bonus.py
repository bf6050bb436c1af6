"""E12: a bonus on the student's entropy, the control that knows nothing about words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from calibrated_sd.calibrators.base import Penalty, Strength, Views
from calibrated_sd.objectives.divergences import entropy
from calibrated_sd.shapes import PerToken


@dataclass(frozen=True)
class EntropyBonus(Penalty):
    """Add λ·(log V − H(p_S)) = λ·KL(p_S‖uniform) at every position. The strength is λ.

    It has no reference, no markers and no target: it makes every choice less certain, including those that should be
    certain. If it preserves accuracy as well as a marker method does, the markers were not the point.

    The gradient on the student's logits is λ·p(v)·(log p(v) + H).

    Source: entropy regularisation, Williams and Peng 1991; as an option of a privileged-teacher method: AVSD,
    arXiv:2605.20643.
    """

    name = "entropy_bonus"
    dial = "λ, the weight of the missing entropy"
    suggested = 0.01
    strength_range = (0.0, math.inf)
    loss_tables = 3
    needs_reference = False
    needs_markers = False

    def penalty(self, views: Views, strength: Strength) -> PerToken:
        """See `Penalty.penalty`; in nats, between 0 and log V."""
        strength = self.check_strength(strength)
        if strength == 0:
            dtype = torch.promote_types(views.student.dtype, torch.float32)
            return torch.zeros(views.student.shape[:-1], dtype=dtype, device=views.student.device)
        return (math.log(views.student.shape[-1]) - entropy(views.student)).clamp(min=0.0)


__all__ = ["EntropyBonus"]
