"""What this package expects of TRL's stable part, and how it notices a change.

Nothing here imports `trl.experimental`: the trainers on TRL's stable classes keep working on the day that it goes.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.metadata import version

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from calibrated_sd.errors import CompatError

SUPPORTED_TRL = ">=1.16,<1.17"
"""The TRL releases this package was tested with; the same range stands in pyproject.toml."""

CARD_METHODS: dict[str, tuple[str, ...]] = {
    "create_model_card": ("model_name", "dataset_name", "tags"),
    "_save_checkpoint": ("model", "trial"),
}
"""Methods of every TRL trainer that the model card relies on."""

SFT_METHODS: dict[str, tuple[str, ...]] = {
    "__init__": (
        "model",
        "args",
        "data_collator",
        "train_dataset",
        "eval_dataset",
        "processing_class",
        "compute_loss_func",
        "compute_metrics",
        "callbacks",
        "optimizers",
        "optimizer_cls_and_kwargs",
        "preprocess_logits_for_metrics",
        "quantization_config",
        "peft_config",
        "formatting_func",
    ),
    "compute_loss": ("model", "inputs", "return_outputs", "num_items_in_batch"),
    "get_tp_size": (),
    "log": ("logs", "start_time"),
    "training_step": ("args", "kwargs"),
    **CARD_METHODS,
}
"""Methods of TRL's SFTTrainer that are overridden or called, with their parameters (without self)."""

DISTILLATION_METHODS: dict[str, tuple[str, ...]] = {
    "__init__": (
        "model",
        "teacher_model",
        "args",
        "train_dataset",
        "eval_dataset",
        "processing_class",
        "callbacks",
        "optimizers",
        "quantization_config",
        "peft_config",
        "tools",
    ),
    "_get_train_sampler": ("dataset",),
    "_generate_and_score_completions": ("inputs",),
    "_compute_loss": ("unwrapped_student", "inputs", "num_items_in_batch"),
    "_get_last_hidden_state": (
        "unwrapped_model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "pixel_values",
        "image_grid_thw",
        "pixel_attention_mask",
        "spatial_shapes",
        "image_sizes",
        "token_type_ids",
        "mm_token_type_ids",
        "image_position_ids",
    ),
    "log": ("logs", "start_time"),
    "training_step": ("model", "inputs", "num_items_in_batch"),
    "_load_optimizer_and_scheduler": ("checkpoint",),
    **CARD_METHODS,
}
"""The same for TRL's DistillationTrainer."""

FUSED_OUTPUT_FIELDS = ("log_probs", "label_mask")
"""Fields of TRL's FusedCausalLMOutput that are read."""


def check_version(installed: str | None = None) -> None:
    """Raise CompatError unless TRL's version lies in the supported range."""
    installed = version("trl") if installed is None else installed
    if Version(installed).base_version not in SpecifierSet(SUPPORTED_TRL):
        raise CompatError(
            f"calibrated-sd works with trl{SUPPORTED_TRL}, but trl {installed} is installed. Its trainers build on "
            f"experimental parts of TRL that may change in any release. Run: pip install 'trl{SUPPORTED_TRL}'."
        )


def check_methods(cls: type, expected: Mapping[str, tuple[str, ...]]) -> None:
    """Compare the parameters of `cls`'s methods with those this package was written for.

    Raises:
        CompatError: a method is gone or its parameters differ; the message names it and shows both lists.
    """
    for name, parameters in expected.items():
        method = getattr(cls, name, None)
        found = None if method is None else tuple(inspect.signature(method).parameters)[1:]
        if found != parameters:
            state = "no longer exists" if found is None else f"now takes ({', '.join(found)})"
            raise CompatError(
                f"TRL changed: {cls.__name__}.{name} {state}; calibrated-sd was written for ({', '.join(parameters)}). "
                f"Install a TRL release in the range trl{SUPPORTED_TRL}, or update calibrated-sd."
            )
