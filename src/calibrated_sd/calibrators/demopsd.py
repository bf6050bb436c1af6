"""E12: DemoPSD. Where teacher and student disagree most, trust the student more."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from calibrated_sd.calibrators.base import Strength, Target, Views, is_number
from calibrated_sd.objectives.decomposition import spread
from calibrated_sd.objectives.divergences import LOG_ZERO, jsd, widen
from calibrated_sd.shapes import Logps, PerToken


@dataclass(frozen=True)
class DemoPSD(Target):
    """q ∝ p_T^(1−a)·p_S^a with a(t) = 2·α_max·(σ(β·d(t)) − ½) and d = JSD(p_S, p_T). The strength is α_max.

    q is the distribution with the least (1−a)·KL(q‖p_T) + a·KL(q‖p_S). Reverse KL to it has the student gradient of
    (1−a)·KL(p_S‖p_T): the teacher's signal, damped where it disagrees most. There a tends to α_max; where both agree it
    is 0. The student enters without gradient. Nothing in it is about words, and no reference is needed.

    Args:
        beta: β, how fast a grows with the disagreement (in nats, at most log 2), over 0.

    Source: DemoPSD, arXiv:2607.02502, equations 7 to 9. There a moving average of the student stands for p_S; here it is
    the student itself.
    """

    beta: float = 50.0

    name = "demopsd"
    dial = "α_max, the weight of the student in its own target where it disagrees most with the teacher"
    suggested = 0.15
    strength_range = (0.0, 1.0)
    loss_tables = 7
    needs_reference = False
    needs_markers = False

    def __post_init__(self) -> None:
        self.expect("beta", lambda x: is_number(x) and x > 0, "over 0")

    def student_share(self, views: Views, strength: Strength) -> PerToken:
        """a(t), (B, T) in [0, α_max)."""
        strength = self.check_strength(strength)
        with torch.no_grad():
            disagreement = jsd(views.student, views.teacher).clamp(min=0.0)
            # 2·(σ(x) − ½) = tanh(x/2), which is exact near 0.
            return strength * torch.tanh(0.5 * self.beta * disagreement)

    def edit_teacher(self, views: Views, strength: Strength) -> Logps:
        """See `Target.edit_teacher`."""
        strength = self.check_strength(strength)
        if strength == 0:
            return views.teacher
        with torch.no_grad():
            share = spread(self.student_share(views, strength))
            # A probability of 0 becomes e^(−10⁴): two views that rule out each other's tokens still have a barycentre.
            teacher = widen(views.teacher).clamp(min=LOG_ZERO)
            student = widen(views.student).clamp(min=LOG_ZERO).to(teacher.dtype)
            return torch.log_softmax(torch.lerp(teacher, student, share.to(teacher.dtype)), dim=-1)


__all__ = ["DemoPSD"]
