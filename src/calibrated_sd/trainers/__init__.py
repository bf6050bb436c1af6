"""The classes that users swap in for TRL's. Names are imported on first use, because TRL takes seconds to import."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "CalibratedSDPOConfig": "calibrated_sd.trainers.sdpo",
    "CalibratedSDPOTrainer": "calibrated_sd.trainers.sdpo",
    "CalibrationFields": "calibrated_sd.trainers.config",
    "CalibrationMixin": "calibrated_sd.trainers.mixin",
    "ContextFreeReference": "calibrated_sd.trainers.reference",
    "JsonlLogCallback": "calibrated_sd.trainers.callbacks",
}

__all__ = [
    "CalibratedSDPOConfig",
    "CalibratedSDPOTrainer",
    "CalibrationFields",
    "CalibrationMixin",
    "ContextFreeReference",
    "JsonlLogCallback",
]

if TYPE_CHECKING:
    from calibrated_sd.trainers.callbacks import JsonlLogCallback
    from calibrated_sd.trainers.config import CalibrationFields
    from calibrated_sd.trainers.mixin import CalibrationMixin
    from calibrated_sd.trainers.reference import ContextFreeReference
    from calibrated_sd.trainers.sdpo import CalibratedSDPOConfig, CalibratedSDPOTrainer


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
