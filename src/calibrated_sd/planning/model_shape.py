"""What a model's config.json says about its size: parameters, widths, heads. No weights are loaded, nothing is fetched."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrated_sd.errors import ConfigError

SHIPPED = Path(__file__).resolve().parent / "models"
"""Configurations of the models that recipes name, with the public sources that each was checked against."""

# What a family has beyond the Llama block of four projections, three feed-forward matrices and two norms.
QKV_BIAS = ("qwen2",)
QK_NORM_PER_HEAD = ("qwen3",)
QK_NORM_FULL = ("olmo2", "olmo3")
FAMILIES = ("llama", "mistral", *QKV_BIAS, *QK_NORM_PER_HEAD, *QK_NORM_FULL)
"""Values of `model_type` whose parameters are counted exactly."""
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder-only transformer, in numbers (not bytes).

    Attributes:
        name: as it was asked for.
        source: where the configuration came from.
        model_type: family, one of `FAMILIES`.
        hidden_size: as in config.json, like the next seven.
        intermediate_size: width of the feed-forward part.
        num_hidden_layers: blocks.
        num_attention_heads: heads of the queries.
        num_key_value_heads: heads of keys and values.
        head_dim: width of a head.
        vocab_size: rows of the embedding.
        max_position_embeddings: tokens that fit.
        tied: whether the output head is the embedding.
        attention_bias: bias of q, k and v.
        output_bias: bias of the attention's output projection.
        mlp_bias: biases of the feed-forward matrices.
        qk_norm: numbers in the norms of queries and keys of a layer; 0 without them.
    """

    name: str
    source: str
    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    tied: bool
    attention_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: int

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of the linear layers of a block, by TRL's and PEFT's names."""
        query, key = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        hidden, inner = self.hidden_size, self.intermediate_size
        return {
            "q_proj": (hidden, query),
            "k_proj": (hidden, key),
            "v_proj": (hidden, key),
            "o_proj": (query, hidden),
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }

    @property
    def layer_parameters(self) -> int:
        """Numbers in one block: projections, biases, two norms of the hidden width, norms of queries and keys."""
        total = sum(inputs * outputs for inputs, outputs in self.linear.values())
        for name, (_, outputs) in self.linear.items():
            biased = (
                self.mlp_bias if name in FEED_FORWARD else self.output_bias if name == "o_proj" else self.attention_bias
            )
            total += outputs if biased else 0
        return total + 2 * self.hidden_size + self.qk_norm

    @property
    def head_parameters(self) -> int:
        """Numbers in the output head, V·H, whether or not it is shared with the embedding."""
        return self.vocab_size * self.hidden_size

    @property
    def n_parameters(self) -> int:
        """All numbers of the model; a tied head counts once."""
        tables = self.head_parameters * (1 if self.tied else 2)
        return tables + self.num_hidden_layers * self.layer_parameters + self.hidden_size

    def lora_parameters(self, rank: int, targets: str | None = None) -> int:
        """Numbers in an adapter: rank · (inputs + outputs) for each adapted layer of each block (arXiv:2106.09685).

        Args:
            rank: of the adapter; 0 for none.
            targets: layer names separated by commas; None or "all-linear" for every linear layer but the output head.

        Raises:
            ConfigError: a target that no block has.
        """
        names = [n.strip() for n in targets.split(",")] if targets and targets != "all-linear" else list(self.linear)
        unknown = [name for name in names if name not in self.linear]
        if unknown:
            raise ConfigError(
                f"lora_target_modules names {unknown[0]!r}, but the blocks of {self.name} have {', '.join(self.linear)}. "
                "Correct it, or leave it out for all of them."
            )
        return self.num_hidden_layers * sum(rank * sum(self.linear[name]) for name in names)


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} cannot be read ({error}). Save or download the model again.") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{file} holds {type(config).__name__}, not an object. Save or download the model again.")
    return config


def model_shape(model: str | os.PathLike[str]) -> ModelShape:
    """The sizes of a model, from the first of: its folder, the local Hub cache, the configurations shipped here.

    Args:
        model: folder or Hub id; ``"organism"`` is handled by the caller, who knows its folder.

    Raises:
        ConfigError: no configuration is at hand, or it is of a family whose parameters are not known here.
    """
    name = str(model)
    folder = Path(name)
    if (folder / "config.json").is_file():
        return read_shape(_read_config(folder / "config.json"), name, "its config.json")
    cached = _cached_config(name)
    if cached is not None:
        return read_shape(_read_config(cached), name, "the local Hub cache")
    for file in sorted(SHIPPED.glob("*.json")):
        shipped = json.loads(file.read_text(encoding="utf-8"))
        # A folder that is yet to be made counts by its last name: recipes write models/SmolLM2-135M-Instruct.
        if shipped["model"].lower() == name.lower() or file.stem.lower() == folder.name.lower():
            return read_shape(shipped["config"], name, f"planning/models/{file.name}")
    known = ", ".join(json.loads(f.read_text(encoding="utf-8"))["model"] for f in sorted(SHIPPED.glob("*.json")))
    raise ConfigError(
        f"The size of {name} is not known here: it is no folder with a config.json, it is not in the local Hub cache, and "
        f"it is none of {known}. Give a folder that holds its config.json; weights are not needed for a plan."
    )


def _cached_config(name: str) -> Path | None:
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found) if isinstance(found, str) else None


def read_shape(config: Mapping[str, Any], name: str, source: str) -> ModelShape:
    """The sizes that a configuration states, with the defaults of its family.

    Raises:
        ConfigError: a family that is not known here, or a size that is missing.
    """
    config = config.get("text_config", config)
    family = config.get("model_type", "")
    if family not in FAMILIES:
        raise ConfigError(
            f"{name} is of the family {family!r}, whose parameters are not counted here; known are "
            f"{', '.join(FAMILIES)}. A plan without numbers would be a guess: measure one step instead."
        )
    needed = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    missing = [key for key in needed if not config.get(key)]
    if missing:
        raise ConfigError(f"The config.json of {name} lacks {', '.join(missing)}. Is it that of a language model?")
    heads = config["num_attention_heads"]
    key_heads = config.get("num_key_value_heads") or heads
    # transformers' own defaults: Qwen3 fixes 128, all others divide the width.
    head_dim = config.get("head_dim") or (128 if family == "qwen3" else config["hidden_size"] // heads)
    bias = bool(config.get("attention_bias", False))
    per_layer = 2 * head_dim if family in QK_NORM_PER_HEAD else 0
    if family in QK_NORM_FULL:
        per_layer = (heads + key_heads) * head_dim
    return ModelShape(
        name=name,
        source=source,
        model_type=family,
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        num_hidden_layers=config["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        head_dim=head_dim,
        vocab_size=config["vocab_size"],
        max_position_embeddings=config.get("max_position_embeddings", 0),
        tied=bool(config.get("tie_word_embeddings", False)),
        attention_bias=family in QKV_BIAS or bias,
        output_bias=family not in QKV_BIAS and bias,
        mlp_bias=bool(config.get("mlp_bias", False)),
        qk_norm=per_layer,
    )
