"""The ways in which a method can preserve uncertainty, and what it may look at.

==============  ===========================================================================
`Target`        edits the teacher's distribution before the divergence is taken
`Penalty`       adds a term to the loss of each token
`Weight`        scales the loss of each token
`Divergence`    takes the place of the divergence
`Advantage`     shapes the advantages of the policy gradient, in a hybrid
==============  ===========================================================================

A method is a frozen dataclass: its fields are its settings, checked when it is built; its one dial, the strength, comes
with every call, so that a schedule or a controller can turn it. Strength 0 means off.

Calibrators see log-probabilities, ids and masks. They never see a trainer, a tokenizer or a config. A `Target`, `Penalty`
or `Divergence` works position by position, so that the loss can be computed in chunks; what it has to know about other
positions it says in `token_gate`, from the `TokenStats` of the whole completion.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from calibrated_sd.errors import ConfigError
from calibrated_sd.shapes import Logps, MarkerIds, PerToken, TokenIds, TokenMask

Strength = float | int
"""A value of the dial; 0 is off."""


@dataclass(frozen=True)
class Views:
    """The same completion seen three ways. All log-probabilities at one temperature, for the same positions.

    Attributes:
        student: log-probabilities of the model being trained, (B, T, V); carries the gradient.
        teacher: of the teacher, which sees the context; no gradient.
        reference: of the frozen initial weights on the student's own prompt, without context; no gradient.
            None where the method does not need it.
        marker_ids: vocabulary ids of the markers, (M,).
        context_only: of the reference's weights given the context without the question; no gradient. None where the
            method does not need it.
        gate: what `token_gate` said about these positions, (B, T); None if the method has none.
    """

    student: Logps
    teacher: Logps
    reference: Logps | None
    marker_ids: MarkerIds
    context_only: Logps | None = None
    gate: PerToken | None = None


@dataclass(frozen=True)
class TokenStats:
    """What is known about each sampled token of whole completions. (B, T) unless said, no gradient, nats.

    A method lists in `needs_stats` those fields that cost a pass over the vocabulary; the others are always there. A
    field that nobody asked for is None.

    Attributes:
        completion_ids: the sampled tokens y.
        completion_mask: 1 on real completion tokens.
        is_marker: True where y begins a marker that survives disambiguation (e_t in the formulas); False on padding.
        student_logps, teacher_logps, reference_logps: log p(y) of each.
        student_entropy, teacher_entropy: H(p).
        log_m_student, log_m_teacher, log_m_reference: log marker mass.
        divergence_to_student: D(student, teacher) as the loss takes it, before any weight.
        advantages: of the policy gradient, one for each row, (B,); 0 where rewards do not differ.
        succeeded: whether the row's reward reached the threshold, (B,).
        pass_rate: share of the row's group that did, (B,).
    """

    completion_ids: TokenIds
    completion_mask: TokenMask
    is_marker: Bool[Tensor, "B T"]
    student_logps: PerToken | None = None
    teacher_logps: PerToken | None = None
    reference_logps: PerToken | None = None
    student_entropy: PerToken | None = None
    teacher_entropy: PerToken | None = None
    log_m_student: PerToken | None = None
    log_m_teacher: PerToken | None = None
    log_m_reference: PerToken | None = None
    divergence_to_student: PerToken | None = None
    advantages: Float[Tensor, " B"] | None = None
    succeeded: Bool[Tensor, " B"] | None = None
    pass_rate: Float[Tensor, " B"] | None = None


VOCABULARY_STATS = (
    *("student_logps", "teacher_logps", "reference_logps", "student_entropy", "teacher_entropy"),
    *("log_m_student", "log_m_teacher", "log_m_reference", "divergence_to_student"),
)
"""Fields of `TokenStats` that cost a pass over the vocabulary; `needs_stats` names some of them."""

ROW_STATS = ("advantages", "succeeded", "pass_rate")
"""Fields of `TokenStats` that only a trainer with rewards can fill; `needs_stats` may name them, too."""


class Calibrator:
    """What all methods share. Subclass `Target`, `Penalty`, `Weight`, `Divergence` or `Advantage` instead."""

    kind: ClassVar[Literal["target", "penalty", "weight", "divergence", "advantage"]]
    name: ClassVar[str]
    dial: ClassVar[str]
    """What the strength means, in a few words."""
    suggested: ClassVar[float]
    """The strength to try first."""
    strength_range: ClassVar[tuple[float, float]]
    loss_tables: ClassVar[int] = 7
    """Float32 tables (positions × vocabulary) that the method adds to the peak of the loss, at most over the modes; its
    reference's logits are among them. 7, the most that any method takes, until `test_loss_memory.py` has measured it."""
    needs_reference: ClassVar[bool] = True
    needs_context_only: ClassVar[bool] = False
    needs_markers: ClassVar[bool] = True
    """False for methods that work without any marker set, such as a plain entropy bonus."""
    needs_stats: ClassVar[frozenset[str]] = frozenset()
    """Names from `VOCABULARY_STATS` and `ROW_STATS` that `token_gate`, `weights` or `shape` read."""

    @classmethod
    def check_strength(cls, strength: object) -> float:
        """Return the strength as a float.

        Raises:
            ConfigError: it is not a finite number within `strength_range`.
        """
        low, high = cls.strength_range
        if not is_number(strength) or not low <= strength <= high:  # type: ignore[operator]
            bounds = f"between {low:g} and {high:g}" if math.isfinite(high) else f"{low:g} or more"
            raise ConfigError(
                f"`calibration_strength` for {cls.name!r} is {cls.dial} and must be {bounds}, got {strength!r}. "
                f"Try {cls.suggested:g} first; 0 turns calibration off."
            )
        return float(strength)  # type: ignore[arg-type]

    def reference_of(self, views: Views) -> Logps:
        """The reference log-probabilities.

        Raises:
            ConfigError: the views hold none.
        """
        if views.reference is None:
            raise ConfigError(
                f"{self.name!r} compares with the context-free initial model, but no reference was given. "
                "Pass `Views(reference=...)`: the frozen initial weights run on the student's own prompt."
            )
        return views.reference

    def context_only_of(self, views: Views) -> Logps:
        """The log-probabilities given the context without the question.

        Raises:
            ConfigError: the views hold none.
        """
        if views.context_only is None:
            raise ConfigError(
                f"{self.name!r} subtracts what the context says by itself, but no such view was given. "
                "Pass `Views(context_only=...)`: the frozen initial weights run on the context without the question."
            )
        return views.context_only

    def stat(self, stats: TokenStats, field: str) -> Any:
        """One field of the stats.

        Raises:
            ConfigError: it was not computed. A trainer computes what `needs_stats` lists.
        """
        value = getattr(stats, field)
        if value is None:
            raise ConfigError(
                f"{self.name!r} reads `{field}` of each completion, but it was not given. Pass "
                f"`TokenStats({field}=...)`; a trainer without rewards has no advantages, successes or pass rates."
            )
        return value

    def token_gate(self, stats: TokenStats) -> PerToken | None:
        """What the method has to know about other positions than its own, (B, T); None if it needs nothing.

        Called once for each micro-batch; the result comes back, cut to the positions at hand, as `Views.gate`.
        """
        return None

    def expect(self, field: str, allowed: Callable[[Any], bool], wanted: str) -> None:
        """Check one setting.

        Raises:
            ConfigError: `allowed` says no.
        """
        given = getattr(self, field)
        if not allowed(given):
            raise ConfigError(
                f"`{field}` of the calibrator {self.name!r} must be {wanted}, got {given!r}. "
                "Change it in `calibration_kwargs`, or leave it out to use the default."
            )


