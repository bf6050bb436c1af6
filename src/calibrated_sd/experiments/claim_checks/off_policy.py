"""C3 and C4: fine-tuning on right answers with and without doubt."""

from __future__ import annotations

from calibrated_sd.experiments.claim_checks.measures import (
    NOT_RUN,
    Figures,
    falls_by_standard_errors,
    need,
    ood,
    paired_difference,
    rises_by_standard_errors,
    verdict,
)
from calibrated_sd.experiments.collect import BASE, RunData

UNGUIDED, GUIDED = "sft_d_ug", "sft_d_sg"
MATCHED = "_token_matched"
"""Ending of the arms whose data have the other set's number of tokens."""


def guided_sft_collapses(data: RunData, best: str) -> tuple[Figures, str]:
    """C3. D_sg must harm in its own size and in D_ug's."""
    arms = (GUIDED, GUIDED + MATCHED)
    if not need(data, BASE, *arms):
        return {}, NOT_RUN
    figures = {f"ood_{arm}_minus_base": paired_difference(ood(data, arm), ood(data, BASE)).figure for arm in arms}
    shown = all(falls_by_standard_errors(f, 3) for f in figures.values())
    return figures, verdict(shown, figures[f"ood_{GUIDED}_minus_base"]["lo"] > 0)


def unguided_sft_holds(data: RunData, best: str) -> tuple[Figures, str]:
    """C4. At equal numbers of examples, and at equal numbers of tokens both ways; changes from the base model beside."""
    pairs = ((UNGUIDED, GUIDED), (UNGUIDED, GUIDED + MATCHED), (UNGUIDED + MATCHED, GUIDED))
    if not need(data, BASE, *(arm for pair in pairs for arm in pair)):
        return {}, NOT_RUN
    gaps = {f"ood_{a}_minus_{b}": paired_difference(ood(data, a), ood(data, b)).figure for a, b in pairs}
    beside = {
        f"ood_{arm}_minus_base": paired_difference(ood(data, arm), ood(data, BASE)).figure
        for arm in (UNGUIDED, UNGUIDED + MATCHED)
    }
    shown = all(rises_by_standard_errors(f, 3) for f in gaps.values())
    return {**gaps, **beside}, verdict(shown, gaps[f"ood_{UNGUIDED}_minus_{GUIDED}"]["hi"] < 0)
