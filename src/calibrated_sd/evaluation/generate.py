"""Sampling completions with a transformers model, reproducibly and fast enough for a CPU.

Every (problem, sample) has its own stream of uniform numbers, derived from ``seed``, the problem's id and the sample's
index; the token at each position is drawn by inverting the cumulative distribution at the next number. So a sample
does not depend on which other rows share its batch, except through floating-point rounding of the logits. Batches are
cut from the *whole* job list, sorted by prompt length, before finished samples are taken out of it; a batch that was
interrupted is computed again as a whole. A resumed run therefore repeats the exact computation of a straight run and
gives the same tokens, provided that problems, ``n``, ``batch_size`` and settings are the same.

The loop over the tokens of a batch is in :mod:`calibrated_sd.evaluation.decoding`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from calibrated_sd.errors import ConfigError, ContextError, unknown_name
from calibrated_sd.evaluation.decoding import CACHES, decode_batch
from calibrated_sd.evaluation.sampling import Completion, Progress, Prompt, Sampling, make_completion, stop_token_ids


def generate_completions(model: Any, tokenizer: Any, prompts: Sequence[Prompt], **options: Any) -> list[Completion]:
    """All completions, in the order (problem, sample). Arguments as in :func:`iter_completions`."""
    order = {pid: i for i, pid in enumerate(options.get("problem_ids") or _default_ids(prompts))}
    samples = [c for batch in iter_completions(model, tokenizer, prompts, **options) for c in batch]
    return sorted(samples, key=lambda c: (order[c.problem_id], c.sample))


def iter_completions(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    n: int = 1,
    problem_ids: Sequence[str] | None = None,
    max_new_tokens: int = 512,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 256,
    batch_tokens: int | None = None,
    cache: str = "dynamic",
    already_done: Collection[tuple[str, int]] = (),
    on_progress: Progress | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> Iterator[list[Completion]]:
    """Sample ``n`` completions of each prompt; yields one list per finished batch, so that callers can store it.

    Args:
        model: a causal language model of transformers; it is put in evaluation mode while sampling.
        tokenizer: its tokenizer, with a chat template if prompts are messages.
        prompts: plain text, used as it is, or lists of chat messages, to which the chat template is applied.
        n: samples per prompt.
        problem_ids: a distinct name for each prompt, which also names its random streams; ``"0"``, ``"1"``, … if None.
        max_new_tokens, temperature, top_p, seed: see :class:`Sampling`.
        batch_size: rows computed together, at most.
        batch_tokens: limit of rows × (longest prompt + ``max_new_tokens``) of a batch, which is what its key-value
            cache can grow to; a row that is longer by itself gets a batch of its own. None = no limit.
        cache: ``"dynamic"`` or ``"static"``, see :mod:`calibrated_sd.evaluation.decoding`.
        already_done: (problem_id, sample) pairs that need not be made again.
        on_progress: called with (done, total) completions before the first and after every batch.
        chat_template_kwargs: further arguments of the chat template, e.g. ``{"enable_thinking": False}``.

    Raises:
        ConfigError: a setting out of range; a tokenizer that does not fit the model or has no chat template.
        ContextError: a prompt that leaves less than ``max_new_tokens`` of the model's window; names the problem.
    """
    sampling = Sampling(max_new_tokens, temperature, top_p, seed)
    if n < 1 or batch_size < 1:
        raise ConfigError(f"n and batch_size must be at least 1, got n={n}, batch_size={batch_size}.")
    if batch_tokens is not None and batch_tokens < 1:
        raise ConfigError(f"batch_tokens must be at least 1, got {batch_tokens}. Leave it out for no limit.")
    if cache not in CACHES:
        raise unknown_name("cache", cache, CACHES)
    ids = list(problem_ids) if problem_ids is not None else _default_ids(prompts)
    texts, token_ids = render_prompts(tokenizer, prompts, ids, chat_template_kwargs)
    check_window(model.config, ids, token_ids, max_new_tokens)
    stop_ids = stop_token_ids(getattr(model, "generation_config", None), tokenizer)

    already_done = set(already_done)
    done, total = len(already_done & {(pid, s) for pid in ids for s in range(n)}), n * len(ids)
    report = on_progress or (lambda done, total: None)
    report(done, total)
    was_training = model.training
    model.eval()
    try:
        for batch in plan_batches([len(t) for t in token_ids], n, batch_size, batch_tokens, max_new_tokens):
            missing = [(ids[i], s) not in already_done for i, s in batch]
            if not any(missing):
                continue
            uniforms = np.stack([sampling.uniforms(ids[i], s) for i, s in batch])
            rows = decode_batch(model, [token_ids[i] for i, _ in batch], uniforms, stop_ids, sampling, cache)
            made = [
                make_completion(tokenizer, ids[i], s, texts[i], row, stop_ids)
                for (i, s), row, wanted in zip(batch, rows, missing, strict=True)
                if wanted
            ]
            yield made
            done += len(made)
            report(done, total)
    finally:
        model.train(was_training)


def plan_batches(
    lengths: Sequence[int], n: int, batch_size: int, batch_tokens: int | None = None, max_new_tokens: int = 0
) -> list[list[tuple[int, int]]]:
    """(prompt index, sample) jobs in batches of similar prompt length; depends on nothing but its arguments.

    Args:
        lengths: tokens of each prompt.
        n: samples per prompt.
        batch_size: rows of a batch, at most.
        batch_tokens: rows × (longest prompt + ``max_new_tokens``) of a batch of two or more, at most.
        max_new_tokens: token limit of a completion.
    """
    batches: list[list[tuple[int, int]]] = [[]]
    for job in sorted(((i, s) for i in range(len(lengths)) for s in range(n)), key=lambda job: (lengths[job[0]], *job)):
        rows = len(batches[-1]) + 1
        over = batch_tokens is not None and rows * (lengths[job[0]] + max_new_tokens) > batch_tokens
        if rows > batch_size or (over and rows > 1):
            batches.append([])
        batches[-1].append(job)
    return [batch for batch in batches if batch]


def render_prompts(
    tokenizer: Any, prompts: Sequence[Prompt], ids: Sequence[str], chat_template_kwargs: Mapping[str, Any] | None = None
) -> tuple[list[str], list[list[int]]]:
    """The exact text given to the model and its token ids, for each prompt."""
    if len(ids) != len(prompts) or len(set(ids)) != len(ids):
        raise ConfigError(
            f"Each prompt needs its own problem id, got {len(set(ids))} distinct ids for {len(prompts)} prompts. Give "
            "every problem a problem_id that occurs once."
        )
    texts, token_ids = [], []
    for prompt in prompts:
        if isinstance(prompt, str):
            texts.append(prompt)
            token_ids.append(list(tokenizer(prompt)["input_ids"]))
            continue
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigError(
                "The prompts are chat messages, but the tokenizer has no chat template. Give prompts as plain text, or "
                "set tokenizer.chat_template and save the tokenizer beside the model."
            )
        text = tokenizer.apply_chat_template(
            [dict(message) for message in prompt],
            tokenize=False,
            add_generation_prompt=True,
            **(chat_template_kwargs or {}),
        )
        texts.append(text)
        token_ids.append(list(tokenizer(text, add_special_tokens=False)["input_ids"]))  # the template wrote them
    return texts, token_ids


def check_prompts(
    config: Any,
    tokenizer: Any,
    problems: Sequence[Mapping[str, Any]],
    max_new_tokens: int,
    *,
    window: int | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> None:
    """Raise what sampling these problems would raise, before anything is written. ``config`` is the model's."""
    ids = [f"{p['suite']}/{p['problem_id']}" for p in problems]
    _, token_ids = render_prompts(tokenizer, [p["prompt"] for p in problems], ids, chat_template_kwargs)
    check_window(config, ids, token_ids, max_new_tokens, window=window)


