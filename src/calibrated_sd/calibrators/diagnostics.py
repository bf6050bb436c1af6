"""How much doubt the teacher takes away and the student keeps, from the distributions alone (nothing is sampled).

`diagnostics` returns sums and counts, never quotients: add them over micro-batches and processes, then call `ratios`.
A mean of ratios would be ruled by positions where the reference's marker mass is tiny.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from calibrated_sd.calibrators.base import Views
from calibrated_sd.objectives.decomposition import kl_decomposition, log_marker_mass
from calibrated_sd.objectives.divergences import entropy
from calibrated_sd.shapes import Scalar, TokenMask

# (name, numerator, denominator) of each published figure.
_QUOTIENTS = (
    ("retention", "m_student", "m_reference"),
    ("suppression", "log_suppression", "n_suppression"),
    ("marker_share_of_kl", "coarse_kl", "kl"),
    ("true_kl", "kl", "n_tokens"),
    ("teacher_entropy", "teacher_entropy", "n_tokens"),
    ("student_entropy", "student_entropy", "n_tokens"),
)


def diagnostics(
    views: Views, mask: TokenMask, min_mass: float = 1e-3, chunk_elements: int = 1 << 24
) -> dict[str, Scalar]:
    """Numerators and denominators over the counted positions, all 0-dim, float64 where the device has it, no gradient.

    Keys: ``m_student``, ``m_reference`` Σ of marker mass; ``log_suppression``, ``n_suppression`` Σ log(m_T/m_R) and the
    number of positions with m_R > `min_mass`; ``kl`` Σ KL(teacher‖student) and ``coarse_kl`` its marker part;
    ``teacher_entropy``, ``student_entropy``; ``n_tokens``. The first four are absent without a reference.

    Args:
        views: what a calibrator sees. Pass the teacher as it is, not the edited one, to see what the context does.
        mask: (B, T), 1 where a position counts.
        min_mass: below this marker mass of the reference a position says nothing about suppression.
        chunk_elements: how many (position, token) pairs are worked on at once; bounds the extra memory.
    """
    with torch.no_grad():
        counted = mask > 0
        log_m_t = log_marker_mass(views.teacher, views.marker_ids)
        log_m_s = log_marker_mass(views.student, views.marker_ids)
        per_token = {"n_tokens": torch.ones_like(log_m_t)}
        if views.reference is not None:
            log_m_r = log_marker_mass(views.reference, views.marker_ids)
            relevant = log_m_r > math.log(min_mass)
            per_token |= {
                "m_student": log_m_s.exp(),
                "m_reference": log_m_r.exp(),
                "log_suppression": torch.where(relevant, log_m_t - log_m_r, 0.0),
                "n_suppression": relevant.to(log_m_t.dtype),
            }
        sums = {key: _masked_sum(value, counted) for key, value in per_token.items()}
        for key in ("kl", "coarse_kl", "teacher_entropy", "student_entropy"):
            sums[key] = torch.zeros_like(sums["n_tokens"])
        for teacher, student, part in _chunks(views.teacher, views.student, counted, chunk_elements):
            parts = kl_decomposition(teacher, student, views.marker_ids)
            sums["kl"] += _masked_sum(parts.total, part)
            sums["coarse_kl"] += _masked_sum(parts.coarse, part)
            sums["teacher_entropy"] += _masked_sum(entropy(teacher), part)
            sums["student_entropy"] += _masked_sum(entropy(student), part)
        return sums


def ratios(sums: Mapping[str, Float[Tensor, ""]]) -> dict[str, float]:
    """The figures of `diagnostics`, after its sums have been added up; a figure without any position is left out.

    Keys: ``retention`` Σm_S/Σm_R; ``suppression`` mean log(m_T/m_R), negative where the context silences markers;
    ``marker_share_of_kl`` in [0, 1]; ``true_kl`` KL(teacher‖student) per token; ``teacher_entropy``,
    ``student_entropy`` per token. All in nats except the two shares.
    """
    return {
        name: float(sums[above]) / float(sums[below])
        for name, above, below in _QUOTIENTS
        if above in sums and below in sums and float(sums[below]) > 0
    }


def _masked_sum(values: Tensor, counted: Tensor) -> Tensor:
    values = torch.where(counted, values, 0.0)  # not a product: padding may hold NaN or infinity
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    return values.sum(dtype=wide)


def _chunks(
    teacher: Tensor, student: Tensor, counted: Tensor, elements: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    rows, length, vocabulary = teacher.shape
    row_step = max(1, elements // max(1, length * vocabulary))
    step = length if row_step > 1 else max(1, elements // vocabulary)
    for row in range(0, rows, row_step):
        for start in range(0, length, step):
            part = (slice(row, row + row_step), slice(start, start + step))
            yield teacher[part], student[part], counted[part]
