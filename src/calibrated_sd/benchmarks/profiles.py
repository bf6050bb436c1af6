"""How much is measured: sizes and repeats of the default and the quick run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from calibrated_sd.errors import unknown_name

SECTIONS = ("loss", "step", "growth", "peers")
"""What `--only` names, and what runs without it."""

MODEL_STEP = "model_step"
"""A section for GPUs, which only runs when it is named, or with `--gpu`."""

GPU_SECTIONS = ("loss", MODEL_STEP)
"""What `--gpu` runs."""

QWEN3_VOCAB = 151_936

TOPK_CASES = ("trl_topk", "ours_topk", "ours_topk_projection", "ours_topk_floor")
OTHER_CASES = (
    *("trl_topk", "ours_topk", "trl_full", "ours_full", "ours_full_projection"),
    *("trl_tiles_jsd", "trl_tiles_forward_kl", "ours_forward_kl"),
)
GROWTH_CASES = ("trl_topk", "trl_tiles_jsd", "ours_topk", "ours_topk_projection")


@dataclass(frozen=True)
class LossGroup:
    """Losses measured at one size, and how often."""

    name: str
    cases: tuple[str, ...]
    size: dict[str, Any]
    repeats: int


@dataclass(frozen=True)
class GrowthAxis:
    """Losses measured along one axis of the size."""

    axis: str
    values: tuple[int, ...]
    cases: tuple[str, ...]


@dataclass(frozen=True)
class StepPlan:
    """Training steps: how often each variant runs, and what replaces the recipe's settings."""

    repeats: int
    trainer: dict[str, Any]


@dataclass(frozen=True)
class ModelStepPlan:
    """Training steps of a whole model with random weights.

    Attributes:
        config: fields of `Qwen3Config`.
        dtype: of the weights.
        rows: sequences in a step.
        prompt_tokens: of the student's prompts.
        lengths: completion tokens that are timed.
        repeats: steps at each length, after one that is not counted.
        chunk_size: of the variants in chunks.
        limit, resolution: of the search for the longest completion, in tokens.
        settings: further settings of the trainer.
    """

    config: dict[str, Any]
    dtype: str
    rows: int
    prompt_tokens: int
    lengths: tuple[int, ...]
    repeats: int
    chunk_size: int
    limit: int
    resolution: int
    settings: dict[str, Any]


@dataclass(frozen=True)
class Profile:
    """One kind of run.

    Attributes:
        name: default, quick or gpu.
        losses: groups of losses; the bars on the loss are read from the group ``bars``.
        agreement: size at which losses and gradients are compared.
        peers: size and repeats of the comparison with other packages.
        growth: size that the axes start from.
        growth_axes: the axes.
        growth_repeats: how often each point is measured.
        steps: the training steps of the organism.
        model_steps: those of a whole model.
        seed: of the order, the inputs and the rollouts.
    """

    name: str
    losses: tuple[LossGroup, ...]
    agreement: dict[str, Any]
    peers: LossGroup
    growth: dict[str, Any]
    growth_axes: tuple[GrowthAxis, ...]
    growth_repeats: int
    steps: StepPlan
    model_steps: ModelStepPlan | None = None
    seed: int = 0


LARGE_MODEL = ModelStepPlan(
    # The shape of Qwen3-0.6B: 596,049,920 parameters.
    config={
        "vocab_size": QWEN3_VOCAB,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 131_072,
        "tie_word_embeddings": True,
    },
    dtype="bfloat16",
    rows=1,
    prompt_tokens=512,
    lengths=(1024, 4096, 16_384),
    repeats=5,
    chunk_size=256,
    limit=65_536,
    resolution=512,
    settings={
        "teacher_model_kind": "base",
        "distillation_mode": "topk_logits",
        "distillation_topk": 100,
        "distillation_alpha": 0.5,
        "distillation_add_tail": True,
        "gradient_checkpointing": True,
        "calibration_metrics": "off",
    },
)
_SMALL_SHAPE = {
    "vocab_size": 512,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}