def check_window(
    config: Any,
    ids: Sequence[str],
    token_ids: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    window: int | None = None,
) -> None:
    """Raise ContextError for the first prompt that is empty or too long, ConfigError for ids the model lacks.

    Args:
        window: tokens the engine takes, prompt and completion together; the model's own window if None.
    """
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    window = window or getattr(config, "max_position_embeddings", None)
    vocabulary = getattr(config, "vocab_size", None)
    for pid, tokens in zip(ids, token_ids, strict=True):
        if not tokens:
            raise ContextError(f"The prompt of problem {pid!r} is empty. Give it a text, or leave the problem out.")
        if window is not None and len(tokens) + max_new_tokens > window:
            raise ContextError(
                f"The prompt of problem {pid!r} has {len(tokens)} tokens; with max_new_tokens={max_new_tokens} that "
                f"exceeds the model's window of {window}. Shorten the prompt to {max(window - max_new_tokens, 0)} "
                "tokens, lower max_new_tokens, or leave the problem out; prompts are never cut silently."
            )
        if vocabulary is not None and max(tokens) >= vocabulary:
            raise ConfigError(
                f"The tokenizer wrote token id {max(tokens)} for problem {pid!r}, but the model knows only ids below "
                f"{vocabulary}. Use the tokenizer that was saved with this model."
            )


def _default_ids(prompts: Sequence[Prompt]) -> list[str]:
    return [str(i) for i in range(len(prompts))]
