"""Live figures: sums over tokens, kept per micro-batch, added over processes and divided once, when TRL logs.

A mean of per-batch ratios would give a micro-batch with three tokens the weight of one with three thousand, and would
need a collective at every step. Sums need one, at logging time, which every process reaches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from calibrated_sd.calibrators import ratios
from calibrated_sd.shapes import Scalar

SUMS = (
    *("m_student", "m_reference", "log_suppression", "n_suppression"),
    *("kl", "coarse_kl", "teacher_entropy", "student_entropy", "n_tokens"),
    *("strength", "n_batches", "penalty"),
    *("markers", "held_out_markers", "completion_tokens", "responses"),
    *("gate", "n_gate", "gate_entropy", "n_entropy"),
)
"""All sums that are kept, in the order in which they are added over processes."""


MEASURED_POSITIONS = 2048
"""At most so many positions of a micro-batch are measured, evenly spaced over those that count."""

MEASURED_ELEMENTS = 1 << 26
"""At most so many (position, vocabulary entry) pairs, but at least 256 positions."""


def measured_positions(count: int, vocabulary: int, device: Any = None) -> Bool[Tensor, " N"]:
    """Which of `count` positions are measured: evenly spaced, and always the same. Over a real vocabulary each costs."""
    limit = min(MEASURED_POSITIONS, max(256, MEASURED_ELEMENTS // vocabulary))
    if count <= limit:
        return torch.ones(count, dtype=torch.bool, device=device)
    chosen = torch.zeros(count, dtype=torch.bool, device=device)
    chosen[torch.arange(limit, device=device) * count // limit] = True
    return chosen


class TokenSums:
    """Running sums for each mode ("train", "eval"), on the device: adding to them never waits for it."""

    keys: Sequence[str] = SUMS

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)

    def add(self, mode: str, sums: Mapping[str, Scalar | float]) -> None:
        """Add to the sums of `mode`. Keys are those of `keys`."""
        kept = self._sums[mode]
        for key, value in sums.items():
            value = value.detach() if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64)
            kept[key] = kept[key] + value.to(kept[key].device) if key in kept else value

    def pop(self, mode: str, accelerator: Any) -> dict[str, float]:
        """Add over processes, clear, and return all of `keys` (0 where nothing was added).

        A collective: every process must call it.
        """
        kept = self._sums.pop(mode, {})
        wide = torch.float32 if accelerator.device.type == "mps" else torch.float64
        zero = torch.zeros((), dtype=wide, device=accelerator.device)
        local = torch.stack([kept.get(key, zero).to(device=accelerator.device, dtype=wide) for key in self.keys])
        return dict(zip(self.keys, accelerator.reduce(local, reduction="sum").tolist(), strict=True))


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
    ``calibration/gate``                mean of what the method's gate says of a position: for a method that acts around
                                        markers the share of positions it acts on.
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
    if sums["n_gate"]:
        named["calibration/gate"] = sums["gate"] / sums["n_gate"]
    if sums["responses"]:
        named["epistemic/per_response"] = sums["markers"] / sums["responses"]
    if sums["completion_tokens"]:
        named["epistemic/per_1k"] = 1000 * sums["markers"] / sums["completion_tokens"]
        named["epistemic/held_out_per_1k"] = 1000 * sums["held_out_markers"] / sums["completion_tokens"]
    return named
