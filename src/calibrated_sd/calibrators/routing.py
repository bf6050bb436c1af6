"""E7: how much to learn from the teacher depends on the student's entropy, or on the position in the completion."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, reduce

from calibrated_sd.calibrators.base import Strength, TokenStats, Weight, is_number
from calibrated_sd.calibrators.entropy_positions import entropy_threshold
from calibrated_sd.objectives.divergences import widen
from calibrated_sd.shapes import PerToken, TokenMask

ROUTES = ("entropy", "position", "both")


@dataclass(frozen=True)
class Routing(Weight):
    """w = 1 − s + s·route, with a route for each token of a completion. The strength is s.

    ``entropy``   route = max(w_min, tanh((τ − H)/σ)): H is the student's entropy, τ the value that the share `quantile`
                  of the completion's tokens exceeds, σ the mean absolute deviation of H. Certain tokens follow the
                  teacher, open ones do not; with `w_min` below 0 they are pushed away from it.
    ``position``  route = f + (1−f)·σ((x − c)/h) with x = (t + ½)/T, f = `position_floor`, c = `position_center`,
                  h = `position_width`: the first, branching decisions count less.
    ``both``      the product.

    A completion whose tokens are all equally uncertain has nothing to route: its entropy route is 1.

    Source: the entropy form is the first factor of the weight of DASD (Zhang et al. 2026, arXiv:2605.22263), there on
    an advantage and here on the divergence; the position form and its constants are those of PW-OPSD (Liu et al. 2026,
    arXiv:2605.21606), where local uncertainty predicted much less than position which teacher tokens to trust.

    Args:
        route_by: "entropy", "position" or "both".
        quantile: share of each completion's tokens, those of highest entropy, that count as open; between 0 and 1.
        w_min: least entropy route, from −1 (the published reversal) to 1.
        position_floor, position_center, position_width: f in [0, 1], c, and h over 0, the last two as shares of T.
    """

    route_by: str = "entropy"
    quantile: float = 0.2
    w_min: float = 0.0
    position_floor: float = 0.25
    position_center: float = 0.3
    position_width: float = 0.1

    name = "routing"
    dial = "s, how far the weights follow the route"
    suggested = 1.0
    strength_range = (0.0, 1.0)
    loss_tables = 0
    needs_reference = False
    needs_markers = False

    def __post_init__(self) -> None:
        self.expect("route_by", lambda x: x in ROUTES, "'entropy', 'position' or 'both'")
        self.expect("quantile", lambda x: is_number(x) and 0 < x < 1, "between 0 and 1, both excluded")
        self.expect("w_min", lambda x: is_number(x) and -1 <= x <= 1, "between -1 and 1")
        self.expect("position_floor", lambda x: is_number(x) and 0 <= x <= 1, "between 0 and 1")
        self.expect("position_center", is_number, "a number")
        self.expect("position_width", lambda x: is_number(x) and x > 0, "over 0")

    @property
    def needs_stats(self) -> frozenset[str]:  # type: ignore[override]
        """The student's entropy, unless only the position counts."""
        return frozenset() if self.route_by == "position" else frozenset({"student_entropy"})

    def weights(self, stats: TokenStats, strength: Strength) -> PerToken:
        """See `Weight.weights`; within [1 − s·(1 − w_min), 1], and exactly 1 on padding."""
        strength = self.check_strength(strength)
        ones = self.all_ones(stats)
        if strength == 0:
            return ones
        with torch.no_grad():
            route = ones
            if self.route_by != "position":
                route = self.entropy_route(self.stat(stats, "student_entropy"), stats.completion_mask)
            if self.route_by != "entropy":
                route = route * self.position_route(stats.completion_mask)
            return torch.where(stats.completion_mask > 0, 1.0 - strength + strength * route, 1.0)

    def entropy_route(self, entropy: PerToken, mask: TokenMask) -> PerToken:
        """max(w_min, tanh((τ − H)/σ)) over the counted positions of each row; anything on the others."""
        real = mask > 0
        entropy = torch.where(real, widen(entropy), 0.0)
        count = reduce(real.to(entropy.dtype), "b t -> b 1", "sum").clamp(min=1.0)
        mean = reduce(entropy, "b t -> b 1", "sum") / count
        deviation = reduce(torch.where(real, (entropy - mean).abs(), 0.0), "b t -> b 1", "sum") / count
        even = deviation <= 1e-6 * mean.abs()  # rounding alone differs
        threshold = rearrange(entropy_threshold(entropy, mask, self.quantile), "b -> b 1")
        route = torch.tanh((threshold - entropy) / torch.where(even, 1.0, deviation))
        return torch.where(even, 1.0, route.clamp(min=self.w_min))

    def position_route(self, mask: TokenMask) -> PerToken:
        """Rises from `position_floor` to 1 over the counted positions of each row; anything on the others."""
        real = (mask > 0).float()
        length = reduce(real, "b t -> b 1", "sum").clamp(min=1.0)
        place = (real.cumsum(dim=-1) - 0.5) / length
        rise = torch.sigmoid((place - self.position_center) / self.position_width)
        return self.position_floor + (1.0 - self.position_floor) * rise
