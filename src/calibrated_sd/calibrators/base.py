"""The three ways in which a method can preserve uncertainty, and what it may look at.

A *target* edits the teacher's distribution before the divergence is taken, a *penalty* adds a term, a *weight* scales
the loss of each token. A method is a frozen dataclass: its fields are its settings, checked when it is built; its one
dial, the strength, comes with every call, so that a schedule or a controller can turn it. Strength 0 means off.

Calibrators see log-probabilities, ids and masks. They never see a trainer, a tokenizer or a config.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

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
        completion_ids: the sampled tokens, (B, T); only for methods that look at them.
        completion_mask: 1 on real completion tokens, (B, T); only for methods that look at neighbours.
    """

    student: Logps
    teacher: Logps
    reference: Logps | None
    marker_ids: MarkerIds
    completion_ids: TokenIds | None = None
    completion_mask: TokenMask | None = None


class Calibrator:
    """What all methods share. Subclass `Target`, `Penalty` or `Weight` instead."""

    kind: ClassVar[Literal["target", "penalty", "weight"]]
    name: ClassVar[str]
    dial: ClassVar[str]
    """What the strength means, in a few words."""
    suggested: ClassVar[float]
    """The strength to try first."""
    strength_range: ClassVar[tuple[float, float]]
    needs_reference: ClassVar[bool] = True
    needs_completion: ClassVar[bool] = False

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

    def weights(self, views: Views, completion_ids: TokenIds, strength: Strength) -> PerToken:
        """Factors (B, T) without gradient; all 1 at strength 0."""
        raise NotImplementedError
