"""Live figures: sums over tokens, kept per micro-batch, added over processes and divided once, when TRL logs.

A mean of per-batch ratios would give a micro-batch with three tokens the weight of one with three thousand, and would
need a collective at every step. Sums need one, at logging time, which every process reaches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from calibrated_sd.calibrators import Views, diagnostics, ratios
from calibrated_sd.objectives import forward_kl
from calibrated_sd.shapes import Logps, MarkerIds, Scalar, TokenMask

SUMS = (
    *("m_student", "m_reference", "log_suppression", "n_suppression"),
    *("kl", "coarse_kl", "teacher_entropy", "student_entropy", "n_tokens"),
    *("strength", "n_batches", "penalty"),
    *("markers", "held_out_markers", "completion_tokens", "responses"),
)
"""All sums that are kept, in the order in which they are added over processes."""


MEASURED_POSITIONS = 2048
"""At most so many positions of a micro-batch are measured, evenly spaced over the active ones."""


def spaced_positions(mask: TokenMask, limit: int = MEASURED_POSITIONS) -> Int[Tensor, " N"]:
    """Indices, into the flattened mask (B·T), of at most `limit` active positions, evenly spaced and always the same."""
    active = torch.nonzero(rearrange(mask, "b t -> (b t)") > 0).squeeze(-1)
    if len(active) <= limit:
        return active
    return active[torch.arange(limit, device=active.device) * len(active) // limit]


@torch.no_grad()
def distribution_sums(
    logits: Any, context_logits: Logps, reference: Logps | None, marker_ids: MarkerIds
) -> dict[str, Scalar]:
    """Sums of one micro-batch for `SUMS`; empty if no position is active.

    Over a real vocabulary each pass costs memory and time, hence only `MEASURED_POSITIONS` of them.

    Args:
        logits: a `CalibratedLogits`, after the calibrator has acted.
        context_logits: the teacher before that, (B, T, V).
        reference: the context-free reference, (B, T, V), or None.
        marker_ids: (M,).
    """
    positions = spaced_positions(logits.loss_mask)
    if len(positions) == 0:
        return {}

    def at(per_token: Tensor) -> Tensor:
        return rearrange(per_token, "b t ... -> (b t) ...")[positions]

    def logps(scores: Tensor) -> Logps:
        return rearrange(torch.log_softmax(at(scores).float(), dim=-1), "n v -> 1 n v")

    views = Views(
        student=logps(logits.student_logits),
        teacher=logps(context_logits),
        reference=None if reference is None else logps(reference),
        marker_ids=marker_ids,
    )
    sums = dict(diagnostics(views, torch.ones(views.teacher.shape[:2], device=positions.device)))
    if logits.penalty is not None:
        sums["penalty"] = at(logits.penalty).sum()
    elif logits.weights is not None:
        sums["penalty"] = (1 - at(logits.weights)).sum()
    elif logits.teacher_logits is not context_logits:
        sums["penalty"] = forward_kl(student=views.teacher, teacher=logps(logits.teacher_logits)).sum()
    return sums


class TokenSums:
    """Running sums for each mode ("train", "eval"), on the device: adding to them never waits for it."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)

    def add(self, mode: str, sums: Mapping[str, Scalar | float]) -> None:
        """Add to the sums of `mode`. Keys are those of `SUMS`."""
        kept = self._sums[mode]
        for key, value in sums.items():
            value = value.detach() if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64)
            kept[key] = kept[key] + value.to(kept[key].device) if key in kept else value

    def pop(self, mode: str, accelerator: Any) -> dict[str, float]:
        """Add over processes, clear, and return all of `SUMS` (0 where nothing was added).

        A collective: every process must call it.
        """
        kept = self._sums.pop(mode, {})
        wide = torch.float32 if accelerator.device.type == "mps" else torch.float64
        zero = torch.zeros((), dtype=wide, device=accelerator.device)
        local = torch.stack([kept.get(key, zero).to(device=accelerator.device, dtype=wide) for key in SUMS])
        return dict(zip(SUMS, accelerator.reduce(local, reduction="sum").tolist(), strict=True))


def figures(sums: Mapping[str, float]) -> dict[str, float]:
    """The logged figures. Each is left out where its denominator is 0 (no active token since the last log).

    ``calibration/strength``            mean over micro-batches.
    ``calibration/retention``           Σm_S / Σm_R.
    ``calibration/suppression``         mean of log(m_T/m_R), nats; negative where the context silences markers.
    ``calibration/true_kl``             KL(teacher‖student) per token, nats, full vocabulary, before calibration.
    ``calibration/marker_share_of_kl``  part of it that moves marker mass, in [0, 1].
    ``calibration/penalty``             per token, nats: strength · penalty; for a target KL(edited‖teacher), the cost
                                        of the edit; for a weight the share of the loss that was taken away.
    ``calibration/ratio``               penalty / true_kl.
    ``calibration/teacher_entropy``, ``calibration/student_entropy``  per token, nats.
    ``epistemic/per_response``, ``epistemic/per_1k``, ``epistemic/held_out_per_1k``  markers in the sampled text.
    """
    named: dict[str, float] = {}
    if sums["n_batches"]:
        named["calibration/strength"] = sums["strength"] / sums["n_batches"]
    tensors = {key: torch.tensor(value, dtype=torch.float64) for key, value in sums.items()}
    named |= {f"calibration/{key}": value for key, value in ratios(tensors).items()}
    if sums["n_tokens"]:
        named["calibration/penalty"] = sums["penalty"] / sums["n_tokens"]
        named["calibration/ratio"] = sums["penalty"] / sums["kl"] if sums["kl"] > 0 else 0.0
    if sums["responses"]:
        named["epistemic/per_response"] = sums["markers"] / sums["responses"]
    if sums["completion_tokens"]:
        named["epistemic/per_1k"] = 1000 * sums["markers"] / sums["completion_tokens"]
        named["epistemic/held_out_per_1k"] = 1000 * sums["held_out_markers"] / sums["completion_tokens"]
    return named
