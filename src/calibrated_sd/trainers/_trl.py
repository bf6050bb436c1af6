"""The only module that imports `trl.experimental`, and the guard that notices when it changes.

TRL makes no promise about its experimental trainers: private methods may change in any release. Everything this package
overrides or calls is listed here with the parameters it was written for, and is compared when the package is imported.
A drift is then one clear error instead of a run that trains something else.
"""

from __future__ import annotations

import os

from calibrated_sd.errors import CompatError
from calibrated_sd.trainers.trl_contract import SUPPORTED_TRL, check_methods, check_version

check_version()

# The notice is for people who import trl.experimental themselves; here the version range above does its work.
_silenced_before = os.environ.get("TRL_EXPERIMENTAL_SILENCE")
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
try:
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer
    from trl.experimental.sdft.sdft_trainer import DemonstrationTeacherContextBuilder
    from trl.experimental.sdft.sdft_trainer import DistillationLogits as SDFTDistillationLogits
    from trl.experimental.sdft.teacher_sync import PEFTAdapterEMACallback as SDFTAdapterEMACallback
    from trl.experimental.sdft.teacher_sync import SyncTeacherModelCallback as SDFTSyncTeacherModelCallback
    from trl.experimental.sdpo import SDPOConfig, SDPOTrainer
    from trl.experimental.sdpo.sdpo_trainer import (
        DistillationLogits,
        SuccessfulRolloutTeacherContextBuilder,
    )
    from trl.experimental.sdpo.teacher_sync import PEFTAdapterEMACallback, SyncTeacherModelCallback
finally:
    if _silenced_before is None:
        del os.environ["TRL_EXPERIMENTAL_SILENCE"]

SHARED_METHODS: dict[str, tuple[str, ...]] = {
    "_setup_teacher_model": (),
    "_use_peft_ema_teacher_adapter": (),
    "_prepare_training_batch": ("inputs",),
    "_get_train_sampler": ("dataset",),
    "_compute_rollout_logps": ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask"),
    "_compute_teacher_student_logits": ("model", "teacher_model", "inputs"),
    "_compute_self_distillation_loss": ("model", "inputs", "distillation_logits"),
    "_forward_logits": ("model", "input_ids", "attention_mask", "logits_to_keep"),
    "_get_teacher_context_for_self_distillation": (),
    "_log_self_distillation_metric": ("mode", "value"),
    "_dispatch_self_distillation_callback": ("event_name", "payload"),
    "_get_completion_ids_list": ("batch",),
    "_save_checkpoint": ("model", "trial"),
    "_load_from_checkpoint": ("resume_from_checkpoint", "model"),
    "_load_optimizer_and_scheduler": ("checkpoint",),
    "log": ("logs", "start_time"),
    "training_step": ("model", "inputs", "num_items_in_batch"),
}
"""Methods of TRL's SDPOTrainer and SDFTTrainer that are overridden or called, with their parameters (without self)."""

SDPO_METHODS: dict[str, tuple[str, ...]] = {
    "__init__": (
        "model",
        "reward_funcs",
        "args",
        "train_dataset",
        "eval_dataset",
        "processing_class",
        "reward_processing_classes",
        "callbacks",
        "optimizers",
        "peft_config",
    ),
    **SHARED_METHODS,
    "_tokenize_prompts_untruncated": ("prompts",),
    "_calculate_rewards": ("inputs", "prompts", "completions", "completion_ids_list"),
    "_compute_policy_loss": ("inputs", "student_logits"),
}
"""Those of SDPOTrainer."""

SDFT_METHODS: dict[str, tuple[str, ...]] = {
    "__init__": (
        "model",
        "args",
        "train_dataset",
        "eval_dataset",
        "processing_class",
        "callbacks",
        "optimizers",
        "peft_config",
    ),
    **SHARED_METHODS,
    "_tokenize_prompts": ("prompts",),
}
"""Those of SDFTTrainer."""

BUILDER_METHODS: dict[str, tuple[str, ...]] = {"build": ("output", "prompts", "rewards", "feedbacks")}
"""The same for the teacher context builder of SDPO."""

SDFT_BUILDER_METHODS: dict[str, tuple[str, ...]] = {
    "build": ("prompts", "privileged_contexts", "completion_ids", "completion_mask"),
    "select_generation_prompts": ("prompts", "privileged_contexts"),
}
"""The same for that of SDFT."""

LOGITS_FIELDS = ("completion_ids", "completion_mask", "loss_mask", "student_logits", "teacher_logits")
"""Fields of SDPO's DistillationLogits."""

SDFT_LOGITS_FIELDS = ("completion_ids", "loss_mask", "student_logits", "teacher_logits")
"""Fields of SDFT's."""


def check_contract() -> None:
    """Compare everything this package relies on with the installed TRL. Raises CompatError on the first difference."""
    check_methods(SDPOTrainer, SDPO_METHODS)
    check_methods(SDFTTrainer, SDFT_METHODS)
    check_methods(SuccessfulRolloutTeacherContextBuilder, BUILDER_METHODS)
    check_methods(DemonstrationTeacherContextBuilder, SDFT_BUILDER_METHODS)
    for cls, expected in ((DistillationLogits, LOGITS_FIELDS), (SDFTDistillationLogits, SDFT_LOGITS_FIELDS)):
        found = tuple(cls.__dataclass_fields__)
        if found != expected:
            raise CompatError(
                f"TRL changed: {cls.__module__}.{cls.__name__} now has the fields {', '.join(found)}; calibrated-sd was "
                f"written for {', '.join(expected)}. Install a TRL release in the range trl{SUPPORTED_TRL}."
            )


check_contract()

SYNC_CALLBACKS = (SyncTeacherModelCallback, SDFTSyncTeacherModelCallback)
"""TRL's callbacks for a fully fine-tuned EMA teacher; SDPO and SDFT have a copy each."""

ADAPTER_CALLBACKS = (PEFTAdapterEMACallback, SDFTAdapterEMACallback)
"""The same for a LoRA teacher."""

__all__ = [
    "ADAPTER_CALLBACKS",
    "BUILDER_METHODS",
    "LOGITS_FIELDS",
    "SDFT_BUILDER_METHODS",
    "SDFT_LOGITS_FIELDS",
    "SDFT_METHODS",
    "SDPO_METHODS",
    "SUPPORTED_TRL",
    "SYNC_CALLBACKS",
    "DemonstrationTeacherContextBuilder",
    "DistillationLogits",
    "PEFTAdapterEMACallback",
    "SDFTConfig",
    "SDFTTrainer",
    "SDPOConfig",
    "SDPOTrainer",
    "SuccessfulRolloutTeacherContextBuilder",
    "SyncTeacherModelCallback",
    "check_contract",
    "check_methods",
    "check_version",
]
