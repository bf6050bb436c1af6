"""Bytes on one GPU that come and go: activations, logits and what the loss makes of them, the cache of generation.

How many float32 tables of (positions × vocabulary) a loss holds at its peak was measured once per case, by adding up the
tensors alive during one loss and backward pass (`tests/unit/planning/test_loss_memory.py` does it again); the counts are
whole numbers. TRL's 5 for the top-k loss and 13 for the full JSD are also what the resident memory of the process shows in
`docs/results/cost/bench.json`.
"""

from __future__ import annotations

from typing import Any

from calibrated_sd.planning.model_shape import ModelShape
from calibrated_sd.planning.steps import Steps
from calibrated_sd.planning.training_state import (
    Part,
    is_calibrated,
    loaded_width,
    mixed_precision,
    needs_reference,
    sharding,
)

TABLES = {"sampled_token": 4, "topk_logits": 5, "kl": 7, "jsd": 13}
"""Float32 tables at the peak of TRL's loss, student, teacher and gradients included, by `distillation_mode`."""
CHUNK_TABLES = {"sampled_token": 5, "topk_logits": 5, "kl": 8, "jsd": 14}
"""The same for a chunk of positions; a gradient of the chunk's logits comes on top."""
MEASURING_TABLES = 7
"""Tables of measured positions that the live figures add."""
MEASURED_ELEMENTS = 1 << 26
"""As in `trainers.metrics`: about so many (position, vocabulary entry) pairs of a micro-batch are measured."""
TILE_BYTES = int(1.1 * 2**30)
"""What TRL's tiled output head takes (GRPO, SFT), measured at 4096 × 32768 float32 tiles; independent of length."""
FRAGMENT = 2**30
"""CUDA context and what the allocator keeps; an assumption."""


def activation_bytes(shape: ModelShape, tokens: int, half: bool) -> int:
    """Bytes that one block keeps for its backward pass, without checkpointing, with fused attention.

    Numbers kept per token, counted from a Llama block under float32 and equal to the tensors measured within 1 %:
    6·hidden + 4·intermediate + 2·query + 2·key widths, and 2·(query + key) more where queries and keys are normalised. The
    kind of count is that of Korthikanti et al. 2022 (arXiv:2205.05198, §4.1), for this block. Under autocast the
    projections' inputs and outputs are in half precision and norms in float32.
    """
    query, key = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    norms = 6 * shape.hidden_size + (2 * (query + key) if shape.qk_norm else 0)
    rest = 4 * shape.intermediate_size + 2 * (query + key)
    casts = 2 * shape.hidden_size if half else 0
    return tokens * (4 * norms + (2 if half else 4) * rest + 2 * casts)


def method_tables(settings: Any) -> int:
    """Tables that the calibrator adds, as its class says."""
    return settings.make_calibrator().loss_tables if is_calibrated(settings) else 0


def head_tables(settings: Any, chunked: bool) -> float:
    """Float32 tables at the peak of the distillation loss."""
    if getattr(settings, "distillation_weight", 1.0) == 0:
        return TABLES["sampled_token"]
    mode, alpha = settings.distillation_mode, settings.distillation_alpha
    if mode == "full_logits":
        mode = "kl" if alpha in (0.0, 1.0) else "jsd"
    tables = float((CHUNK_TABLES if chunked else TABLES)[mode])
    tables += method_tables(settings)
    mixing = getattr(settings, "context_mixing", "per_sample")
    if mixing != "per_sample":
        levels = getattr(settings, "context_levels", None) or {}
        n = len(levels) if isinstance(levels, dict) else str(levels).count(",") + 1
        tables += 2 * n  # each level's logits, and their mixture on the way
    return tables


