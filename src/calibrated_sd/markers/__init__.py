"""Epistemic verbalization: which words express doubt, how often a text uses them, and how likely a model is to.

A :class:`MarkerSet` is an immutable, versioned, hashed list of phrases. Three ship with the package: ``legacy`` (the ten
substrings of arXiv:2603.24472, for comparison with the paper), ``lexical`` (the same idea with word boundaries and word
senses, given to calibrators) and ``held_out`` (doubt in other words, given to nobody). Counting needs no torch; only
the alignment with token ids and the probability mass do, and they are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from calibrated_sd.markers.counting import Span, count_markers, find_spans, per_1k
from calibrated_sd.markers.lexicon import MARKER_SETS, MarkerSet, Phrase

if TYPE_CHECKING:
    from calibrated_sd.markers.alignment import marker_token_ids, marker_token_mask, token_ranges
    from calibrated_sd.markers.mass import (
        log_marker_mass,
        log_marker_mass_from_logits,
        marker_mass,
        retention,
        suppression,
    )

_NEEDS_TORCH = {
    "log_marker_mass": "mass",
    "log_marker_mass_from_logits": "mass",
    "marker_mass": "mass",
    "marker_token_ids": "alignment",
    "marker_token_mask": "alignment",
    "retention": "mass",
    "suppression": "mass",
    "token_ranges": "alignment",
}

__all__ = [
    "MARKER_SETS",
    "MarkerSet",
    "Phrase",
    "Span",
    "count_markers",
    "find_spans",
    "log_marker_mass",
    "log_marker_mass_from_logits",
    "marker_mass",
    "marker_token_ids",
    "marker_token_mask",
    "per_1k",
    "retention",
    "suppression",
    "token_ranges",
]


def __getattr__(name: str) -> Any:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module 'calibrated_sd.markers' has no attribute {name!r}")
    return getattr(importlib.import_module(f"calibrated_sd.markers.{_NEEDS_TORCH[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
