"""The decoding loop of one batch: left padding, a cache, and rows that leave once they have ended.

The loop is our own because ``model.generate`` keeps computing rows that have ended until the longest one has. Dropping
them, the cache included, gives the same tokens and about four times as many per second (six with a dynamic cache there;
0.9M parameters, 256 rows, at most 256 and on average 75 tokens, one CPU core).

Two caches, with the same tokens. ``dynamic`` grows by one column a step, which copies it; attention reads what is
there. ``static`` is allocated at its full length, prompt plus ``max_new_tokens``, and never copied; attention reads all
of it, filled or not. How they compare is in ``docs/how-to/evaluate_at_scale.md``.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from calibrated_sd.evaluation.sampling import Sampling

CACHES = ("dynamic", "static")
"""Kinds of key-value cache."""
_COMPACT_BELOW = 0.9  # drop finished rows once fewer than this share of the batch is still writing (measured)


def decode_batch(
    model: Any,
    prompts: Sequence[Sequence[int]],
    uniforms: np.ndarray,
    stop_ids: set[int],
    sampling: Sampling,
    cache: str = "dynamic",
) -> list[list[int]]:
    """Generated ids of each row, ending with a stop id or after ``max_new_tokens``.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        prompts: token ids of each row; none is empty.
        uniforms: (rows, max_new_tokens) float64 in [0, 1), the numbers that decide each token.
        stop_ids: ids that end a row.
        sampling: the settings.
        cache: one of ``CACHES``.
    """
    device, width, limit = model.device, max(map(len, prompts)), sampling.max_new_tokens
    tokens = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)  # left padding, masked
    filled = [[0] * (width - len(p)) + [1] * (len(p) + limit) for p in prompts]
    mask = torch.tensor(filled, device=device, dtype=torch.int8).long()  # all columns at once; a step sees a slice
    positions = (mask[:, :width].cumsum(-1) - 1).clamp(min=0)
    draws = torch.from_numpy(uniforms).to(device)
    stops = torch.tensor(sorted(stop_ids), device=device, dtype=torch.long)
    accepted = inspect.signature(model.forward).parameters
    optional: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    written = torch.zeros(len(prompts), limit, dtype=torch.long, device=device)
    lengths = torch.full((len(prompts),), limit, dtype=torch.long, device=device)
    alive = torch.arange(len(prompts), device=device)  # row of `written` that each row of the batch belongs to
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    with torch.inference_mode():
        past = _static_cache(model, width + limit) if cache == "static" else None
        for step in range(limit):
            if "position_ids" in accepted:
                optional["position_ids"] = positions
            seen = mask[:, : width + step]
            out = model(input_ids=tokens, attention_mask=seen, past_key_values=past, use_cache=True, **optional)
            past = out.past_key_values
            chosen = choose_tokens(out.logits[:, -1], draws[alive, step], sampling)
            written[alive, step] = chosen
            just_ended = torch.isin(chosen, stops) & ~ended
            lengths[alive[just_ended]] = step + 1
            ended = ended | just_ended
            if bool(ended.all()):
                break
            tokens, positions = chosen[:, None], positions[:, -1:] + 1
            if float((~ended).float().mean()) < _COMPACT_BELOW:
                keep = (~ended).nonzero()[:, 0]
                if _keep_rows(past, keep):
                    tokens, positions, mask, alive, ended = (x[keep] for x in (tokens, positions, mask, alive, ended))
    return [row[:length] for row, length in zip(written.tolist(), lengths.tolist(), strict=True)]


def choose_tokens(logits: torch.Tensor, uniforms: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """One token per row: argmax at temperature 0, else the inverse of the cumulative distribution at ``uniforms``.

    Args:
        logits: (rows, V), any float type.
        uniforms: (rows,) float64 in [0, 1).
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probs = torch.softmax(logits.float() / sampling.temperature, dim=-1).double()
    if sampling.top_p < 1:
        ranked, index = probs.sort(dim=-1, descending=True)
        outside = ranked.cumsum(-1) - ranked >= sampling.top_p  # the most likely token always stays inside
        probs = probs.scatter(-1, index, ranked.masked_fill(outside, 0.0))
    cumulative = probs.cumsum(-1)
    target = uniforms[:, None] * cumulative[:, -1:]
    # First index whose cumulative probability exceeds the target, hence never one of probability 0.
    return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


def _static_cache(model: Any, length: int) -> Any:
    from transformers import StaticCache

    return StaticCache(config=model.config, max_cache_len=length)


def _keep_rows(past: Any, keep: torch.Tensor) -> bool:
    """Drop all other rows from the cache; False where some layer of it has no such operation (then nothing changed)."""
    layers = getattr(past, "layers", ())
    if layers and all(hasattr(layer, "batch_select_indices") for layer in layers):
        past.batch_select_indices(keep)
        return True
    if layers and all(type(layer).__name__ in ("StaticLayer", "StaticSlidingWindowLayer") for layer in layers):
        for layer in layers:
            layer.keys, layer.values = layer.keys[keep], layer.values[keep]
            layer.batch_size = len(keep)
        return True
    return False
