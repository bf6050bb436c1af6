"""How much probability a model puts on expressing doubt, position by position.

Needs no sampling, is differentiable, and shows a teacher's intention before a student has changed. Always aggregate as
a ratio of sums (:func:`retention`): a mean of ratios is ruled by positions where doubt is out of place anyway.
"""

from __future__ import annotations

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from calibrated_sd.objectives import decomposition
from calibrated_sd.objectives.divergences import LOG_ZERO
from calibrated_sd.shapes import Logps, MarkerIds, PerToken, Scalar, TokenMask


def log_marker_mass(logps: Logps, ids: MarkerIds) -> PerToken:
    """log m = log Σ_{v ∈ ids} p(v), the log-probability that the next token is a marker.

    Computed in float32. A position whose markers all have probability 0 gets -inf and passes no gradient (not nan).

    Args:
        logps: normalised log-probabilities, (B, T, V), nats.
        ids: marker ids, (M,).

    Returns:
        (B, T), float32, at most 0.
    """
    mass = decomposition.log_marker_mass(logps, ids.to(logps.device)).float()
    # Losses want a large finite number where all markers are impossible; whoever reads a mass wants the truth.
    return torch.where(mass <= LOG_ZERO / 2, torch.full_like(mass, -torch.inf), mass)


def log_marker_mass_from_logits(logits: Float[Tensor, "B T V"], ids: MarkerIds) -> PerToken:
    """:func:`log_marker_mass` of ``log_softmax(logits)``, without building the (B, T, V) log-probabilities.

    Args:
        logits: any scores, (B, T, V), already divided by the temperature.
        ids: marker ids, (M,).

    Returns:
        (B, T), float32, at most 0.
    """
    total = torch.logsumexp(logits.float(), dim=-1)
    chosen = logits.index_select(-1, ids.to(logits.device)).float()
    return log_marker_mass(chosen - total.unsqueeze(-1), torch.arange(chosen.shape[-1], device=chosen.device))


def marker_mass(logps: Logps, ids: MarkerIds) -> PerToken:
    """m = Σ_{v ∈ ids} p(v), (B, T), between 0 and 1. See :func:`log_marker_mass`."""
    return log_marker_mass(logps, ids).exp()


def retention(m_S: PerToken, m_R: PerToken, mask: TokenMask) -> Scalar:
    """Share of the reference's marker mass that the student keeps, Σ m_S / Σ m_R over the masked positions.

    Args:
        m_S: marker mass of the student, (B, T).
        m_R: marker mass of the context-free reference, (B, T).
        mask: 1 where a position counts, (B, T). Values elsewhere are never read, not even nan.

    Returns:
        A scalar; 1 where neither has any mass (nothing to keep), inf where only the student has.
    """
    keep = mask.bool()
    kept = reduce(m_S.float().masked_fill(~keep, 0.0), "b t ->", "sum")
    wanted = reduce(m_R.float().masked_fill(~keep, 0.0), "b t ->", "sum")
    nothing = (wanted == 0) & (kept == 0)
    return torch.where(nothing, torch.ones_like(kept), kept / torch.where(nothing, torch.ones_like(wanted), wanted))


def suppression(log_m_T: PerToken, log_m_R: PerToken) -> PerToken:
    """log(m_T / m_R): below 0 where the teacher's context talks it out of doubting.

    Args:
        log_m_T: log marker mass of the teacher, (B, T).
        log_m_R: log marker mass of the context-free reference, (B, T).

    Returns:
        (B, T), nats; 0 where both masses are 0.
    """
    return torch.where(log_m_T == log_m_R, torch.zeros_like(log_m_T), log_m_T - log_m_R)
