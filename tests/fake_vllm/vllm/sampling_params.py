"""The fields of vLLM's SamplingParams that are used, with its checks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class RequestOutputKind(Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass(kw_only=True)
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    max_tokens: int | None = 16
    detokenize: bool = True
    skip_special_tokens: bool = True
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE

    def __post_init__(self) -> None:
        if self.n != 1 or self.output_kind is not RequestOutputKind.FINAL_ONLY:
            raise ValueError("this stand-in answers each request once, when it is finished")
        if self.temperature < 0 or not 0 < self.top_p <= 1 or (self.max_tokens or 0) < 1:
            raise ValueError("temperature, top_p or max_tokens out of range")
