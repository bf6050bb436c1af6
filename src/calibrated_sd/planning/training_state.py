"""Bytes on one GPU that are there throughout: weights, gradients, optimizer states, frozen and moving copies.

Full fine-tuning of Ψ parameters with Adam takes 16Ψ bytes in mixed precision wherever the float32 values are kept
(Rajbhandari et al. 2020, *ZeRO*, arXiv:1910.02054, §3.1): here 4+4+8 with float32 weights under autocast, which is what
TRL loads by default, and 2+2+12 under DeepSpeed. Weights loaded in bf16 without DeepSpeed take 8Ψ and lose small updates.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrated_sd.errors import ConfigError
from calibrated_sd.planning.model_shape import ModelShape

WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2}
"""Bytes of a number; "auto" is what the published checkpoints of these models have."""
STATES = {"adamw_8bit": 2, "adamw_bnb_8bit": 2, "paged_adamw_8bit": 2, "adafactor": 0, "sgd": 0}
"""Bytes of optimizer states per parameter for other optimizers than AdamW, roughly (Dettmers et al. 2022,
arXiv:2110.02861; Shazeer and Stern 2018, arXiv:1804.04235)."""


@dataclass(frozen=True)
class Part:
    """One line of the memory table.

    Attributes:
        name: what it is.
        size: bytes on one GPU.
        phase: when it is there: "always", "generation", "old log-probabilities", "loss" or "backward".
        note: how the number came about.
    """

    name: str
    size: int
    phase: str = "always"
    note: str = ""


def sharding(settings: Any) -> str:
    """How states are divided among GPUs: "ddp", "zero1", "zero2", "zero3" or "fsdp".

    Raises:
        ConfigError: a DeepSpeed configuration that cannot be read or names no ZeRO stage.
    """
    if getattr(settings, "fsdp", None):
        return "fsdp"
    given = getattr(settings, "deepspeed", None)
    if not given:
        return "ddp"
    if not isinstance(given, Mapping):
        try:
            given = json.loads(Path(given).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"The DeepSpeed configuration {given} cannot be read ({error}). Give a JSON file."
            ) from error
    stage = given.get("zero_optimization", {}).get("stage", 0)
    return "ddp" if stage == 0 else f"zero{stage}"


def mixed_precision(settings: Any) -> bool:
    """Whether forward passes run in half precision whatever the weights are; TRL's default unless bf16 is switched off."""
    if getattr(settings, "use_cpu", False):
        return bool(settings.bf16 or settings.fp16)
    return settings.bf16 is None or bool(settings.bf16) or bool(settings.fp16)


def loaded_width(settings: Any) -> int:
    """Bytes of a weight as the trainer loads it; TRL's default is float32."""
    kwargs = settings.model_init_kwargs if isinstance(settings.model_init_kwargs, Mapping) else {}
    dtype = str(kwargs.get("dtype") or kwargs.get("torch_dtype") or "float32").removeprefix("torch.")
    if dtype not in WIDTH:
        raise ConfigError(f"model_init_kwargs names the dtype {dtype!r}. Known are {', '.join(WIDTH)}.")
    return WIDTH[dtype]


def is_calibrated(settings: Any) -> bool:
    """True if a calibrator acts."""
    return bool(getattr(settings, "is_calibrated", False))


def needs_reference(settings: Any) -> bool:
    """True if the context-free initial model is run, as `trainers.calibrated` decides it."""
    if not hasattr(settings, "make_calibrator"):
        return is_calibrated(settings)  # SFT: the penalty is a divergence from it
    calibrator = settings.make_calibrator()
    wants = calibrator.needs_reference or calibrator.needs_context_only
    controller = getattr(settings, "calibration_controller", None)
    observed = controller.get("observe", "density") if isinstance(controller, Mapping) else str(controller or "density")
    measures = not observed.startswith("density")
    return (is_calibrated(settings) and wants) or getattr(settings, "calibration_metrics", "auto") == "full" or measures