def measuring_bytes(settings: Any, shape: ModelShape, positions: int) -> int:
    """What the live figures add, at most; 0 without calibration metrics."""
    if getattr(settings, "calibration_metrics", "off") == "off":
        return 0
    measured = min(positions, max(256, MEASURED_ELEMENTS // shape.vocab_size))
    chunk = getattr(settings, "chunk_size", None)
    return 4 * shape.vocab_size * MEASURING_TABLES * min(measured, chunk or measured)


def loss_parts(run: Any, settings: Any, shape: ModelShape, rows: int, completion: int) -> list[Part]:
    """What the loss of one micro-batch takes beyond the activations that wait for the backward pass."""
    if run.trainer in ("grpo", "sft"):
        return _tiled_parts(settings, shape)
    positions, vocab, half = rows * completion, shape.vocab_size, mixed_precision(settings)
    chunk = getattr(settings, "chunk_size", None)
    if run.trainer == "distillation":
        tables, chunked = _distillation_tables(settings), chunk is not None
    else:
        chunked = chunk is not None and getattr(settings, "distillation_weight", 1.0) > 0
        tables = head_tables(settings, chunked)
    at_once = min(chunk or positions, positions) if chunked else positions
    tables += 0.5 if half else 0.0  # the logits as the head makes them
    note = f"{tables:g} float32 tables of {at_once} positions × {vocab}"
    parts = [Part("logits and loss", int(4 * tables * at_once * vocab), "loss", note)]
    measuring = measuring_bytes(settings, shape, positions)
    if measuring:
        parts.append(Part("live figures", measuring, "loss", "some positions, evenly spaced"))
    if chunked:
        parts.append(
            Part(
                "head of the chunked loss",
                _head_bytes(run, settings, shape),
                "loss",
                "its gradient in float32, its casts",
            )
        )
        contexts = 2 + needs_reference(settings)
        parts.append(
            Part(
                "hidden states of the chunked loss",
                contexts * positions * shape.hidden_size * 4,
                "loss",
                f"{contexts} passes",
            )
        )
    return [part for part in parts if part.size]


def _tiled_parts(settings: Any, shape: ModelShape) -> list[Part]:
    """TRL's fused head; the penalty of calibrated SFT runs a second one, or the whole vocabulary in chunks."""
    parts = [Part("output head in tiles", TILE_BYTES, "loss", "TRL's fused head")]
    if is_calibrated(settings):
        chunk = settings.chunk_size if settings.calibration_kl == "full" else 0
        size = int(4 * CHUNK_TABLES["kl"] * chunk * shape.vocab_size) or TILE_BYTES
        parts.append(Part("penalty", size, "loss", f"against the initial model, {settings.calibration_kl}"))
    return parts


def _distillation_tables(settings: Any) -> float:
    kind = "kl" if settings.beta in (0.0, 1.0) else "jsd"
    return float(CHUNK_TABLES[kind] + method_tables(settings))


def _head_bytes(run: Any, settings: Any, shape: ModelShape) -> int:
    trained = 0 if run.lora_r else 4
    casts = 2 if mixed_precision(settings) and loaded_width(settings) == 4 else 0
    return shape.head_parameters * (trained + casts * (1 if run.lora_r else 2))


def activation_parts(settings: Any, shape: ModelShape, tokens: int, teacher_tokens: int) -> list[Part]:
    """What the student's forward pass keeps, and what the present block needs."""
    half = mixed_precision(settings)
    block, width = activation_bytes(shape, tokens, half), 2 if half and loaded_width(settings) == 2 else 4
    entries = tokens * shape.hidden_size * width * shape.num_hidden_layers
    parts = []
    if settings.gradient_checkpointing:
        parts.append(Part("activations", entries, "loss", f"one hidden state per block, {tokens} tokens"))
        parts.append(Part("activations", entries, "backward", "the same"))
        parts.append(Part("one block again", block, "backward", "recomputed"))
    else:
        everything = block * shape.num_hidden_layers
        parts.append(Part("activations", everything, "loss", f"all blocks, {tokens} tokens; no checkpointing"))
        parts.append(Part("activations", everything, "backward", "the same"))
    if teacher_tokens:
        inner = teacher_tokens * (2 * shape.intermediate_size + 4 * shape.hidden_size) * (2 if half else 4)
        parts.append(Part("one block of the teacher", inner, "loss", f"{teacher_tokens} tokens, no gradient"))
    return parts


def generation_parts(
    run: Any, settings: Any, shape: ModelShape, steps: Steps, prompt: int, completion: int
) -> list[Part]:
    """The cache of keys and values, and vLLM's share where it lives on the same GPU."""
    if not steps.generated_rows_per_gpu:
        return []
    if settings.use_vllm:
        if settings.vllm_mode == "server":
            return []
        share, memory = settings.vllm_gpu_memory_utilization, run.gpu_memory_gib
        phase = "generation" if settings.vllm_enable_sleep_mode else "always"
        if memory:
            return [Part("vLLM", int(share * memory * 2**30), phase, f"{share:g} of the GPU, its weights and cache")]
        least = shape.n_parameters * 2 // settings.vllm_tensor_parallel_size
        return [Part("vLLM", least, phase, "its weights alone; give gpu_memory_gib to see its share")]
    half = mixed_precision(settings) or loaded_width(settings) == 2
    per_token = 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim * (2 if half else 4)
    rows = steps.generated_rows_per_gpu
    parts = [
        Part(
            "keys and values",
            rows * (prompt + completion) * per_token,
            "generation",
            f"{rows} completions at once, {prompt + completion} tokens each",
        )
    ]
    if sharding(settings) in ("zero3", "fsdp"):
        parts.append(Part("gathered weights", shape.n_parameters * 2, "generation", "generate() needs all of them"))
    return parts


def old_logps_parts(settings: Any, shape: ModelShape, steps: Steps, completion: int) -> list[Part]:
    """The pass that scores fresh rollouts; TRL runs the whole generation batch at once, we a micro-batch at a time."""
    if not steps.has_old_logps or not hasattr(settings, "distillation_mode"):
        return []
    chunk = getattr(settings, "chunk_size", None)
    positions = chunk if chunk else steps.generated_rows_per_gpu * completion
    size = int(3 * 4 * positions * shape.vocab_size)
    return [Part("logits of all rollouts", size, "old log-probabilities", f"3 float32 tables of {positions} positions")]