def _default() -> Profile:
    size = {"vocab": QWEN3_VOCAB, "hidden": 256, "chunk_size": 64}
    return Profile(
        name="default",
        losses=(
            LossGroup("bars", TOPK_CASES, {**size, "positions": 2048}, repeats=3),
            LossGroup("others", OTHER_CASES, {**size, "positions": 512}, repeats=2),
        ),
        agreement={**size, "positions": 128},
        peers=LossGroup("peers", ("trl_topk", "ours_topk"), {**size, "positions": 512}, repeats=3),
        growth={"vocab": 32_768, "hidden": 256, "chunk_size": 64, "positions": 256},
        growth_axes=(
            GrowthAxis("positions", (128, 256, 512, 1024), GROWTH_CASES),
            GrowthAxis("vocab", (8_192, 32_768, 65_536, QWEN3_VOCAB), GROWTH_CASES),
            GrowthAxis("contexts", (1, 2, 3, 4), ("ours_topk", "ours_topk_projection")),
            GrowthAxis("markers", (1, 3, 10, 30, 100), ("ours_topk_projection", "ours_topk_floor")),
        ),
        growth_repeats=1,
        steps=StepPlan(repeats=5, trainer={}),
        model_steps=LARGE_MODEL,
    )


def _gpu() -> Profile:
    """The losses at the width of a real model, and steps of a whole one; the rest is the default's."""
    size = {"vocab": QWEN3_VOCAB, "hidden": 4096, "chunk_size": 256}
    return replace(
        _default(),
        name="gpu",
        losses=(
            LossGroup("bars", TOPK_CASES, {**size, "positions": 2048}, repeats=5),
            LossGroup("long", TOPK_CASES, {**size, "positions": 8192}, repeats=5),
            LossGroup("others", OTHER_CASES, {**size, "positions": 2048}, repeats=5),
        ),
        agreement={**size, "positions": 128},
    )


def _quick() -> Profile:
    size = {"vocab": 4_096, "hidden": 64, "chunk_size": 32}
    return Profile(
        name="quick",
        losses=(
            LossGroup("bars", TOPK_CASES, {**size, "positions": 512}, repeats=2),
            LossGroup("others", OTHER_CASES, {**size, "positions": 128}, repeats=1),
        ),
        agreement={**size, "positions": 64},
        peers=LossGroup("peers", ("trl_topk", "ours_topk"), {**size, "positions": 128}, repeats=2),
        growth={**size, "positions": 128},
        growth_axes=(
            GrowthAxis("positions", (64, 128, 256), GROWTH_CASES),
            GrowthAxis("vocab", (1_024, 4_096, 8_192), GROWTH_CASES),
            GrowthAxis("contexts", (1, 2, 3, 4), ("ours_topk", "ours_topk_projection")),
            GrowthAxis("markers", (1, 10, 100), ("ours_topk_projection", "ours_topk_floor")),
        ),
        growth_repeats=1,
        steps=StepPlan(
            repeats=1,
            trainer={
                "per_device_train_batch_size": 16,
                "gradient_accumulation_steps": 1,
                "max_completion_length": 64,
            },
        ),
        model_steps=replace(
            LARGE_MODEL,
            config={**LARGE_MODEL.config, **_SMALL_SHAPE},
            dtype="float32",
            rows=2,
            prompt_tokens=8,
            lengths=(16, 32),
            repeats=1,
            chunk_size=8,
        ),
    )


PROFILES = {"default": _default, "gpu": _gpu, "quick": _quick}


def check_sections(names: Iterable[str]) -> None:
    """Raise ConfigError unless all are names of sections."""
    for name in names:
        if name not in (*SECTIONS, MODEL_STEP):
            raise unknown_name("section", name, (*SECTIONS, MODEL_STEP))


def load_profile(name: str) -> Profile:
    """The profile of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in PROFILES:
        raise unknown_name("profile", name, PROFILES)
    return PROFILES[name]()
