"""One warning if a model hardly doubts before training: then there is nothing for a calibrator to preserve."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

LOW_DENSITY = 2.0
"""Markers per 1000 tokens below which expressed doubt is too rare to be preserved, or to be seen going down."""
MIN_TOKENS = 2000
"""Tokens that have to be seen before the density is judged: at the threshold they hold four markers on average."""
LAST_STEP = 10
"""Optimizer steps after which the model no longer counts as untrained; what was not judged by then never is."""


class BaseDensity:
    """Watches the first completions of a run; judges once, warns at most once.

    Only local counts enter, so no process waits for another.

    Args:
        markers: name of the marker set, for the message.
        warns: whether this process is the one that warns.
    """

    def __init__(self, markers: str, warns: bool = True) -> None:
        self.markers = markers
        self.is_open = warns
        self.count = 0.0
        self.tokens = 0.0

    def observe(self, sums: Mapping[str, Any], step: int, mode: str = "train") -> None:
        """Take in the sums of one batch of fresh completions.

        Args:
            sums: `markers` and `completion_tokens`, numbers or scalar tensors.
            step: optimizer steps taken so far.
            mode: only ``"train"`` counts.
        """
        if not self.is_open or mode != "train":
            return
        if step >= LAST_STEP:
            self.is_open = False
            return
        self.count += float(sums["markers"])
        self.tokens += float(sums["completion_tokens"])
        if self.tokens < MIN_TOKENS:
            return
        self.is_open = False
        message = low_density_message(1000 * self.count / self.tokens, self.markers)
        if message:
            warnings.warn(
                f"{message} ({self.count:.0f} markers in the first {self.tokens:.0f} sampled tokens.)", stacklevel=3
            )


def low_density_message(per_1k: float, markers: str = "lexical") -> str | None:
    """What to say about a base density in markers per 1000 tokens; None if it is high enough."""
    if not per_1k < LOW_DENSITY:
        return None
    return (
        f"By itself the model voices doubt {per_1k:.2g} times per 1000 tokens (marker set {markers!r}). Below about "
        f"{LOW_DENSITY:g} there is nothing to preserve: a calibrator will change little, and a loss of doubt cannot be "
        "told from noise. Check prompts, chat template and thinking mode, use markers that this model does write "
        "(calibration_markers), or start from a model that thinks aloud."
    )