def state_parts(run: Any, settings: Any, shape: ModelShape) -> list[Part]:
    """Everything that is there throughout, on one GPU."""
    kind, gpus = sharding(settings), run.gpus
    deepspeed, half = kind.startswith("zero"), mixed_precision(settings)
    total = shape.n_parameters
    adapter = shape.lora_parameters(run.lora_r, run.lora_target_modules) if run.lora_r else 0
    width = 2 if deepspeed and half else 4 if kind == "fsdp" and not adapter else loaded_width(settings)
    # PEFT keeps adapters in float32, whatever the base model is in.
    trained, trained_width = (adapter, 2 if deepspeed and half else 4) if adapter else (total, width)

    divided = {
        "weights": kind in ("zero3", "fsdp"),
        "gradients": kind in ("zero2", "zero3", "fsdp"),
        "states": kind != "ddp",
    }

    def share(size: float, what: str) -> int:
        return int(size / gpus) if divided[what] else int(size)

    by = f", divided by {gpus}" if gpus > 1 else ""
    parts = [
        Part(
            "weights",
            share(total * width, "weights"),
            note=f"{total:,} · {width} B" + (by if divided["weights"] else ""),
        )
    ]
    if adapter:
        parts.append(
            Part("adapter", share(adapter * trained_width, "weights"), note=f"{adapter:,} · {trained_width} B")
        )
    parts.append(
        Part(
            "gradients",
            share(trained * trained_width, "gradients"),
            note=f"{trained_width} B each" + (by if divided["gradients"] else ""),
        )
    )
    if kind == "ddp" and gpus > 1:
        parts.append(Part("DDP buckets", trained * trained_width, note="a second copy of the gradients"))
    optimizer = str(getattr(settings.optim, "value", settings.optim))
    states = STATES.get(optimizer, 2 * (4 if deepspeed else trained_width))
    parts.append(
        Part(
            "optimizer states",
            share(trained * states, "states"),
            note=f"{optimizer}: {states} B each" + (by if divided["states"] else ""),
        )
    )
    if deepspeed and half:
        parts.append(Part("float32 master weights", share(trained * 4, "states"), note="kept by DeepSpeed" + by))
    if kind == "ddp" and half and width == 4:
        parts.append(
            Part(
                "autocast copies",
                total * 2 if not adapter else 0,
                note="half-precision weights, cached for a forward pass",
            )
        )
    parts += _copies(run, settings, shape, width, adapter, kind)
    return [part for part in parts if part.size]


def _copies(run: Any, settings: Any, shape: ModelShape, width: int, adapter: int, kind: str) -> list[Part]:
    """Teacher and reference. An adapter is switched off instead of copied; a base teacher is its own reference."""
    total = shape.n_parameters
    size = total * width // (run.gpus if kind in ("zero3", "fsdp") else 1)
    teacher = getattr(settings, "teacher_model_kind", None) if run.trainer in ("sdpo", "sdft") else None
    parts = []
    if teacher == "ema" and adapter:
        parts.append(Part("moving teacher", adapter * 8, note="a second adapter and its float32 average"))
    elif teacher in ("base", "ema") and not adapter:
        parts.append(Part(f"{teacher} teacher", size, note="a frozen copy" if teacher == "base" else "a moving copy"))
        if teacher == "ema" and width == 2 and kind == "ddp":
            parts.append(Part("average of the moving teacher", total * 4, note="float32, or it would not move"))
    if adapter:
        return parts
    if run.trainer == "distillation":
        parts.append(Part("self-teacher", size, note="a frozen copy of the initial weights"))
    elif run.trainer == "grpo":
        if getattr(settings, "beta", 0.0):
            parts.append(Part("reference", size, note="TRL's, because beta is above 0"))
    elif needs_reference(settings) and teacher != "base":
        parts.append(Part("reference", size, note="a frozen copy of the initial weights"))
    return parts


def launch_sharding(launch_file: Path) -> str:
    """How an accelerate launch file divides states, in the words of `sharding`.

    Raises:
        ConfigError: it cannot be read.
    """
    import yaml

    try:
        launch = yaml.safe_load(launch_file.read_text(encoding="utf-8"))
        kind = str(launch.get("distributed_type", "NO")).upper()
        stage = int((launch.get("deepspeed_config") or {}).get("zero_stage", 0))
    except (OSError, yaml.YAMLError, AttributeError, ValueError, RecursionError) as error:
        raise ConfigError(f"The launch file {launch_file} cannot be read ({error}). See `csd ls launch`.") from error
    if kind == "FSDP":
        return "fsdp"
    return f"zero{stage}" if kind == "DEEPSPEED" and stage else "ddp"


def with_sharding(settings: Any, kind: str) -> Any:
    """A copy of the settings that is divided so; for plans, not for training."""
    changed = copy.copy(settings)
    changed.fsdp = "full_shard" if kind == "fsdp" else None
    changed.deepspeed = {"zero_optimization": {"stage": int(kind[-1])}} if kind.startswith("zero") else None
    return changed
