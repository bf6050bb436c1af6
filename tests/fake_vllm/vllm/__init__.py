"""A stand-in for vLLM 0.32 with the part of its interface that is used, on top of transformers' own ``generate``.

``tests/real/test_vllm_engine.py`` compares every signature here with the real package. Like the real engine it refuses
what that refuses, finishes requests out of order, starts a child process (named in ``$FAKE_VLLM_CHILDREN``), and returns
token ids that end with the stop token. Put the folder above this one on ``PYTHONPATH``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import torch

from . import sampling_params
from .sampling_params import SamplingParams

__all__ = ["LLM", "SamplingParams", "sampling_params"]
__version__ = "0.32.0"
ENGINE_ARGUMENTS = ("data_parallel_size", "enable_lora", "enable_prefix_caching")
ENGINE_ARGUMENTS += ("max_lora_rank", "max_loras", "max_model_len")


class LLM:
    def __init__(
        self,
        model: str,
        *,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        seed: int = 0,
        gpu_memory_utilization: float = 0.92,
        enforce_eager: bool = False,
        **kwargs: Any,
    ) -> None:
        unknown = set(kwargs) - set(ENGINE_ARGUMENTS)
        if unknown:
            raise TypeError(f"EngineArgs has no {unknown}")
        if kwargs.get("data_parallel_size", 1) > 1:
            raise ValueError("LLM(data_parallel_size=...) is not supported for single-process usage and may hang.")
        if os.environ.get("FAKE_VLLM_CHILDREN"):
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            with open(os.environ["FAKE_VLLM_CHILDREN"], "a") as file:
                file.write(f"{child.pid}\n")
        self.llm_engine = LLMEngine(model, dtype, kwargs)
        self.arguments = {"tensor_parallel_size": tensor_parallel_size, "seed": seed, **kwargs}
        self.arguments |= {"gpu_memory_utilization": gpu_memory_utilization, "enforce_eager": enforce_eager}


class LLMEngine:
    def __init__(self, model: str, dtype: str, arguments: dict[str, Any]) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        config = self.model.config
        window = arguments.get("max_model_len") or config.max_position_embeddings
        if window > config.max_position_embeddings:
            raise ValueError("User-specified max_model_len is greater than the derived max_model_len.")
        self.model_config = SimpleNamespace(hf_config=config, max_model_len=window)
        self.arguments, self.waiting, self.adapted = arguments, [], None

    def add_request(
        self,
        request_id: str,
        prompt: dict[str, Any],
        params: SamplingParams,
        arrival_time: float | None = None,
        lora_request: Any = None,
    ) -> str:
        if not isinstance(request_id, str):
            raise TypeError(f"request_id must be a string, got {type(request_id)}")
        if len(prompt["prompt_token_ids"]) >= self.model_config.max_model_len:
            raise ValueError("The decoder prompt is longer than the maximum model length")
        if lora_request is not None:
            if not self.arguments.get("enable_lora"):
                raise ValueError("Got lora_request but LoRA is not enabled!")
            self._adapt(lora_request)
        self.waiting.append((request_id, prompt["prompt_token_ids"], params, lora_request))
        return f"{request_id}-0a1b2c3d"

    def has_unfinished_requests(self) -> bool:
        return bool(self.waiting)

    def step(self) -> list[Any]:
        """Two requests a step, the last ones first."""
        time.sleep(float(os.environ.get("FAKE_VLLM_STEP_S", "0")))
        return [self._answer(*self.waiting.pop()) for _ in range(min(2, len(self.waiting)))]

    def _adapt(self, request: Any) -> None:
        if self.adapted is None:
            from peft import PeftModel

            self.adapted = PeftModel.from_pretrained(self.model, request.lora_path)
            rank = self.adapted.peft_config["default"].r
            if rank > self.arguments.get("max_lora_rank", 16):
                raise ValueError(f"LoRA rank {rank} is greater than max_lora_rank")

    def _answer(self, request_id: str, prompt: list[int], params: SamplingParams, lora_request: Any) -> Any:
        torch.manual_seed(params.seed)
        configured = self.model.generation_config.eos_token_id
        ends = {*(configured if isinstance(configured, list) else [configured]), *(params.stop_token_ids or [])}
        drawn = {"do_sample": True, "temperature": params.temperature, "top_p": params.top_p, "top_k": 0}
        ids = torch.tensor([prompt])
        out = (self.model if lora_request is None else self.adapted).generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=min(params.max_tokens, self.model_config.max_model_len - len(prompt)),
            eos_token_id=sorted(ends - {None}),
            **(drawn if params.temperature > 0 else {"do_sample": False}),
        )
        tokens = out[0, len(prompt) :].tolist()
        said = SimpleNamespace(
            index=0, text="", token_ids=tokens, finish_reason="stop" if tokens[-1] in ends else "length"
        )
        return SimpleNamespace(request_id=request_id, finished=True, outputs=[said])
