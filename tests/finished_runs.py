"""What a run leaves behind, so that two runs can be compared number by number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class Run:
    """A finished run. Numbers are those that the trainer logged, weights those it ended with."""

    trainer: Any
    losses: list[float]
    grad_norms: list[float]
    weights: dict[str, torch.Tensor]

    def differs_from(self, other: Run) -> list[str]:
        """Names of what is not equal bit for bit."""
        found = [name for name in ("losses", "grad_norms") if getattr(self, name) != getattr(other, name)]
        if self.weights.keys() != other.weights.keys():
            return [*found, "names of weights"]
        return found + [name for name, value in self.weights.items() if not torch.equal(value, other.weights[name])]


def finish(trainer: Any, **kwargs: Any) -> Run:
    """Train to the end and return what is left."""
    trainer.train(**kwargs)
    steps = [line for line in trainer.state.log_history if "loss" in line]
    return Run(
        trainer=trainer,
        losses=[line["loss"] for line in steps],
        grad_norms=[line["grad_norm"] for line in steps],
        weights={name: value.detach().clone() for name, value in trainer.model.state_dict().items()},
    )
