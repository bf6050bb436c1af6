"""Sampling completions with vLLM, behind the same interface as :mod:`calibrated_sd.evaluation.generate`.

NOT TESTED ON A GPU: the tests run this file against a stand-in with vLLM's interface (``vllm.LLM.generate`` with token
prompts and one ``SamplingParams`` per request, as in vLLM 0.22 to 0.31). Every request carries its own seed, derived
like the streams of the transformers backend, so a resumed run asks for the same samples; vLLM itself does not promise
equal tokens for another batch composition, and its samples differ from those of the transformers backend.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from calibrated_sd.errors import ConfigError
from calibrated_sd.evaluation.generate import (
    Completion,
    Progress,
    Prompt,
    Sampling,
    check_window,
    plan_batches,
    render_prompts,
)


def import_vllm() -> Any:
    """The vllm module.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import vllm
    except ImportError as error:
        raise ConfigError(
            "--backend vllm needs vLLM, which is not installed. Install it in an environment of its own (it wants other "
            "versions of torch and transformers) with pip install 'calibrated-sd[vllm]', or use --backend transformers, "
            "which works everywhere."
        ) from error
    return vllm


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
    batch_size: int = 4096,
    already_done: Collection[tuple[str, int]] = (),
    on_progress: Progress | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> Iterator[list[Completion]]:
    """As :func:`calibrated_sd.evaluation.generate.iter_completions`, with a ``vllm.LLM`` in place of the model.

    ``batch_size`` requests are handed to vLLM at a time (it schedules them itself); results are yielded after each.
    """
    vllm = import_vllm()
    sampling, ids, finished = Sampling(max_new_tokens, temperature, top_p, seed), list(problem_ids), set(already_done)
    texts, token_ids = render_prompts(tokenizer, prompts, ids, chat_template_kwargs)
    check_window(llm.llm_engine.model_config.hf_config, ids, token_ids, max_new_tokens)
    done, total = len(finished & {(pid, s) for pid in ids for s in range(n)}), n * len(ids)
    report = on_progress or (lambda done, total: None)
    report(done, total)
    for batch in plan_batches([len(t) for t in token_ids], n, batch_size):
        jobs = [(i, s) for i, s in batch if (ids[i], s) not in finished]
        if not jobs:
            continue
        requests = [{"prompt_token_ids": token_ids[i]} for i, _ in jobs]
        settings = [
            vllm.SamplingParams(
                n=1,
                temperature=temperature,
                top_p=top_p,
                max_tokens=max_new_tokens,
                seed=int(np.random.SeedSequence(sampling.stream(ids[i], s)).generate_state(1)[0]),
                skip_special_tokens=False,
            )
            for i, s in jobs
        ]
        made = []
        for (i, s), output in zip(jobs, llm.generate(requests, settings, use_tqdm=False), strict=True):
            sample = output.outputs[0]
            reason: Literal["stop", "length"] = "stop" if sample.finish_reason == "stop" else "length"
            made.append(Completion(ids[i], s, texts[i], tuple(sample.token_ids), sample.text, reason))
        yield made
        done += len(made)
        report(done, total)
