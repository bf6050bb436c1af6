"""Live figures of the calibrated SFT trainer: sums over label tokens, divided once, when TRL logs."""

from __future__ import annotations

from torch import Tensor

from calibrated_sd.trainers.metrics import TokenSums
from calibrated_sd.trainers.sft.terms import LabelClasses

SUMS = (
    *("n_tokens", "n_markers", "n_held_out", "marker_nll", "held_out_nll", "other_nll"),
    *("penalty", "n_penalised", "m_student", "m_reference", "strength", "n_batches"),
)
"""Sums over label tokens that are kept between two logs."""


class TokenClassSums(TokenSums):
    """`TokenSums` with the sums of this trainer."""

    keys = SUMS


def class_sums(nll: Tensor, classes: LabelClasses) -> dict[str, Tensor | float]:
    """Label tokens and their losses by class, from the loss of each label (B, L−1), no gradient."""
    plain = classes.counted & ~classes.marker & ~classes.held_out
    return {
        "n_tokens": classes.counted.sum(),
        "n_markers": classes.marker.sum(),
        "n_held_out": classes.held_out.sum(),
        "marker_nll": (nll * classes.marker).sum(),
        "held_out_nll": (nll * classes.held_out).sum(),
        "other_nll": (nll * plain).sum(),
    }


def figures(sums: dict[str, float]) -> dict[str, float]:
    """The logged figures; each is left out where its denominator is 0.

    ``epistemic/token_share``  share of label tokens that belong to a marker; ``epistemic/held_out_token_share`` likewise.
    ``epistemic/marker_nll``, ``epistemic/held_out_nll``, ``epistemic/other_nll``  mean loss of each class before any
                               weight, nats per token.
    ``calibration/strength``   λ, mean over micro-batches.
    ``calibration/penalty``    λ·divergence per label token, nats.
    ``calibration/penalised_share``  share of label tokens at which the divergence is taken.
    ``calibration/retention``  Σm_S/Σm_R at those positions; with `calibration_kl="full"` only.
    """
    n_other = sums["n_tokens"] - sums["n_markers"] - sums["n_held_out"]
    calibrated = sums["strength"] > 0
    ratios = {
        "epistemic/token_share": (sums["n_markers"], sums["n_tokens"]),
        "epistemic/held_out_token_share": (sums["n_held_out"], sums["n_tokens"]),
        "epistemic/marker_nll": (sums["marker_nll"], sums["n_markers"]),
        "epistemic/held_out_nll": (sums["held_out_nll"], sums["n_held_out"]),
        "epistemic/other_nll": (sums["other_nll"], n_other),
        "calibration/strength": (sums["strength"], sums["n_batches"] * calibrated),
        "calibration/penalty": (sums["penalty"], sums["n_tokens"] * calibrated),
        "calibration/penalised_share": (sums["n_penalised"], sums["n_tokens"] * calibrated),
        "calibration/retention": (sums["m_student"], sums["m_reference"]),
    }
    return {name: above / below for name, (above, below) in ratios.items() if below > 0}
