"""What a run will take before it is started: steps, tokens and memory per GPU, from settings and a model configuration.

Nothing is loaded and nothing is fetched. ``plan_run`` is what `csd train --dry-run` prints.
"""

from calibrated_sd.planning.memory import GIB, Memory, amount, estimate_memory
from calibrated_sd.planning.model_shape import ModelShape, model_shape, read_shape
from calibrated_sd.planning.plan import Plan, plan_run
from calibrated_sd.planning.steps import Steps, count_steps
from calibrated_sd.planning.training_state import Part, launch_sharding, sharding, with_sharding

__all__ = [
    "GIB",
    "Memory",
    "ModelShape",
    "Part",
    "Plan",
    "Steps",
    "amount",
    "count_steps",
    "estimate_memory",
    "launch_sharding",
    "model_shape",
    "plan_run",
    "read_shape",
    "sharding",
    "with_sharding",
]