def is_number(value: object) -> bool:
    """A finite int or float; a bool is neither."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


class Target(Calibrator):
    """A method that edits what the student is asked to imitate."""

    kind = "target"

    def edit_teacher(self, views: Views, strength: Strength) -> Logps:
        """The edited teacher, normalised log-probabilities (B, T, V), no gradient.

        At strength 0 it is `views.teacher` itself, not a copy. Otherwise float32 (float64 for float64 input).
        """
        raise NotImplementedError


class Penalty(Calibrator):
    """A method that adds a term to the loss of each token."""

    kind = "penalty"

    def penalty(self, views: Views, strength: Strength) -> PerToken:
        """The term before scaling, (B, T), at least 0, with the student's gradient; the caller adds strength · term.

        At strength 0 it is a plain zero without a graph.
        """
        raise NotImplementedError


class Weight(Calibrator):
    """A method that scales the loss of each token."""

    kind = "weight"

    def weights(self, stats: TokenStats, strength: Strength) -> PerToken:
        """Factors (B, T) without gradient; all 1 at strength 0."""
        raise NotImplementedError

    @staticmethod
    def all_ones(stats: TokenStats) -> PerToken:
        """The factors that change nothing."""
        return torch.ones(stats.completion_mask.shape, device=stats.completion_mask.device)


class Divergence(Calibrator):
    """A method that measures the distance between student and teacher in another way. Needs the whole vocabulary."""

    kind = "divergence"

    def divergence(self, views: Views, alpha: float, strength: Strength) -> PerToken:
        """The loss of each token, (B, T), with the student's gradient, in place of the plain divergence.

        Args:
            views: student, teacher and what else was asked for.
            alpha: TRL's `distillation_alpha`; see `objectives.divergences`.
            strength: at 0 the result is `objectives.divergence(student, teacher, alpha)`.
        """
        raise NotImplementedError


class Advantage(Calibrator):
    """A method that shapes the advantages of the policy gradient. Acts only in a hybrid or in a pure policy gradient."""

    kind = "advantage"
    loss_tables = 0
    needs_reference = False

    def shape(self, stats: TokenStats, strength: Strength) -> PerToken:
        """An advantage for each token, (B, T), no gradient; at strength 0 each row's own advantage, repeated."""
        raise NotImplementedError
