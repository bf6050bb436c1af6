"""Self-distillation trainers for TRL that do not make a reasoning model forget how to doubt.

Public names are imported on first use, so that `import calibrated_sd` (and the command line) stays quick and rooms
without torch stay without torch. `__all__` is the contract: names in it keep their meaning within a minor version.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "CalibratedSDPOTrainer": "calibrated_sd.trainers.sdpo",
    "CalibratedSDPOConfig": "calibrated_sd.trainers.sdpo",
    "MarkerSet": "calibrated_sd.markers",
    "count_markers": "calibrated_sd.markers",
}
_ALIAS = {"SDPOTrainer": "CalibratedSDPOTrainer", "SDPOConfig": "CalibratedSDPOConfig"}

__all__ = [
    "CalibratedSDPOConfig",
    "CalibratedSDPOTrainer",
    "MarkerSet",
    "SDPOConfig",
    "SDPOTrainer",
    "__version__",
    "count_markers",
]

if TYPE_CHECKING:
    from calibrated_sd.markers import MarkerSet, count_markers
    from calibrated_sd.trainers.sdpo import CalibratedSDPOConfig, CalibratedSDPOTrainer
    from calibrated_sd.trainers.sdpo import CalibratedSDPOConfig as SDPOConfig
    from calibrated_sd.trainers.sdpo import CalibratedSDPOTrainer as SDPOTrainer


def __getattr__(name: str) -> Any:
    target = _ALIAS.get(name, name)
    if target not in _HOME:
        raise AttributeError(f"module 'calibrated_sd' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[target]), target)


def __dir__() -> list[str]:
    return sorted(__all__)
