"""E12: purified OPSD. Keep of the teacher only what the question adds to the context."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import reduce

from calibrated_sd.calibrators.base import Strength, Target, Views, is_number
from calibrated_sd.objectives.divergences import LOG_ZERO, widen
from calibrated_sd.shapes import Logps


@dataclass(frozen=True)
class Purified(Target):
    """The target p_T^(1−s)·q^s, normalised, with q = softmax(log p_R + clip·tanh(Δ/clip)/β). The strength is s.

    Δ = log p_T − log p_C, less its mean over the vocabulary, where p_C sees the context but not the question. What the
    context says whatever is asked (its wording, its answer, its brevity) is in both and cancels. q is the
    distribution with the greatest E_q[Δ] − β·KL(q‖p_R): the initial model, moved by what remains. At s = 1 the target
    is q, as published; below, a geometric mean with the teacher.

    Args:
        beta: β, over 0. Larger stays closer to the initial model.
        clip: bound on |Δ| in nats, over 0, approached smoothly.

    Source: Purified OPSD, arXiv:2607.02234, equations 5 and 13 to 17, second hand. There p_T, p_C and p_R are the same
    frozen weights: use `teacher_model_kind="base"`.
    """

    beta: float = 1.0
    clip: float = 10.0

    name = "purified"
    dial = "s, how far the target goes from the teacher to the purified one"
    suggested = 1.0
    strength_range = (0.0, 1.0)
    loss_tables = 6
    needs_context_only = True
    needs_markers = False

    def __post_init__(self) -> None:
        self.expect("beta", lambda x: is_number(x) and x > 0, "over 0")
        self.expect("clip", lambda x: is_number(x) and x > 0, "over 0")

    def edit_teacher(self, views: Views, strength: Strength) -> Logps:
        """See `Target.edit_teacher`. A probability of 0 counts as e^(−10⁴)."""
        strength = self.check_strength(strength)
        if strength == 0:
            return views.teacher
        reference, context_only = self.reference_of(views), self.context_only_of(views)
        with torch.no_grad():
            teacher = widen(views.teacher).clamp(min=LOG_ZERO)
            delta = teacher - widen(context_only).clamp(min=LOG_ZERO).to(teacher.dtype)
            delta.sub_(reduce(delta, "b t v -> b t 1", "mean"))
            delta.div_(self.clip).tanh_().mul_(self.clip / self.beta)
            purified = torch.log_softmax(delta.add_(widen(reference).clamp(min=LOG_ZERO)), dim=-1)
            if strength == 1:
                return purified
            return torch.log_softmax(torch.lerp(teacher, purified, strength), dim=-1)


__all__ = ["Purified"]
