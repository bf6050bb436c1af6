"""E3: distil without any pressure on the marker mass, in either direction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from calibrated_sd.calibrators.base import Divergence, Strength, Views
from calibrated_sd.objectives import divergence
from calibrated_sd.objectives.decomposition import log_complement, log_marker_mass
from calibrated_sd.objectives.divergences import widen
from calibrated_sd.shapes import Logps, MarkerIds, PerToken


@dataclass(frozen=True)
class Neutral(Divergence):
    """(1−s)·D(p_S, p_T) + s·[m̄·D(p_S(·|M), p_T(·|M)) + (1−m̄)·D(p_S(·|¬M), p_T(·|¬M))]. The strength is s.

    M are the markers, ¬M the other tokens, and m̄ = m_S as a constant: no gradient goes through the weights. The student
    learns which marker and which other token, and nothing about how often to doubt: at s = 1 the gradients on the
    logits of M sum to zero, and so do those on the logits of ¬M, whatever the divergence.

    Under forward KL this is the same as moving the teacher's marker mass to m̄. Under reverse KL and JSD that would
    leave a force on m_S: for reverse KL m_S·(1−m_S)·(KL_M − KL_¬M), away from the group that fits worse. Hence the
    constant weights.

    A group that either side gives a probability of exactly 0 has no distribution within it and adds nothing.
    """

    name = "neutral"
    dial = "s, the share of the loss that exerts no pressure on the marker mass"
    suggested = 1.0
    strength_range = (0.0, 1.0)
    loss_tables = 3
    needs_reference = False

    def divergence(self, views: Views, alpha: float, strength: Strength) -> PerToken:
        """See `Divergence.divergence`."""
        strength = self.check_strength(strength)
        if strength == 0:
            return divergence(views.student, views.teacher, alpha)
        neutral = neutral_divergence(views.student, views.teacher, views.marker_ids, alpha)
        if strength == 1:  # an infinite plain divergence must not become 0·∞
            return neutral
        return (1.0 - strength) * divergence(views.student, views.teacher, alpha) + strength * neutral


def neutral_divergence(student: Logps, teacher: Logps, marker_ids: MarkerIds, alpha: float) -> PerToken:
    """The divergence within markers and within other tokens, weighted by the student's masses as constants, (B, T)."""
    others = torch.ones(student.shape[-1], dtype=torch.bool, device=student.device)
    others[marker_ids] = False
    log_m = log_marker_mass(student.detach(), marker_ids)
    inside = _within(student, teacher, marker_ids, log_m.exp(), alpha)
    outside = _within(student, teacher, others.nonzero().flatten(), log_complement(log_m).exp(), alpha)
    return inside + outside


def _within(student: Tensor, teacher: Tensor, columns: Tensor, weight: Tensor, alpha: float) -> Tensor:
    """weight · D between the two distributions given that the token is one of the columns."""
    student, teacher = (widen(logps.index_select(-1, columns)) for logps in (student, teacher))
    absent = (weight == 0) | torch.isneginf(student.amax(-1)) | torch.isneginf(teacher.amax(-1))
    # Equal dummies where there is nothing to compare: a finite value and a finite gradient, both 0.
    dummy = rearrange(absent, "b t -> b t 1")
    student, teacher = (logps.masked_fill(dummy, 0.0).log_softmax(-1) for logps in (student, teacher))
    return weight * divergence(student, teacher, alpha)
