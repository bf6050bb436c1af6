"""E1: a penalty where the student gives markers less probability than the reference does."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from calibrated_sd.calibrators.base import Penalty, Strength, Views, is_number
from calibrated_sd.objectives.decomposition import binary_kl, log_marker_mass
from calibrated_sd.shapes import PerToken


@dataclass(frozen=True)
class Floor(Penalty):
    """Add λ·KLb(κ·m_R‖m_S) at positions where m_S < κ·m_R, and nothing elsewhere.

    The gradient on the student's logits is −(a − m_S)·p_S(v)/m_S on markers and (a − m_S)·p_S(v)/(1−m_S) on other
    tokens, with a = κ·m_R: it sums to zero, is small wherever both masses are small, leaves the proportions within and
    outside the markers alone, and never asks for more than κ·m_R. The strength is λ.

    Args:
        kappa: share κ of the reference's marker mass that is defended, over 0 and at most 1.
        form: "kl" as above, or "loghinge": relu(log κ·m_R − log m_S − delta)² where m_R > min_mass. The hinge pulls
            harder on a student that has almost forgotten a marker, hence the gate by m_R.
        delta: slack of the hinge in nats (log 2 tolerates half the mass).
        min_mass: marker mass of the reference below which the hinge is silent.
    """

    kappa: float = 1.0
    form: str = "kl"
    delta: float = math.log(2.0)
    min_mass: float = 1e-3

    name = "floor"
    dial = "λ, the weight of the penalty"
    suggested = 1.0
    strength_range = (0.0, math.inf)
    loss_tables = 2

    def __post_init__(self) -> None:
        self.expect("kappa", lambda x: is_number(x) and 0 < x <= 1, "over 0 and at most 1")
        self.expect("form", lambda x: x in ("kl", "loghinge"), "'kl' or 'loghinge'")
        self.expect("delta", lambda x: is_number(x) and x >= 0, "0 or more")
        self.expect("min_mass", lambda x: is_number(x) and 0 <= x < 1, "at least 0 and below 1")

    def penalty(self, views: Views, strength: Strength) -> PerToken:
        """See `Penalty.penalty`. Memory is that of |M| columns, not of the vocabulary."""
        strength = self.check_strength(strength)
        log_m_s = log_marker_mass(views.student, views.marker_ids)
        if strength == 0:
            return torch.zeros_like(log_m_s, requires_grad=False)
        with torch.no_grad():
            log_m_r = log_marker_mass(self.reference_of(views), views.marker_ids).to(log_m_s.dtype)
            log_a = log_m_r + math.log(self.kappa)
        if self.form == "kl":
            return torch.where(log_m_s < log_a, binary_kl(log_a, log_m_s), 0.0)
        gap = torch.relu(log_a - log_m_s - self.delta)
        return torch.where(log_m_r > math.log(max(self.min_mass, 1e-30)), gap.square(), 0.0)
