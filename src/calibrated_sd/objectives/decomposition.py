"""Which part of a KL divergence moves probability onto, or off, the markers.

For any set M of tokens, with m_P = P(M) and m_Q = Q(M),

    KL(P‖Q) = KLb(m_P‖m_Q)  +  m_P · KL(P(·|M)‖Q(·|M))  +  (1−m_P) · KL(P(·|¬M)‖Q(·|¬M))
    total   = coarse        +  inside                   +  outside

where KLb is the divergence of two coins. This is the chain rule of relative entropy (Cover and Thomas, *Elements of
Information Theory*, Theorem 2.5.3) for the variable "is the next token a marker?". Only the coarse part has a gradient
on the marker mass of the student; by the data-processing inequality it is never more than the total.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor

from calibrated_sd.objectives.divergences import LOG_ZERO, forward_kl, widen
from calibrated_sd.shapes import Logps, MarkerIds, PerToken


def log_marker_mass(logps: Float[Tensor, "*axes V"], marker_ids: Int[Tensor, " M"]) -> Float[Tensor, "*axes"]:
    """log m = log Σ_{v∈M} p(v), at most 0, from |M| gathered columns (no copy over the vocabulary).

    A mass of exactly 0 comes back as about −10⁴ instead of −∞, so that its gradient is 0 and not NaN.

    Args:
        logps: normalised log-probabilities, (…, V); half precision is summed in float32.
        marker_ids: (M,), without repeats, at least one.
    """
    columns = widen(logps.index_select(-1, marker_ids))
    columns = columns.masked_fill(torch.isneginf(columns), LOG_ZERO)
    # Rounding can carry a sum over nearly all the probability a hair above 1.
    return torch.logsumexp(columns, dim=-1).clamp(max=0.0)


def log_rest_mass(logps: Float[Tensor, "*axes V"], marker_ids: Int[Tensor, " M"]) -> Float[Tensor, "*axes"]:
    """log(1 − m) summed over the other tokens: exact however small, but a pass (and a copy) over the vocabulary."""
    others = widen(logps).index_fill(-1, marker_ids, LOG_ZERO)
    return torch.logsumexp(others.masked_fill_(torch.isneginf(others), LOG_ZERO), dim=-1).clamp(max=0.0)


def log_complement(log_mass: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """log(1 − m) from log m, accurate at both ends (Mächler 2012, *Accurately computing log(1 − exp(−|a|))*).

    m is taken as at most 1 − ε (ε of the float type), so the result is finite: no less than log ε.
    """
    log_mass = log_mass.clamp(max=-torch.finfo(log_mass.dtype).eps)
    # Each branch gets only arguments for which its value and its gradient are finite.
    near_one = log_mass > -0.6931471805599453
    close = torch.log(-torch.expm1(torch.where(near_one, log_mass, -1.0)))
    far = torch.log1p(-torch.exp(torch.where(near_one, -1.0, log_mass)))
    return torch.where(near_one, close, far)


def binary_kl(
    log_a: Float[Tensor, "*axes"],
    log_b: Float[Tensor, "*axes"],
    rest_a: Float[Tensor, "*axes"] | None = None,
    rest_b: Float[Tensor, "*axes"] | None = None,
) -> Float[Tensor, "*axes"]:
    """KLb(a‖b) = a·log(a/b) + (1−a)·log((1−a)/(1−b)) from log a and log b, in nats.

    `rest_a`, `rest_b` are log(1−a), log(1−b) if known better than `log_complement` can tell.
    """
    rest_a = log_complement(log_a) if rest_a is None else rest_a
    rest_b = log_complement(log_b) if rest_b is None else rest_b
    return log_a.exp() * (log_a - log_b) + rest_a.exp() * (rest_a - rest_b)


@dataclass(frozen=True)
class KLParts:
    """The three parts of KL(P‖Q) and their sum, each (B, T), in nats."""

    total: PerToken
    coarse: PerToken
    """KLb(m_P‖m_Q): the only part that moves marker mass."""
    inside: PerToken
    """m_P · KL between the distributions over markers."""
    outside: PerToken
    """(1−m_P) · KL between the distributions over all other tokens."""

    @property
    def marker_share(self) -> PerToken:
        """coarse / total at each position, 0 where the total is 0. Over many positions divide the sums instead."""
        positive = self.total > 0
        return torch.where(positive, self.coarse / torch.where(positive, self.total, 1.0), 0.0)


def kl_decomposition(p_logps: Logps, q_logps: Logps, marker_ids: MarkerIds) -> KLParts:
    """Split KL(P‖Q) at every position into its marker part and its two conditional parts.

    Args:
        p_logps, q_logps: normalised log-probabilities, (B, T, V). For the forward objective P is the teacher.
        marker_ids: (M,).
    """
    log_m_p, log_m_q = log_marker_mass(p_logps, marker_ids), log_marker_mass(q_logps, marker_ids)
    total = forward_kl(student=q_logps, teacher=p_logps)
    coarse = binary_kl(log_m_p, log_m_q, log_rest_mass(p_logps, marker_ids), log_rest_mass(q_logps, marker_ids))
    on_markers = _partial_kl(p_logps.index_select(-1, marker_ids), q_logps.index_select(-1, marker_ids))
    inside = on_markers - log_m_p.exp() * (log_m_p - log_m_q)
    return KLParts(total=total, coarse=coarse, inside=inside, outside=total - coarse - inside)


def spread(per_token: Float[Tensor, "*axes"] | Bool[Tensor, "*axes"]) -> Tensor:
    """One number (or condition) per position, (B, T), shaped to broadcast over the vocabulary, (B, T, 1)."""
    return rearrange(per_token, "... -> ... 1")


def _partial_kl(p_logps: Tensor, q_logps: Tensor) -> Tensor:
    """Σ p·log(p/q) over the given columns only, which need not sum to 1."""
    p_logps, q_logps = widen(p_logps), widen(q_logps)
    impossible = torch.isneginf(p_logps)
    p_logps, q_logps = p_logps.masked_fill(impossible, LOG_ZERO), q_logps.masked_fill(impossible, LOG_ZERO)
    return reduce(p_logps.exp() * (p_logps - q_logps), "... m -> ...", "sum")
