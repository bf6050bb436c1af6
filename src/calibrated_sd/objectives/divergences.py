"""Divergences between next-token distributions, one value for each position.

`alpha` is TRL's `distillation_alpha`: 0 is the forward divergence KL(teacher‖student), 1 the reverse KL(student‖teacher),
anything between the generalised Jensen-Shannon divergence with mixture (1−α)·student + α·teacher.

Everything is computed in float32, or float64 when given float64. On finite float32 input the values equal those of TRL's
`compute_divergence` bit for bit; unlike it, an entry of −∞ (a vocabulary item that cannot occur) is no source of NaN: the
convention is 0·log 0 = 0, and a divergence is +∞ only where the second argument forbids what the first allows.

Sources: Kullback and Leibler 1951; Lin 1991 (JSD); Hübotter et al. 2026, arXiv:2601.20802 (as the loss of SDPO).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from calibrated_sd.errors import ConfigError

# Stands in for −∞: exp(LOG_ZERO) is exactly 0 in every float type, and LOG_ZERO − LOG_ZERO is 0 and not NaN.
LOG_ZERO = -1e4


def widen(logps: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """Half-precision input as float32; float32 and float64 unchanged (the same tensor, no copy)."""
    return logps if logps.dtype in (torch.float32, torch.float64) else logps.float()


def forward_kl(student: Float[Tensor, "*axes V"], teacher: Float[Tensor, "*axes V"]) -> Float[Tensor, "*axes"]:
    """KL(teacher‖student) = Σ_v p_T(v)·(log p_T(v) − log p_S(v)), in nats. Covers the teacher's modes.

    Args:
        student, teacher: log-probabilities, (…, V).

    Returns:
        (…), at least 0 up to rounding.
    """
    student, teacher = widen(student), widen(teacher)
    if has_impossible(teacher):
        impossible = torch.isneginf(teacher)
        student, teacher = student.masked_fill(impossible, LOG_ZERO), teacher.masked_fill(impossible, LOG_ZERO)
    terms = F.kl_div(student, teacher, reduction="none", log_target=True)
    return reduce(terms, "... v -> ...", "sum")


def reverse_kl(student: Float[Tensor, "*axes V"], teacher: Float[Tensor, "*axes V"]) -> Float[Tensor, "*axes"]:
    """KL(student‖teacher), in nats. Seeks one mode of the teacher; see `forward_kl` for shapes."""
    return forward_kl(teacher, student)


def jsd(
    student: Float[Tensor, "*axes V"], teacher: Float[Tensor, "*axes V"], alpha: float = 0.5
) -> Float[Tensor, "*axes"]:
    """(1−α)·KL(student‖M) + α·KL(teacher‖M) with M = (1−α)·student + α·teacher, in nats.

    At α = ½ it is symmetric and at most ln 2 (Lin 1991).

    Args:
        student, teacher: log-probabilities, (…, V).
        alpha: weight of the teacher in the mixture, strictly between 0 and 1.
    """
    if not 0.0 < alpha < 1.0:
        raise ConfigError(
            f"The Jensen-Shannon divergence needs 0 < alpha < 1, got alpha={alpha}. "
            "Use alpha=0 (forward) or alpha=1 (reverse) through `divergence` for the two ends."
        )
    student = _finite(widen(student))
    teacher = _finite(widen(teacher))
    weight = torch.tensor(alpha, dtype=student.dtype, device=student.device)
    both = torch.stack([student + torch.log(1 - weight), teacher + torch.log(weight)])
    mixture = torch.logsumexp(both, dim=0)
    from_teacher = F.kl_div(mixture, teacher, reduction="none", log_target=True)
    from_student = F.kl_div(mixture, student, reduction="none", log_target=True)
    return reduce(torch.lerp(from_student, from_teacher, alpha), "... v -> ...", "sum")


def divergence(
    student: Float[Tensor, "*axes V"], teacher: Float[Tensor, "*axes V"], alpha: float
) -> Float[Tensor, "*axes"]:
    """The member of the family that TRL's `distillation_alpha` names; see the head of this file.

    Args:
        student, teacher: log-probabilities, (…, V).
        alpha: 0 forward KL, 1 reverse KL, between them JSD.

    Raises:
        ConfigError: `alpha` outside [0, 1].
    """
    if not 0.0 <= alpha <= 1.0:
        raise ConfigError(
            f"`distillation_alpha` must lie between 0 and 1, got {alpha}. "
            "Use 0 for forward KL, 1 for reverse KL, 0.5 for the symmetric Jensen-Shannon divergence."
        )
    if alpha == 0.0:
        return forward_kl(student, teacher)
    if alpha == 1.0:
        return reverse_kl(student, teacher)
    return jsd(student, teacher, alpha)


def entropy(logps: Float[Tensor, "*axes V"]) -> Float[Tensor, "*axes"]:
    """Shannon entropy −Σ_v p(v)·log p(v) in nats, with 0·log 0 = 0; between 0 and ln V."""
    logps = _finite(widen(logps))
    return -reduce(logps.exp() * logps, "... v -> ...", "sum")


def has_impossible(logps: Tensor) -> bool:
    """Whether any entry is −∞. Asking costs less memory than a copy over the vocabulary made to be safe."""
    return logps.numel() > 0 and bool(logps.detach().amin() == -torch.inf)


def _finite(logps: Tensor) -> Tensor:
    return logps.masked_fill(torch.isneginf(logps), LOG_ZERO) if has_impossible(logps) else logps
