"""E8: around markers, or where the student is uncertain, imitate the context-free reference instead of the teacher."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from calibrated_sd.calibrators.base import Strength, Target, TokenStats, Views, is_number
from calibrated_sd.calibrators.entropy_positions import most_uncertain
from calibrated_sd.calibrators.marker_positions import MarkerPositions, gate_of
from calibrated_sd.calibrators.mixture import mix_per_token
from calibrated_sd.objectives.divergences import widen
from calibrated_sd.shapes import Logps, PerToken


@dataclass(frozen=True)
class Anchor(MarkerPositions, Target):
    """(1−s·U)·p_T + s·U·p_R at the positions P, p_T elsewhere. The strength is s.

    With ``gate="markers"`` P holds every position whose sampled token is a marker or where the reference gives markers
    more than `theta`, widened by `dilation` positions to either side. So it protects not only the decision to doubt but
    also what is said next. With ``gate="entropy"`` P are the most uncertain positions of each completion. The price is
    that little of the context is learned on P.

    U is 1 with ``mode="replace"``. With ``mode="adopsd"`` it is σ(p_S(y)·(log p_S(y) − log p_T(y))/tau) for the sampled
    token y: ½ where student and teacher agree, more where the teacher takes away what the student was sure of.

    Source: U with the entropy gate is the target of AD-OPSD (arXiv:2607.10805); gating by markers is ours.

    Args:
        theta: marker mass of the reference above which a position counts, 0 or more (over 1: sampled markers only).
        dilation: how many neighbours on each side join P.
        mode: "replace" or "adopsd".
        gate: "markers" or "entropy"; `theta` and `dilation` belong to the first, `quantile` to the second.
        tau: softness of U, over 0.
        quantile: share of each completion's positions, those of highest student entropy, that make up P.
    """

    mode: str = "replace"
    gate: str = "markers"
    tau: float = 1.0
    quantile: float = 0.2

    name = "anchor"
    dial = "s, the weight of the context-free reference at the gated positions"
    suggested = 1.0
    strength_range = (0.0, 1.0)
    loss_tables = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect("mode", lambda x: x in ("replace", "adopsd"), "'replace' or 'adopsd'")
        self.expect("gate", lambda x: x in ("markers", "entropy"), "'markers' or 'entropy'")
        self.expect("tau", lambda x: is_number(x) and x > 0, "over 0")
        self.expect("quantile", lambda x: is_number(x) and 0 < x < 1, "between 0 and 1, both excluded")

    @property
    def needs_markers(self) -> bool:  # type: ignore[override]
        """Not with the entropy gate."""
        return self.gate == "markers"

    @property
    def needs_stats(self) -> frozenset[str]:  # type: ignore[override]
        """What P and U are made of."""
        places = "log_m_reference" if self.gate == "markers" else "student_entropy"
        return frozenset({places} | ({"student_logps", "teacher_logps"} if self.mode == "adopsd" else set()))

    def positions(self, stats: TokenStats) -> Bool[Tensor, "B T"]:
        """P as a mask, within the completion. Its share of the completion says how much is left to learn from."""
        if self.gate == "markers":
            return super().positions(stats)
        return most_uncertain(self.stat(stats, "student_entropy"), stats.completion_mask, self.quantile)

    def token_gate(self, stats: TokenStats) -> PerToken:
        """U on P, 0 elsewhere."""
        chosen = self.positions(stats)
        if self.mode == "replace":
            return chosen.float()
        with torch.no_grad():
            student, teacher = (widen(self.stat(stats, field)) for field in ("student_logps", "teacher_logps"))
            # A token that both rule out was not sampled from this student; p·log p is 0 there.
            taken = torch.where(torch.isneginf(student), 0.0, student.exp() * (student - teacher))
            return torch.where(chosen, torch.sigmoid(taken / self.tau), 0.0)

    def edit_teacher(self, views: Views, strength: Strength) -> Logps:
        """See `Target.edit_teacher`."""
        strength = self.check_strength(strength)
        if strength == 0:
            return views.teacher
        gate = gate_of(self, views).to(widen(views.teacher).dtype)
        return mix_per_token(views.teacher, self.reference_of(views), gate * strength)
