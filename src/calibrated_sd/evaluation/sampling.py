"""What sampling is asked for and what it gives back, the same for every engine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from calibrated_sd.errors import ConfigError

Prompt = str | Sequence[Mapping[str, Any]]
Progress = Callable[[int, int], None]


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

    def request_seed(self, problem_id: str, sample: int) -> int:
        """One number below 2**32 in place of the stream, for engines that take a seed per request."""
        return int(np.random.SeedSequence(self.stream(problem_id, sample)).generate_state(1)[0])


def stop_token_ids(generation_config: Any, tokenizer: Any) -> set[int]:
    """All ids that end a completion: the generation config's (none, one or several) and the tokenizer's."""
    configured = getattr(generation_config, "eos_token_id", None)
    stops = set(configured) if isinstance(configured, (list, tuple)) else {configured}
    return {int(i) for i in stops | {tokenizer.eos_token_id} if i is not None}


def make_completion(
    tokenizer: Any, problem_id: str, sample: int, prompt_text: str, ids: Sequence[int], stop_ids: set[int]
) -> Completion:
    """A completion from its generated ids, the stop token included: one way to text for every engine."""
    stopped = bool(ids) and ids[-1] in stop_ids
    # Special tokens stay in the text: some tokenizers register <think> as one.
    text = tokenizer.decode(list(ids[:-1] if stopped else ids), skip_special_tokens=False)
    return Completion(problem_id, sample, prompt_text, tuple(ids), text, "stop" if stopped else "length")
