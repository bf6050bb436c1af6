"""E5: mix with the reference only as far as the marker floor needs, position by position."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from calibrated_sd.calibrators.base import Strength, Target, Views, is_number
from calibrated_sd.calibrators.mixture import mix_per_token
from calibrated_sd.objectives.decomposition import log_marker_mass
from calibrated_sd.shapes import Logps, PerToken


@dataclass(frozen=True)
class MixToFloor(Target):
    """(1−w(t))·p_T + w(t)·p_R with the smallest w(t) that brings the marker mass to κ·m_R.

    w(t) = (κ·m_R − m_T)/(m_R − m_T) where m_T < κ·m_R, else 0. Unlike the projection it moves the whole distribution
    toward the reference, including what is said besides the marker. The strength is κ. At κ = 1 the weight is 0 or 1:
    the target is the reference wherever the teacher's marker mass is smaller, by however little.

    Args:
        min_mass: marker mass of the reference at or below which a position is left to the teacher. 0 is the plain
            formula; 1e-3, say, restricts the edit to positions where a marker is a real possibility.
    """

    min_mass: float = 0.0

    name = "mix_to_floor"
    dial = "κ, the share of the reference's marker mass that the mixture must reach"
    suggested = 1.0
    strength_range = (0.0, 1.0)
    loss_tables = 3

    def __post_init__(self) -> None:
        self.expect("min_mass", lambda x: is_number(x) and 0 <= x < 1, "at least 0 and below 1")

    def mixing_weight(self, views: Views, strength: Strength) -> PerToken:
        """w(t), (B, T) in [0, 1]: how much of the target is the reference."""
        strength = self.check_strength(strength)
        with torch.no_grad():
            m_t = log_marker_mass(views.teacher, views.marker_ids).exp()
            m_r = log_marker_mass(self.reference_of(views), views.marker_ids).exp().to(m_t.dtype)
            short = (m_t < strength * m_r) & (m_r > self.min_mass)
            needed = (strength * m_r - m_t) / torch.where(short, m_r - m_t, 1.0)
            return torch.where(short, needed, 0.0).clamp(0.0, 1.0)

    def edit_teacher(self, views: Views, strength: Strength) -> Logps:
        """See `Target.edit_teacher`."""
        strength = self.check_strength(strength)
        if strength == 0:
            return views.teacher
        return mix_per_token(views.teacher, self.reference_of(views), self.mixing_weight(views, strength))
