"""E5: mix the teacher's distribution with the context-free reference, or several context levels with each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor

from calibrated_sd.calibrators.base import Strength, Target, Views
from calibrated_sd.errors import ConfigError, unknown_name
from calibrated_sd.objectives.decomposition import spread
from calibrated_sd.objectives.divergences import widen
from calibrated_sd.shapes import Logps

FORMS = ("arith", "geo")


@dataclass(frozen=True)
class Mixture(Target):
    """(1−w₀)·p_T + w₀·p_R, or the normalised geometric mean p_T^(1−w₀)·p_R^w₀. The strength is w₀.

    Args:
        form: "arith" keeps every mode of either, and marker mass is linear: m ≥ w₀·m_R. "geo" keeps what both allow:
            a context that vetoes markers keeps most of its veto.
    """

    form: str = "arith"

    name = "mixture"
    dial = "w₀, the weight of the context-free reference in the target"
    suggested = 0.3
    strength_range = (0.0, 1.0)
    loss_tables = 3

    def __post_init__(self) -> None:
        self.expect("form", lambda x: x in FORMS, "'arith' or 'geo'")

    def edit_teacher(self, views: Views, strength: Strength) -> Logps:
        """See `Target.edit_teacher`; at strength 1 it is the reference itself."""
        strength = self.check_strength(strength)
        if strength == 0:
            return views.teacher
        return mix_levels([views.teacher, self.reference_of(views)], [1.0 - strength, strength], self.form)


def mix_levels(
    logps: Sequence[Logps],
    weights: Sequence[float | int],
    form: str = "arith",
    available: Bool[Tensor, "B K"] | None = None,
) -> Logps:
    """Combine the teacher's distributions under K context levels into one target.

    ``arith``: Σ_k w_k·p_k. Forward KL to it has the student gradient of Σ_k w_k·KL(p_k‖p_S).
    ``geo``: Π_k p_k^w_k, normalised. Reverse KL to it has the student gradient of Σ_k w_k·KL(p_S‖p_k).

    Args:
        logps: K log-probabilities, each (B, T, V).
        weights: K weights of at least 0 that sum to 1 (to within 1e-6).
        form: "arith" or "geo".
        available: (B, K), False where a row has no such level (no successful sibling, say): its weight is shared out
            among the row's other levels in proportion. A row without any level is mixed as if it had all; its loss
            must be masked by the caller.

    Returns:
        (B, T, V) float32, no gradient. With one weight of 1 and no `available`, that level's own tensor.

    Raises:
        ConfigError: unknown form, no level, or weights that are negative, of the wrong number or do not sum to 1.
    """
    if form not in FORMS:
        raise unknown_name("mixing form", form, FORMS)
    weights = _checked_weights(weights, len(logps))
    if available is None and 1.0 in weights:
        return logps[weights.index(1.0)]
    dtype = torch.promote_types(logps[0].dtype, torch.float32)
    shares = torch.tensor(weights, dtype=dtype, device=logps[0].device)
    per_row = repeat(shares, "k -> b k", b=logps[0].shape[0]) if available is None else _row_weights(available, shares)
    with torch.no_grad():
        mixed: Tensor | None = None
        for k, level in enumerate(logps):
            if weights[k] == 0:
                continue
            mixed = _add_level(mixed, widen(level), rearrange(per_row[:, k], "b -> b 1 1"), form)
        assert mixed is not None  # weights that sum to 1 are not all 0
        return mixed if form == "arith" else _normalise(mixed)


def mix_per_token(p_logps: Logps, q_logps: Logps, weight: Float[Tensor, "B T"]) -> Logps:
    """(1−w)·p + w·q with a weight for each position, (B, T) in [0, 1]; exactly p where w = 0, exactly q where w = 1."""
    with torch.no_grad():
        p_logps, q_logps = widen(p_logps), widen(q_logps)
        weight = weight.to(p_logps)
        mixed = p_logps + spread(torch.log1p(-weight))
        return torch.logaddexp(mixed, q_logps + spread(torch.log(weight)), out=mixed)


def _add_level(mixed: Tensor | None, level: Tensor, weight: Tensor, form: str) -> Tensor:
    if form == "arith":
        term = level + torch.log(weight)
        return term if mixed is None else torch.logaddexp(mixed, term, out=mixed)
    # 0·(−∞) is NaN: a row that lacks this level must not look at it.
    term = (level * weight).masked_fill_(weight == 0, 0.0)
    return term if mixed is None else mixed.add_(term)


def _normalise(logps: Tensor) -> Tensor:
    """Subtract the log-sum. Levels that forbid all of each other's tokens leave −∞ everywhere: no target, no NaN."""
    total = torch.logsumexp(logps, dim=-1, keepdim=True)
    return logps.sub_(total.masked_fill(torch.isneginf(total), 0.0))


def _checked_weights(weights: Sequence[float | int], count: int) -> list[float]:
    weights = [float(weight) for weight in weights]
    if count == 0 or len(weights) != count:
        raise ConfigError(
            f"Mixing needs one weight for each context level, got {len(weights)} weights for {count} levels. "
            'Write them as in `context_levels="solution:0.7,none:0.3"`.'
        )
    if any(not math.isfinite(weight) or weight < 0 for weight in weights):
        raise ConfigError(
            f"Level weights must be finite and at least 0, got {weights}. A level that should not count gets 0."
        )
    if abs(sum(weights) - 1.0) > 1e-6:
        raise ConfigError(
            f"Level weights must sum to 1, got {weights} with sum {sum(weights):g}. "
            f"Divide each by {sum(weights):g}, or correct the one that is wrong."
        )
    return [weight / sum(weights) for weight in weights]


def _row_weights(available: Tensor, weights: Tensor) -> Tensor:
    """(B, K) weights that sum to 1 in each row over the levels it has."""
    kept = available.to(weights.dtype) * weights
    total = einsum(kept, "b k -> b")
    return torch.where(rearrange(total > 0, "b -> b 1"), kept / rearrange(total, "b -> b 1").clamp(min=1e-30), weights)
