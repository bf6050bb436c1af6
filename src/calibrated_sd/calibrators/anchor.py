"""E8: around markers, imitate the context-free reference instead of the teacher."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool
from torch import Tensor

from calibrated_sd.calibrators.base import Strength, Target, Views, is_number
from calibrated_sd.calibrators.mixture import mix_per_token
from calibrated_sd.errors import ConfigError
from calibrated_sd.objectives.decomposition import log_marker_mass
from calibrated_sd.shapes import Logps


@dataclass(frozen=True)
class Anchor(Target):
    """(1−s)·p_T + s·p_R at the positions P around markers, p_T elsewhere. The strength is s.

    P holds every position whose sampled token is a marker or where the reference gives markers more than `theta`,
    widened by `dilation` positions to either side. So it protects not only the decision to doubt but also what is said
    next. The price is that nothing of the context is learned on P.

    Args:
        theta: marker mass of the reference above which a position counts, 0 or more (over 1: sampled markers only).
        dilation: how many neighbours on each side join P.
    """

    theta: float = 0.02
    dilation: int = 3

    name = "anchor"
    dial = "s, the weight of the context-free reference around markers"
    suggested = 1.0
    strength_range = (0.0, 1.0)
    needs_completion = True

    def __post_init__(self) -> None:
        self.expect("theta", lambda x: is_number(x) and x >= 0, "0 or more")
        self.expect("dilation", lambda x: is_number(x) and x >= 0 and x == int(x), "a whole number, 0 or more")

    def positions(self, views: Views) -> Bool[Tensor, "B T"]:
        """P as a mask, within the completion. Its share of the completion says how much is left to learn from.

        Raises:
            ConfigError: the views hold no completion ids or mask.
        """
        if views.completion_ids is None or views.completion_mask is None:
            raise ConfigError(
                "'anchor' looks at the sampled tokens and their neighbours, but the views hold none. "
                "Pass `Views(completion_ids=..., completion_mask=...)`."
            )
        real = views.completion_mask > 0
        with torch.no_grad():
            m_r = log_marker_mass(self.reference_of(views), views.marker_ids).exp()
            hit = (torch.isin(views.completion_ids, views.marker_ids) | (m_r > self.theta)) & real
            if self.dilation:
                padded = rearrange(hit.float(), "b t -> b 1 t")
                wide = F.max_pool1d(padded, 2 * self.dilation + 1, stride=1, padding=self.dilation)
                hit = (rearrange(wide, "b 1 t -> b t") > 0) & real
            return hit

    def edit_teacher(self, views: Views, strength: Strength) -> Logps:
        """See `Target.edit_teacher`."""
        strength = self.check_strength(strength)
        if strength == 0:
            return views.teacher
        weight = self.positions(views) * strength
        return mix_per_token(views.teacher, self.reference_of(views), weight)
