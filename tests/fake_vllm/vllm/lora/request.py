"""A request's adapter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str = ""

    def __post_init__(self) -> None:
        if self.lora_int_id < 1 or not self.lora_path:
            raise ValueError(f"id must be > 0 and the path not empty, got {self}")
