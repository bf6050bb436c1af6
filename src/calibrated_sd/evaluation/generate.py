"""Sampling completions with a transformers model, reproducibly and fast enough for a CPU.

Every (problem, sample) has its own stream of uniform numbers, derived from ``seed``, the problem's id and the sample's
index; the token at each position is drawn by inverting the cumulative distribution at the next number. So a sample
does not depend on which other rows share its batch, except through floating-point rounding of the logits. Batches are
cut from the *whole* job list, sorted by prompt length, before finished samples are taken out of it; a batch that was
interrupted is computed again as a whole. A resumed run therefore repeats the exact computation of a straight run and
gives the same tokens, provided that problems, ``n``, ``batch_size`` and settings are the same.

The loop is our own because ``model.generate`` keeps computing rows that have ended until the longest one has. Dropping
them, the cache included, gives the same tokens and about four times as many per second (six with a dynamic cache there;
0.9M parameters, 256 rows, at most 256 and on average 75 tokens, one CPU core).
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from calibrated_sd.errors import ConfigError, ContextError

Prompt = str | Sequence[Mapping[str, Any]]
Progress = Callable[[int, int], None]
_COMPACT_BELOW = 0.9  # drop finished rows once fewer than this share of the batch is still writing (measured)


@dataclass(frozen=True)
class Completion:
    """One sample: generated ids (end-of-sequence token included), their text without it, and how it ended."""

    problem_id: str
    sample: int
    prompt_text: str
    token_ids: tuple[int, ...]
    text: str
    finish_reason: Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """Sampling settings, checked.

    Attributes:
        max_new_tokens: token limit of a completion.
        temperature: 0 = always the most likely token.
        top_p: sample from the smallest set of tokens that holds this probability; 1 = from all.
        seed: seed of all streams.
    """

    max_new_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}.")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature must be 0 (greedy) or positive, got {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must lie in (0, 1], got {self.top_p}. Use 1 to sample from all tokens.")

    def uniforms(self, problem_id: str, sample: int) -> np.ndarray:
        """The numbers in [0, 1) that decide one sample, (max_new_tokens,) float64."""
        return np.random.default_rng(self.stream(problem_id, sample)).random(self.max_new_tokens)

    def stream(self, problem_id: str, sample: int) -> list[int]:
        """Entropy that names the stream of one sample: 4 integers below 2**64."""
        digest = hashlib.sha256(problem_id.encode("utf-8", errors="surrogatepass")).digest()
        return [self.seed % 2**64, int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big"), sample]


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
        batch_size: rows computed together.
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
    ids = list(problem_ids) if problem_ids is not None else _default_ids(prompts)
    texts, token_ids = render_prompts(tokenizer, prompts, ids, chat_template_kwargs)
    check_window(model.config, ids, token_ids, max_new_tokens)
    stop_ids = _stop_ids(model, tokenizer)

    already_done = set(already_done)
    done, total = len(already_done & {(pid, s) for pid in ids for s in range(n)}), n * len(ids)
    report = on_progress or (lambda done, total: None)
    report(done, total)
    was_training = model.training
    model.eval()
    try:
        for batch in plan_batches([len(t) for t in token_ids], n, batch_size):
            missing = [(ids[i], s) not in already_done for i, s in batch]
            if not any(missing):
                continue
            uniforms = np.stack([sampling.uniforms(ids[i], s) for i, s in batch])
            rows = _sample_batch(model, [token_ids[i] for i, _ in batch], uniforms, stop_ids, sampling)
            made = [
                _completion(tokenizer, ids[i], s, texts[i], row, stop_ids)
                for (i, s), row, wanted in zip(batch, rows, missing, strict=True)
                if wanted
            ]
            yield made
            done += len(made)
            report(done, total)
    finally:
        model.train(was_training)


def plan_batches(lengths: Sequence[int], n: int, batch_size: int) -> list[list[tuple[int, int]]]:
    """(prompt index, sample) jobs in batches of similar prompt length; depends on nothing but its arguments."""
    jobs = sorted(((i, s) for i in range(len(lengths)) for s in range(n)), key=lambda job: (lengths[job[0]], *job))
    return [jobs[start : start + batch_size] for start in range(0, len(jobs), batch_size)]


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
    config: Any, tokenizer: Any, problems: Sequence[Mapping[str, Any]], max_new_tokens: int, **options: Any
) -> None:
    """Raise what sampling these problems would raise, before anything is written. ``config`` is the model's."""
    ids = [f"{p['suite']}/{p['problem_id']}" for p in problems]
    _, token_ids = render_prompts(tokenizer, [p["prompt"] for p in problems], ids, **options)
    check_window(config, ids, token_ids, max_new_tokens)


