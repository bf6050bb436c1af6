"""The checks behind the verdicts, by the names that ``claims.yaml`` gives them."""

from calibrated_sd.experiments.claim_checks.coverage import narrow_coverage_pays
from calibrated_sd.experiments.claim_checks.ladder import hard_problems, ladder_accuracy, ladder_style
from calibrated_sd.experiments.claim_checks.measures import (
    CONTRADICTED,
    NOT_RUN,
    NOT_SHOWN,
    SHOWN,
    Check,
    Figures,
    standard_error,
)
from calibrated_sd.experiments.claim_checks.off_policy import guided_sft_collapses, unguided_sft_holds
from calibrated_sd.experiments.claim_checks.on_policy import (
    calibrator_repairs,
    pass_at_k_gap,
    policy_gradient_holds,
    sdpo_degrades,
    shift_is_specific,
    stripped_is_milder,
)
from calibrated_sd.experiments.claim_checks.teachers import frozen_teacher_is_better, lower_rate_only_delays

__all__ = [
    "CHECKS",
    "CONTRADICTED",
    "NOT_RUN",
    "NOT_SHOWN",
    "SHOWN",
    "Check",
    "Figures",
    "hard_problems",
    "standard_error",
]

CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        ladder_style,
        ladder_accuracy,
        guided_sft_collapses,
        unguided_sft_holds,
        sdpo_degrades,
        policy_gradient_holds,
        stripped_is_milder,
        frozen_teacher_is_better,
        lower_rate_only_delays,
        narrow_coverage_pays,
        shift_is_specific,
        pass_at_k_gap,
        calibrator_repairs,
    )
}
