"""Sampling completions with vLLM, behind the same interface as :mod:`calibrated_sd.evaluation.generate`.

Run with vLLM's engine on a CPU (0.32.0); NOT TESTED ON A GPU. The calls are ``vllm.LLM(...)`` and, of its engine,
``add_request`` with token prompts, ``step`` and ``has_unfinished_requests``: what ``LLM.generate`` does itself, except
that a completion is handed on when it ends and not when the last one of all has. Every request carries its own seed,
derived like the streams of the transformers backend, so a resumed run asks for the same samples; vLLM itself does not
promise equal tokens for another batch composition, and its samples differ from those of the transformers backend
(greedy ones agree up to rounding). Text is decoded from the token ids by the same code as there.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from calibrated_sd.errors import ConfigError
from calibrated_sd.evaluation.generate import check_window, render_prompts
from calibrated_sd.evaluation.lora import Adapter, vllm_rank
from calibrated_sd.evaluation.sampling import Completion, Progress, Prompt, Sampling, make_completion


def check_vllm_installed() -> None:
    """Raise ConfigError if vLLM is not installed; does not import it, which takes seconds."""
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "--backend vllm needs vLLM, which is not installed. Install it in an environment of its own (it wants other "
            "versions of torch and transformers) with pip install 'calibrated-sd[vllm]', or use --backend transformers, "
            "which works everywhere."
        )


def llm_arguments(
    model: str,
    *,
    dtype: str,
    seed: int = 0,
    tensor_parallel: int = 1,
    gpu_memory_utilization: float | None = None,
    max_model_len: int | None = None,
    enforce_eager: bool = False,
    adapter: Adapter | None = None,
) -> dict[str, Any]:
    """Keyword arguments of ``vllm.LLM``; what is None is left to vLLM. Prefixes are cached: n samples share a prompt."""
    arguments: dict[str, Any] = {
        "model": model,
        "dtype": dtype,
        "seed": seed,
        "tensor_parallel_size": tensor_parallel,
        "enable_prefix_caching": True,
        "enforce_eager": enforce_eager,
        "gpu_memory_utilization": gpu_memory_utilization,
        "max_model_len": max_model_len,
    }
    if adapter is not None:
        arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": vllm_rank(adapter)}
    return {key: value for key, value in arguments.items() if value is not None}


def iter_completions_vllm(
    llm: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    n: int = 1,
    problem_ids: Sequence[str],
    max_new_tokens: int = 512,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int | None = None,
    already_done: Collection[tuple[str, int]] = (),
    on_progress: Progress | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    stop_ids: Collection[int] = (),
    adapter: Adapter | None = None,
) -> Iterator[list[Completion]]:
    """As :func:`calibrated_sd.evaluation.generate.iter_completions`, with a ``vllm.LLM`` in place of the model.

    Args:
        batch_size: has no effect; vLLM gets all requests and schedules them itself.
        stop_ids: ids that end a completion, beside those vLLM reads from the model's folder.
        adapter: the LoRA adapter to sample with; the ``LLM`` must have been made for it (:func:`llm_arguments`).
    """
    import vllm
    from vllm.lora.request import LoRARequest

    sampling, ids, finished = Sampling(max_new_tokens, temperature, top_p, seed), list(problem_ids), set(already_done)
    texts, token_ids = render_prompts(tokenizer, prompts, ids, chat_template_kwargs)
    config = llm.llm_engine.model_config
    check_window(config.hf_config, ids, token_ids, max_new_tokens, window=config.max_model_len)
    ends = set(stop_ids) | ({tokenizer.eos_token_id} - {None})
    lora = None if adapter is None else LoRARequest("adapter", 1, str(adapter.folder.resolve()))

    jobs = [(i, s) for i in range(len(ids)) for s in range(n) if (ids[i], s) not in finished]
    done, total = len(ids) * n - len(jobs), len(ids) * n
    report = on_progress or (lambda done, total: None)
    report(done, total)
    for number, (i, s) in enumerate(jobs):
        settings = vllm.SamplingParams(
            n=1,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_new_tokens,
            seed=sampling.request_seed(ids[i], s),
            stop_token_ids=sorted(ends),
            skip_special_tokens=False,
            detokenize=False,
            output_kind=vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
        )
        llm.llm_engine.add_request(str(number), {"prompt_token_ids": token_ids[i]}, settings, lora_request=lora)
    while llm.llm_engine.has_unfinished_requests():
        made = []
        for output in llm.llm_engine.step():
            if output.finished:
                i, s = jobs[int(output.request_id)]
                sample = output.outputs[0]
                made.append(make_completion(tokenizer, ids[i], s, texts[i], list(sample.token_ids), ends))
        if made:
            yield made
            done += len(made)
            report(done, total)
