"""Every calibrator under one roof for the tests: what a trainer would know, and one call for all five kinds."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from calibrated_sd.calibrators import (
    CALIBRATORS,
    Advantage,
    Calibrator,
    Divergence,
    Penalty,
    Target,
    TokenStats,
    Views,
    Weight,
    build_calibrator,
)
from calibrated_sd.objectives import divergence, entropy, log_marker_mass

ALPHA = 0.5

OTHER_SETTINGS = {
    "floor, hinge": ("floor", {"form": "loghinge"}),
    "mixture, geometric": ("mixture", {"form": "geo"}),
    "anchor, adopsd": ("anchor", {"mode": "adopsd"}),
    "anchor, adopsd as published": ("anchor", {"mode": "adopsd", "gate": "entropy"}),
    "pmi_gate, every token of successes": ("pmi_gate", {"all_tokens": True, "correct_only": True}),
    "routing, both with reversal": ("routing", {"route_by": "both", "w_min": -1.0}),
    "routing, position": ("routing", {"route_by": "position"}),
    "anti_sd, markers": ("anti_sd", {"markers_only": True}),
    "epistemic_advantage, teacher": ("epistemic_advantage", {"zeta": 0.1}),
    "pass_rate, plain": ("pass_rate", {"form": "4p(1-p)", "normalise": False}),
    "clip, out": ("clip", {"beyond": "zero"}),
}

METHODS: dict[str, Calibrator] = {name: build_calibrator(name) for name in sorted(CALIBRATORS)} | {
    label: build_calibrator(name, settings) for label, (name, settings) in OTHER_SETTINGS.items()
}
"""Every method with its defaults, and again with settings that change what it does."""


def settings_of(method: str) -> dict:
    """Settings under which the method acts on the tiny random models of the tests at its suggested strength, from the first
    step on where it can."""
    settings = {"calibration_method": method, "calibration_strength": CALIBRATORS[method].suggested}
    if issubclass(CALIBRATORS[method], Advantage):
        settings["distillation_weight"] = 0.5
    if method == "anti_sd":
        settings["calibration_kwargs"] = {"gate": False}  # the gate stays shut for five steps
    if method == "anchor":
        settings["calibration_strength"] = 0.5  # at 1 these short completions are all anchored, and the loss is 0
    if method == "clip":
        settings["calibration_strength"] = 50.0  # a cap of 0.02 nats, which these small divergences do reach
    return settings


VIEWS = ("student", "teacher", "reference", "context_only", "gate")
"""Fields of `Views` that have rows and positions."""


def stats_of(
    views: Views,
    ids: Tensor,
    mask: Tensor | None = None,
    advantages: Tensor | None = None,
    succeeded: Tensor | None = None,
    pass_rate: Tensor | None = None,
) -> TokenStats:
    """All facts about sampled tokens `ids` (B, T) that these views hold, as a trainer would compute them."""
    rows = ids.shape[0]
    mask = torch.ones_like(ids) if mask is None else mask

    def sampled(logps):
        logps = logps if logps.dtype == torch.float64 else logps.float()
        return logps.gather(-1, ids.unsqueeze(-1)).squeeze(-1)

    def mass(logps):
        return log_marker_mass(logps, views.marker_ids)

    with torch.no_grad():
        reference = views.reference
        return TokenStats(
            completion_ids=ids,
            completion_mask=mask,
            is_marker=torch.isin(ids, views.marker_ids) & mask.bool(),
            student_logps=sampled(views.student),
            teacher_logps=sampled(views.teacher),
            reference_logps=None if reference is None else sampled(reference),
            student_entropy=entropy(views.student),
            teacher_entropy=entropy(views.teacher),
            log_m_student=mass(views.student),
            log_m_teacher=mass(views.teacher),
            log_m_reference=None if reference is None else mass(reference),
            divergence_to_student=divergence(views.student, views.teacher, ALPHA),
            advantages=torch.linspace(-1.0, 1.0, rows) if advantages is None else advantages,
            succeeded=torch.arange(rows) % 2 == 1 if succeeded is None else succeeded,
            pass_rate=torch.full((rows,), 0.5) if pass_rate is None else pass_rate,
        )


def gated(calibrator: Calibrator, views: Views, stats: TokenStats) -> Views:
    """The views with the gate that the method asks for."""
    return dataclasses.replace(views, gate=calibrator.token_gate(stats))


def act(calibrator: Calibrator, views: Views, stats: TokenStats, strength: float, alpha: float = ALPHA) -> Tensor:
    """Whatever the method does, on whole completions: (B, T, V) for a target, (B, T) for the other four kinds."""
    if strength and not isinstance(calibrator, (Weight, Advantage)):
        views = gated(calibrator, views, stats)
    return act_gated(calibrator, views, stats, strength, alpha)


def act_gated(calibrator, views, stats, strength, alpha=ALPHA) -> Tensor:
    """The same with a gate that is there already, so that it also works on a slice."""
    match calibrator:
        case Target():
            return calibrator.edit_teacher(views, strength)
        case Penalty():
            return calibrator.penalty(views, strength)
        case Divergence():
            return calibrator.divergence(views, alpha, strength)
        case Weight():
            return calibrator.weights(stats, strength)
        case Advantage():
            return calibrator.shape(stats, strength)
    raise AssertionError(f"no such kind: {calibrator!r}")


def per_token_loss(calibrator: Calibrator, views: Views, stats: TokenStats, strength: float, alpha: float) -> Tensor:
    """What the trainer minimises at each position, (B, T), for every kind that acts on the distillation loss."""
    result = act(calibrator, views, stats, strength, alpha)
    match calibrator:
        case Target():
            return divergence(views.student, result, alpha)
        case Penalty():
            return divergence(views.student, views.teacher, alpha) + strength * result
        case Divergence():
            return result
        case Weight():
            return result * divergence(views.student, views.teacher, alpha)
    raise AssertionError(f"no distillation loss: {calibrator!r}")


def change_views(views: Views, function) -> Views:
    """One function applied to every tensor of the views that has rows and positions."""
    changed = {field: getattr(views, field) for field in VIEWS}
    return dataclasses.replace(
        views, **{field: function(value) for field, value in changed.items() if value is not None}
    )


def pick_rows(stats: TokenStats, function) -> TokenStats:
    """One function applied to every field of the stats, rows first."""
    fields = {field.name: getattr(stats, field.name) for field in dataclasses.fields(stats)}
    return TokenStats(**{name: None if value is None else function(value) for name, value in fields.items()})
