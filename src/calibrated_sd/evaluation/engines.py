"""Engines: one way to load what makes completions, whatever makes them.

``load_engine(EngineSettings(...))`` checks and loads; the result has ``model``, ``tokenizer``, ``config`` and
``iterate``, which :func:`~calibrated_sd.evaluation.completions.record_completions` takes as its ``backend``. A
transformers model is loaded in this process. vLLM, and several copies of either, run in worker processes
(:mod:`calibrated_sd.evaluation.engine_workers`), so that an interrupt or a kill leaves no engine behind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from calibrated_sd.errors import ConfigError, unknown_name
from calibrated_sd.evaluation.decoding import CACHES
from calibrated_sd.evaluation.lora import Adapter, apply_adapter, read_adapter, vllm_rank

BACKENDS = ("transformers", "vllm")
DTYPES = ("auto", "float32", "bfloat16", "float16")
BATCH_TOKENS = 2**18
"""Default limit of the tokens of a batch. With 147 kB of keys and values per token (36 layers, 8 heads of 128, two
bytes) that is 38 GB; prompts and completions of at most 1,024 tokens together fill batches of 256 rows."""


@dataclass(frozen=True)
class EngineSettings:
    """What to load, and how.

    Attributes:
        model: folder or Hub id.
        backend: one of ``BACKENDS``.
        adapter: folder of a LoRA adapter for the model.
        dtype: one of ``DTYPES``; ``"auto"`` is bfloat16 on a GPU and float32 on a CPU.
        cache: of the transformers backend, one of :data:`~calibrated_sd.evaluation.decoding.CACHES`.
        batch_tokens: of the transformers backend, see :func:`~calibrated_sd.evaluation.generate.plan_batches`.
        data_parallel: copies of the model, each with its share of the problems.
        tensor_parallel: GPUs per copy (vLLM only).
        gpu_memory_utilization: share of each GPU's memory that vLLM takes; vLLM's own default if None.
        max_model_len: tokens of prompt and completion that vLLM makes room for; the model's window if None.
        enforce_eager: let vLLM start faster and run slower, without compiling and without CUDA graphs.
        seed: of the engine (samples have their own).
    """

    model: str
    backend: Literal["transformers", "vllm"] | str = "transformers"
    adapter: str | None = None
    dtype: str = "auto"
    cache: str = "dynamic"
    batch_tokens: int | None = BATCH_TOKENS
    data_parallel: int = 1
    tensor_parallel: int = 1
    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None
    enforce_eager: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for kind, given, choices in (
            ("backend", self.backend, BACKENDS),
            ("dtype", self.dtype, DTYPES),
            ("cache", self.cache, CACHES),
        ):
            if given not in choices:
                raise unknown_name(kind, given, choices)
        for name in ("batch_tokens", "data_parallel", "tensor_parallel", "max_model_len"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}.")
        share = self.gpu_memory_utilization
        if share is not None and not 0 < share <= 1:
            raise ConfigError(f"gpu_memory_utilization must lie in (0, 1], got {share}.")
        if self.backend == "transformers" and self.tensor_parallel > 1:
            raise ConfigError(
                f"tensor_parallel={self.tensor_parallel} needs --backend vllm: the transformers backend keeps each copy "
                "of the model on one GPU. Use vLLM, or --data-parallel for several copies."
            )

    def resolved(self) -> EngineSettings:
        """The same with ``"auto"`` decided."""
        if self.dtype != "auto":
            return self
        import torch

        # Half precision is slower than float32 on CPUs without matrix instructions for it.
        return dataclasses.replace(self, dtype="bfloat16" if torch.cuda.is_available() else "float32")


@dataclass
class Engine:
    """A loaded engine, to be used in a ``with`` block.

    Attributes:
        model: the transformers model, the ``vllm.LLM``, or None where workers hold them.
        tokenizer: the model's tokenizer.
        config: the model's configuration.
        iterate: samples; signature of :func:`~calibrated_sd.evaluation.generate.iter_completions`.
        settings: as they took effect (no ``"auto"``).
        close: ends what was started.
    """

    model: Any
    tokenizer: Any
    config: Any
    iterate: Callable[..., Any]
    settings: EngineSettings
    close: Callable[[], None] = field(default=lambda: None)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load_engine(settings: EngineSettings) -> Engine:
    """Load weights, here or in workers; returns when they are ready to sample.

    Raises:
        ConfigError: vLLM is missing, the model or adapter cannot be loaded, or there are too few GPUs.
    """
    settings = settings.resolved()
    adapter = None if settings.adapter is None else read_adapter(settings.adapter)
    if settings.backend == "vllm":
        from calibrated_sd.evaluation.vllm_backend import check_vllm_installed

        check_vllm_installed()
        if adapter is not None:
            vllm_rank(adapter)
    if settings.backend == "transformers" and settings.data_parallel == 1:
        return load_here(settings)
    from transformers import AutoConfig, AutoTokenizer

    from calibrated_sd.evaluation.engine_workers import Workers

    model = settings.model
    tokenizer = _load("tokenizer", model, lambda: AutoTokenizer.from_pretrained(model))
    config = _load("configuration", model, lambda: AutoConfig.from_pretrained(model))
    workers = Workers(settings)
    return Engine(None, tokenizer, config, workers.iterate, settings, workers.close)


def load_here(settings: EngineSettings) -> Engine:
    """As :func:`load_engine`, one copy, in this process."""
    settings = settings.resolved()
    adapter = None if settings.adapter is None else read_adapter(settings.adapter)
    return (_vllm if settings.backend == "vllm" else _transformers)(settings, adapter)


def _transformers(settings: EngineSettings, adapter: Adapter | None) -> Engine:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    from calibrated_sd.evaluation.generate import iter_completions

    disable_progress_bar()  # one bar is enough
    name = settings.model
    tokenizer = _load("tokenizer", name, lambda: AutoTokenizer.from_pretrained(name))
    dtype = getattr(torch, settings.dtype)
    # safetensors only: the older .bin files are pickles
    load = partial(AutoModelForCausalLM.from_pretrained, dtype=dtype, use_safetensors=True)
    model = _load("model", name, lambda: load(name))
    if adapter is not None:
        model = _load("adapter", str(adapter.folder), lambda: apply_adapter(model, adapter))
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    iterate = partial(iter_completions, cache=settings.cache, batch_tokens=settings.batch_tokens)
    return Engine(model, tokenizer, model.config, iterate, settings)


def _vllm(settings: EngineSettings, adapter: Adapter | None) -> Engine:
    from calibrated_sd.evaluation.vllm_backend import check_vllm_installed, iter_completions_vllm, llm_arguments

    check_vllm_installed()
    import vllm
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    from calibrated_sd.evaluation.sampling import stop_token_ids

    name = settings.model
    tokenizer = _load("tokenizer", name, lambda: AutoTokenizer.from_pretrained(name))
    config = _load("configuration", name, lambda: AutoConfig.from_pretrained(name))
    try:
        generation = GenerationConfig.from_pretrained(name)
    except OSError:  # the file is optional; without it, transformers takes the ids from the configuration
        generation = GenerationConfig.from_model_config(config)
    shared = ("dtype", "seed", "tensor_parallel", "gpu_memory_utilization", "max_model_len", "enforce_eager")
    arguments = llm_arguments(name, adapter=adapter, **{key: getattr(settings, key) for key in shared})
    llm = _load("model", name, lambda: vllm.LLM(**arguments))
    iterate = partial(iter_completions_vllm, stop_ids=stop_token_ids(generation, tokenizer), adapter=adapter)
    return Engine(llm, tokenizer, config, iterate, settings)


def _load(what: str, name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        hint = "Is the folder complete?" if Path(name).is_dir() else "No such folder exists here; is the Hub id right?"
        if isinstance(error, RuntimeError):  # memory, shapes, an engine that did not start: the folder is not to blame
            hint = "If memory ran out, take --dtype bfloat16 or, with vLLM, more GPUs (--tensor-parallel)."
        raise ConfigError(
            f"The {what} of {name} cannot be loaded ({' '.join(str(error).split())[:300]}). {hint}"
        ) from error
