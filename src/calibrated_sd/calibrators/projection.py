"""E2: raise the teacher's marker mass to the reference's, and change nothing else about the teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from calibrated_sd.calibrators.base import Strength, Target, Views
from calibrated_sd.objectives.decomposition import log_complement, log_marker_mass, spread
from calibrated_sd.objectives.divergences import LOG_ZERO, widen
from calibrated_sd.shapes import Logps, PerToken


@dataclass(frozen=True)
class Projection(Target):
    """Replace p_T by the distribution nearest to it among those with marker mass of at least κ·m_R.

    With c = max(m_T, κ·m_R) the answer is in closed form: q = p_T · c/m_T on markers, p_T · (1−c)/(1−m_T) elsewhere.
    Equivalently, max(0, logit(κ·m_R) − logit(m_T)) is added to every marker logit. The distributions over markers and
    over other tokens stay those of the teacher, and the edit costs KL(q‖p_T) = KLb(c‖m_T).

    The strength is κ. Above 1 it asks for more doubt than the initial model has (for ablations only).
    A position where the teacher gives markers a probability of exactly 0 has no projection and is left alone.

    Source: I-projection, Csiszár 1975, *I-divergence geometry of probability distributions*, Theorem 3.1, for one
    linear constraint.
    """

    name = "projection"
    dial = "κ, the share of the reference's marker mass that the teacher must keep"
    suggested = 1.0
    strength_range = (0.0, 2.0)
    loss_tables = 3

    def shifts(self, views: Views, strength: Strength) -> tuple[PerToken, PerToken]:
        """What is added to the teacher's log-probabilities on markers and elsewhere, two (B, T); both 0 if nothing is.

        For callers that hold single log-probabilities (a sampled token, a top-k support) and not the vocabulary.
        """
        strength = self.check_strength(strength)
        with torch.no_grad():
            log_m_t = log_marker_mass(views.teacher, views.marker_ids)
            if strength == 0:
                return torch.zeros_like(log_m_t), torch.zeros_like(log_m_t)
            log_c = log_marker_mass(self.reference_of(views), views.marker_ids) + math.log(strength)
            log_c = log_c.clamp(max=-torch.finfo(log_c.dtype).eps).to(log_m_t.dtype)
            lift = (log_c > log_m_t) & (log_m_t > LOG_ZERO / 2)
            on_markers = torch.where(lift, log_c - log_m_t, 0.0)
            elsewhere = torch.where(lift, log_complement(log_c) - log_complement(log_m_t), 0.0)
            return on_markers, elsewhere

    def edit_teacher(self, views: Views, strength: Strength) -> Logps:
        """See `Target.edit_teacher`. One new (B, T, V) tensor, no softmax over the vocabulary."""
        strength = self.check_strength(strength)
        if strength == 0:
            return views.teacher
        on_markers, elsewhere = self.shifts(views, strength)
        with torch.no_grad():
            teacher = widen(views.teacher)
            edited = teacher + spread(elsewhere)
            columns = teacher.index_select(-1, views.marker_ids) + spread(on_markers)
            return edited.index_copy_(-1, views.marker_ids, columns)
