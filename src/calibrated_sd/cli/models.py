"""Models and tokenizers for commands: where they are, and one-paragraph errors where they are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from calibrated_sd.errors import ConfigError, unknown_name

ORGANISM = "organism"
DTYPES = ("auto", "float32", "bfloat16", "float16")
"""``auto``: bfloat16 on a GPU, float32 on a CPU, where half precision is often slower."""


def model_folder(model: str) -> str:
    """Where the weights are: a checked local folder, or a Hub id as it stands.

    Raises:
        ConfigError: there is no such folder, or it lacks a model or a tokenizer.
    """
    if model == ORGANISM:
        from calibrated_sd.organism.checkpoint import organism_path

        return str(organism_path())
    folder = Path(model)
    if not folder.is_dir():
        if model.count("/") == 1 and not model.startswith((".", "/", "~")):
            return model  # looks like OWNER/NAME
        raise ConfigError(f"There is no model folder {model}. Give a folder, a Hub id like OWNER/NAME, or 'organism'.")
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} has no config.json, so it is no model folder. Give the folder of save_pretrained.")
    names = {entry.name for entry in folder.iterdir()}
    if not names & {"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt"}:
        raise ConfigError(
            f"{folder} holds a model but no tokenizer (no tokenizer.json). Save the tokenizer there with "
            f"tokenizer.save_pretrained({str(folder)!r}), or give a folder that has both."
        )
    return str(folder)


def load_causal_model(folder: str, dtype: str = "auto") -> tuple[Any, Any]:
    """Model in evaluation mode, on the GPU if there is one, and tokenizer.

    Args:
        folder: from :func:`model_folder`.
        dtype: one of `DTYPES`.

    Raises:
        ConfigError: unknown `dtype`, or files that cannot be loaded.
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # one bar is enough
    gpu = torch.cuda.is_available()
    kind = getattr(torch, ("bfloat16" if gpu else "float32") if dtype == "auto" else dtype)
    tokenizer = _load("tokenizer", folder, lambda: AutoTokenizer.from_pretrained(folder))
    model = _load("model", folder, lambda: AutoModelForCausalLM.from_pretrained(folder, dtype=kind))
    return model.to("cuda" if gpu else "cpu").eval(), tokenizer


def _load(what: str, folder: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"The {what} of {folder} cannot be loaded ({' '.join(str(error).split())[:300]}). "
            + (
                "Is the folder complete?"
                if Path(folder).is_dir()
                else "No such folder exists here; is the Hub id right?"
            )
        ) from error
