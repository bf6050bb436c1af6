"""LoRA adapters for evaluation: what a folder of PEFT holds, whether an engine can use it, and putting it on a model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrated_sd.errors import ConfigError
from calibrated_sd.records import read_json

_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 512)  # max_lora_rank knows only these
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")  # the base weights stay as they are


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter saved by PEFT.

    Attributes:
        folder: where ``adapter_config.json`` and the weights are.
        rank: the largest rank of any module.
        base_model: what it was trained on, as PEFT noted it; None if it did not.
        settings: the content of ``adapter_config.json``.
        sha256: of the weights file.
    """

    folder: Path
    rank: int
    base_model: str | None
    settings: dict[str, Any]
    sha256: str


def read_adapter(folder: str | Path) -> Adapter:
    """Check a folder written by ``save_pretrained`` of a PEFT model.

    Raises:
        ConfigError: no such folder, no adapter in it, no weights, or an adapter that is not LoRA.
    """
    folder = Path(folder)
    if not (folder / "adapter_config.json").is_file():
        raise ConfigError(
            f"{folder} holds no adapter (no adapter_config.json). Give the folder that the trainer or "
            "PeftModel.save_pretrained wrote, or a checkpoint-N folder inside it."
        )
    settings = read_json(folder / "adapter_config.json")
    kind = settings.get("peft_type") if isinstance(settings, dict) else None
    if kind != "LORA":
        raise ConfigError(
            f"The adapter in {folder} is of type {kind}, and only LORA can be evaluated. Merge it into the model with "
            "PEFT and give the merged folder as --model."
        )
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise ConfigError(
            f"{folder} has an adapter_config.json but no adapter_model.safetensors. Is it complete? Weights in a .bin file "
            "are not read, because it is a pickle; save the adapter again with a recent PEFT."
        )
    rank = max([int(settings.get("r") or 0), *map(int, (settings.get("rank_pattern") or {}).values())])
    with open(weights, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Adapter(folder, rank, settings.get("base_model_name_or_path"), settings, digest)


def vllm_rank(adapter: Adapter) -> int:
    """The smallest ``max_lora_rank`` of vLLM that holds this adapter.

    Raises:
        ConfigError: vLLM cannot apply it.
    """
    settings = adapter.settings
    start = settings.get("init_lora_weights")
    reasons = [
        f"{name}={settings[name]!r}"
        for name in ("modules_to_save", "use_dora", "lora_bias", "layer_replication", "use_qalora")
        if settings.get(name)
    ]
    reasons += [f"bias={settings['bias']!r}"] if settings.get("bias", "none") != "none" else []
    reasons += [f"init_lora_weights={start!r}"] if isinstance(start, str) and start not in _PLAIN_STARTS else []
    reasons += [f"rank {adapter.rank}, above {_VLLM_RANKS[-1]}"] if adapter.rank > _VLLM_RANKS[-1] else []
    if reasons:
        raise ConfigError(
            f"vLLM cannot apply the adapter in {adapter.folder} ({', '.join(reasons)}). Use --backend transformers, or "
            "merge it into the model with PEFT (merge_and_unload, save_pretrained) and give the merged folder as --model."
        )
    return next(rank for rank in _VLLM_RANKS if rank >= adapter.rank)


def apply_adapter(model: Any, adapter: Adapter) -> Any:
    """The model with the adapter on it, of the same class as before.

    In float32 the adapter is merged into the weights, which costs nothing per token. In half precision it stays beside
    them, as in training: merging would round away an update that is small against the weight it is added to.
    """
    import torch
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(model, str(adapter.folder))
    if next(model.parameters()).dtype == torch.float32:
        return adapted.merge_and_unload().eval()
    return adapted.get_base_model().eval()
