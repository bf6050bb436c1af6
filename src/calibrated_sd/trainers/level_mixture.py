"""Combine what the teacher says under several context levels into one target, as `context_mixing` names it."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Bool
from torch import Tensor

from calibrated_sd.calibrators import MixToFloor, Views, mix_levels
from calibrated_sd.shapes import Logps, MarkerIds
from calibrated_sd.trainers.config import ContextPlan


def combine_levels(
    by_level: Mapping[str, Logps],
    plan: ContextPlan,
    available: Bool[Tensor, "B K"],
    marker_ids: MarkerIds | None,
) -> Logps:
    """The mixture, normalised log-probabilities (B, T, V), no gradient.

    ``arith``, ``geo``: the weighted mean of the distributions, or of their logarithms.
    ``mix_to_floor``: the richer levels are mixed arithmetically; then the level `none`, whose weight is w, is mixed in
    position by position, just until the marker mass is w times its own. That is the guarantee which arithmetic mixing
    with the same weights gives everywhere, at the least distance from the richer levels.

    Args:
        by_level: log-probabilities (B, T, V) of the teacher under each level, in the plan's order.
        plan: the levels, their weights, and `mixing`.
        available: (B, K), False where a row lacks a level; its weight is shared out among the row's others.
        marker_ids: needed for `mix_to_floor` only.
    """
    levels = plan.levels
    if plan.mixing != "mix_to_floor":
        return mix_levels(list(by_level.values()), list(levels.values()), plan.mixing, available)
    assert marker_ids is not None  # the trainer refuses to start without any
    rich = [name for name in levels if name != "none"]
    columns = [index for index, name in enumerate(levels) if name != "none"]
    total = sum(levels[name] for name in rich)
    richer = mix_levels(
        [by_level[name] for name in rich],
        [levels[name] / total for name in rich],
        available=available[:, columns],
    )
    views = Views(student=richer, teacher=richer, reference=by_level["none"], marker_ids=marker_ids)
    return MixToFloor().edit_teacher(views, levels["none"])