def check_window(config: Any, ids: Sequence[str], token_ids: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Raise ContextError for the first prompt that is empty or too long, ConfigError for ids the model lacks."""
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    window = getattr(config, "max_position_embeddings", None)
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


def _stop_ids(model: Any, tokenizer: Any) -> set[int]:
    """All ids that end a completion: the generation config's (one or several) and the tokenizer's."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    stops = set(configured) if isinstance(configured, (list, tuple)) else {configured}
    return {int(i) for i in stops | {tokenizer.eos_token_id} if i is not None}


def _completion(
    tokenizer: Any, problem_id: str, sample: int, prompt_text: str, row: list[int], stop_ids: set[int]
) -> Completion:
    stopped = bool(row) and row[-1] in stop_ids
    # Special tokens stay in the text: some tokenizers register <think> as one.
    text = tokenizer.decode(row[:-1] if stopped else row, skip_special_tokens=False)
    return Completion(problem_id, sample, prompt_text, tuple(row), text, "stop" if stopped else "length")


def _sample_batch(
    model: Any, prompts: Sequence[Sequence[int]], uniforms: np.ndarray, stop_ids: set[int], sampling: Sampling
) -> list[list[int]]:
    """Generated ids of each row, ending with a stop id or after ``max_new_tokens``."""
    device, width = model.device, max(map(len, prompts))
    tokens = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)  # left padding, masked
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    draws = torch.from_numpy(uniforms).to(device)
    stops = torch.tensor(sorted(stop_ids), device=device, dtype=torch.long)
    accepted = inspect.signature(model.forward).parameters
    optional: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    written = torch.zeros(len(prompts), sampling.max_new_tokens, dtype=torch.long, device=device)
    lengths = torch.full((len(prompts),), sampling.max_new_tokens, dtype=torch.long, device=device)
    alive = torch.arange(len(prompts), device=device)  # row of `written` that each row of the batch belongs to
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    cache = None
    with torch.inference_mode():
        for step in range(sampling.max_new_tokens):
            if "position_ids" in accepted:
                optional["position_ids"] = positions
            out = model(input_ids=tokens, attention_mask=mask, past_key_values=cache, use_cache=True, **optional)
            cache = out.past_key_values
            chosen = _choose(out.logits[:, -1], draws[alive, step], sampling)
            written[alive, step] = chosen
            just_ended = torch.isin(chosen, stops) & ~ended
            lengths[alive[just_ended]] = step + 1
            ended = ended | just_ended
            if bool(ended.all()):
                break
            tokens, positions = chosen[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            if float((~ended).float().mean()) < _COMPACT_BELOW and hasattr(cache, "batch_select_indices"):
                keep = (~ended).nonzero()[:, 0]
                cache.batch_select_indices(keep)
                tokens, positions, mask, alive, ended = (x[keep] for x in (tokens, positions, mask, alive, ended))
    return [row[:length] for row, length in zip(written.tolist(), lengths.tolist(), strict=True)]


def _choose(logits: torch.Tensor, uniforms: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """One token per row: argmax at temperature 0, else the inverse of the cumulative distribution at ``uniforms``.

    Args:
        logits: (rows, V), any float type.
        uniforms: (rows,) float64 in [0, 1).
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probs = torch.softmax(logits.float() / sampling.temperature, dim=-1).double()
    if sampling.top_p < 1:
        ranked, index = probs.sort(dim=-1, descending=True)
        outside = ranked.cumsum(-1) - ranked >= sampling.top_p  # the most likely token always stays inside
        probs = probs.scatter(-1, index, ranked.masked_fill(outside, 0.0))
    cumulative = probs.cumsum(-1)
    target = uniforms[:, None] * cumulative[:, -1:]
    # First index whose cumulative probability exceeds the target, hence never one of probability 0.
    return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
