"""E4: learn less from the teacher at markers that its context argues against."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange

from calibrated_sd.calibrators.base import Strength, TokenStats, Weight, is_number
from calibrated_sd.objectives.divergences import widen
from calibrated_sd.shapes import PerToken


@dataclass(frozen=True)
class PMIGate(Weight):
    """w = 1 − s·e·σ((−pmi − τ)/temperature) with pmi = log p_T(y) − log p_R(y). The strength is s.

    e is 1 where the sampled token y is a marker and 0 elsewhere. pmi is the pointwise mutual information of token and
    context: below −τ the context argues against the marker, and the loss there shrinks toward 1 − s. Over s = 1 it
    becomes negative, down to −1 at s = 2: the student is then pushed away from a teacher that silences its doubt
    (anti-self-distillation at markers; for ablations).

    Args:
        tau: nats of suppression at which half of the effect is reached.
        temperature: softness of the threshold in nats, over 0.
        correct_only: act on completions that succeeded and leave the others alone.
        all_tokens: e = 1 everywhere: a soft mask on every token that the context argues against, without any lexicon.
    """

    tau: float = 0.5
    temperature: float = 0.25
    correct_only: bool = False
    all_tokens: bool = False

    name = "pmi_gate"
    dial = "s, how much of the loss is taken away at suppressed markers"
    suggested = 1.0
    strength_range = (0.0, 2.0)
    loss_tables = 1

    def __post_init__(self) -> None:
        self.expect("tau", is_number, "a number")
        self.expect("temperature", lambda x: is_number(x) and x > 0, "over 0")
        self.expect("correct_only", lambda x: isinstance(x, bool), "true or false")
        self.expect("all_tokens", lambda x: isinstance(x, bool), "true or false")

    @property
    def needs_markers(self) -> bool:  # type: ignore[override]
        """Not with `all_tokens`."""
        return not self.all_tokens

    @property
    def needs_stats(self) -> frozenset[str]:  # type: ignore[override]
        """Two log-probabilities of the sampled token; with `correct_only` also the outcome."""
        return frozenset({"teacher_logps", "reference_logps"} | ({"succeeded"} if self.correct_only else set()))

    def weights(self, stats: TokenStats, strength: Strength) -> PerToken:
        """See `Weight.weights`; within [1−s, 1], and exactly 1 where the gate does not act and on padding."""
        strength = self.check_strength(strength)
        if strength == 0:
            return self.all_ones(stats)
        with torch.no_grad():
            teacher = widen(self.stat(stats, "teacher_logps"))
            reference = widen(self.stat(stats, "reference_logps")).to(teacher.dtype)
            acts = stats.completion_mask > 0
            if not self.all_tokens:
                acts = acts & stats.is_marker
            if self.correct_only:
                acts = acts & rearrange(self.stat(stats, "succeeded"), "b -> b 1")
            # A token that both rule out says nothing about the context.
            acts = acts & ~(torch.isneginf(teacher) & torch.isneginf(reference))
            suppressed = torch.sigmoid((reference - teacher - self.tau) / self.temperature)
            return torch.where(acts, 1.0 - strength * suppressed, 1.0)
