"""Models and tokenizers for commands: where they are, and one-paragraph errors where they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calibrated_sd.errors import ConfigError
from calibrated_sd.organism.species import SPECIES

ORGANISM = "organism"


def model_path(model: str) -> str:
    """Folder of a shipped organism for its name, else the name itself; nothing is checked."""
    if model not in SPECIES:
        return model
    from calibrated_sd.organism.checkpoint import organism_path

    return str(organism_path(model))


def model_folder(model: str) -> str:
    """Where the weights are: a checked local folder, or a Hub id as it stands.

    Raises:
        ConfigError: there is no such folder, or it lacks a model or a tokenizer.
        DataError: its weights cannot be read, or are cut off.
    """
    if model in SPECIES:
        return model_path(model)
    folder = Path(model)
    if not folder.is_dir():
        if model.count("/") == 1 and not model.startswith((".", "/", "~")):
            return model  # looks like OWNER/NAME
        raise ConfigError(f"There is no model folder {model}. Give a folder, a Hub id like OWNER/NAME, or 'organism'.")
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise ConfigError(
                f"{folder} is a LoRA adapter, not a whole model. Give the model it was trained on as --model, and "
                f"--adapter {folder} (csd evaluate, csd ladder)."
            )
        raise ConfigError(f"{folder} has no config.json, so it is no model folder. Give the folder of save_pretrained.")
    names = {entry.name for entry in folder.iterdir()}
    if not names & {"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt"}:
        raise ConfigError(
            f"{folder} holds a model but no tokenizer (no tokenizer.json). Save the tokenizer there with "
            f"tokenizer.save_pretrained({str(folder)!r}), or give a folder that has both."
        )
    from calibrated_sd.trainers.whole import check_weights

    check_weights(model)
    return str(folder)


def load_causal_model(folder: str, dtype: str = "auto") -> tuple[Any, Any]:
    """Model in evaluation mode, on the GPU if there is one, and tokenizer.

    Args:
        folder: from :func:`model_folder`.
        dtype: one of :data:`~calibrated_sd.evaluation.engines.DTYPES`.

    Raises:
        ConfigError: unknown `dtype`, or files that cannot be loaded.
    """
    from calibrated_sd.evaluation.engines import EngineSettings, load_here

    engine = load_here(EngineSettings(folder, dtype=dtype))
    return engine.model.eval(), engine.tokenizer
