"""Loads an organism: the shipped weights, or a folder made by `csd organism pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calibrated_sd.errors import ConfigError
from calibrated_sd.organism.species import SPECIES


def organism_path(model: str = "organism") -> Path:
    """The folder of the organism's files.

    Args:
        model: a name of `species.SPECIES` for its shipped checkpoint, else a folder.

    Raises:
        ConfigError: the folder has no model or no tokenizer.
    """
    folder = SPECIES[model].weights if model in SPECIES else Path(model)
    for name, what in (("config.json", "model"), ("model.safetensors", "weights"), ("tokenizer.json", "tokenizer")):
        if not (folder / name).is_file():
            raise ConfigError(
                f"{folder} has no {what} ({name} is missing). Give the folder that `csd organism pretrain` wrote, or "
                "leave out the option to use the shipped organism."
            )
    return folder


def load_organism(model: str = "organism") -> tuple[Any, Any]:
    """Model (float32, evaluation mode) and tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(organism_path(model))
    weights = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", local_files_only=True)
    return weights.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)
