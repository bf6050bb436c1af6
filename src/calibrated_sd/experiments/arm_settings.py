"""Whether the trainers take the settings of a reproduce recipe's arms. Builds their configs, and nothing else."""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

from calibrated_sd.errors import ConfigError, shortened, unknown_name
from calibrated_sd.experiments.recipe import Plan
from calibrated_sd.experiments.setting_ranges import check_ranges
from calibrated_sd.records.setting_types import check_settings

SET_BY_JOBS = (
    *("output_dir", "max_steps", "seed", "logging_steps", "report_to", "disable_tqdm"),
    *("save_strategy", "save_steps", "save_total_limit"),
)
"""What every job says itself."""


def check_arms(plan: Plan) -> None:
    """Build every arm's config once.

    Raises:
        ConfigError: an unknown setting, or a value that the trainer refuses.
    """
    for arm in plan.arms:
        own = dict(arm.trainer) if arm.kind == "sft" else {**plan.trainer, **arm.trainer}
        check_trainer_settings(own, f"arm {arm.name!r}", steps=plan.steps_of(arm), organism=True, sft=arm.kind == "sft")


def check_trainer_settings(
    settings: dict[str, Any], where: str, *, steps: int, organism: bool, sft: bool = False
) -> None:
    """Build the config of a run from its settings.

    Raises:
        ConfigError: an unknown setting, one that jobs set themselves, or a value that the trainer refuses.
    """
    from calibrated_sd.experiments.training import ON_CPU, trainer_settings
    from calibrated_sd.trainers.sdpo import CalibratedSDPOConfig
    from calibrated_sd.trainers.sft.config import CalibratedSFTConfig

    cls = CalibratedSFTConfig if sft else CalibratedSDPOConfig
    checked = settings if organism else {**settings, "use_cpu": True, "tf32": None}  # the runs may run elsewhere
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    for key in settings:
        if key in SET_BY_JOBS:
            raise ConfigError(f"{key} of {where} is set by the run itself. Leave it out.")
        if key not in known:
            raise unknown_name(f"trainer setting of {where}", key, known)
    check_settings(settings, cls, where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said again when the run starts
            if sft:
                made: Any = CalibratedSFTConfig(output_dir="unused", **{**ON_CPU, **checked})
            else:
                made = trainer_settings("unused", checked, steps=steps, seed=0, save_steps=1, organism=organism)
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, OSError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{where} cannot be made: {shortened(reason, 1500, plain=True)}") from error
    check_ranges(made, where)
