"""What to do when a number is NaN or infinite: say which one, and keep it out of the weights.

TRL trains on: the logged loss is replaced by an average (`logging_nan_inf_filter`), the optimizer step writes NaN into
every weight, and the run goes on without saying so.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from calibrated_sd.errors import NonFiniteError, unknown_name
from calibrated_sd.trainers.processes import any_process

if TYPE_CHECKING:
    from trl.trainer.base_trainer import _BaseTrainer

Host: Any = object if not TYPE_CHECKING else _BaseTrainer
ON_NON_FINITE = ("raise", "skip", "ignore")
SKIPPED = "non_finite/skipped_steps"
MOST_SHOWN = 3


@dataclass
class NonFiniteFields:
    """
    What every calibrated trainer does about numbers that are NaN or infinite.

    Parameters:
        on_non_finite (`str`, *optional*, defaults to `"raise"`):
            What happens when a loss, a gradient or a reward is NaN or infinite. `"raise"` ends training with a
            `NonFiniteError` before the weights are touched, so that the last checkpoint is good. `"skip"` leaves out the
            optimizer step (a reward: the rollout), warns and counts it under `non_finite/skipped_steps`. `"ignore"` does
            what TRL does, nothing. Gradients are not looked at under fp16 mixed precision, whose scaler skips by
            itself, nor where DeepSpeed hides them.
    """

    on_non_finite: str = field(
        default="raise",
        metadata={
            "help": "When a loss, gradient or reward is NaN or infinite: 'raise' ends training before the weights are "
            "touched, 'skip' leaves out the optimizer step (or the rollout) and counts it, 'ignore' is TRL.",
            "choices": list(ON_NON_FINITE),
        },
    )

    def check_on_non_finite(self) -> None:
        """Raises ConfigError for another word."""
        if self.on_non_finite not in ON_NON_FINITE:
            raise unknown_name("on_non_finite", self.on_non_finite, ON_NON_FINITE)


class GuardedSteps(Host):
    """Put it before a TRL trainer in the bases, call `_open_guard` in the constructor, and `_guarded` on each step's loss."""

    guard: NonFiniteGuard | None = None
    """None with `on_non_finite="ignore"`."""

    def _open_guard(self, settings: NonFiniteFields) -> None:
        if settings.on_non_finite != "ignore":
            self.guard = NonFiniteGuard(self, settings.on_non_finite)
            self.add_callback(self.guard)

    def _guarded(self, loss: Tensor) -> Tensor:
        """The loss of a training step; it is looked at on its way."""
        if self.guard is not None and not bool(torch.isfinite(loss.detach()).all()):
            self.guard.report(f"the loss is {loss.detach().float().sum().item()}")
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.guard is not None and self.guard.n_skipped:
            logs = {**logs, SKIPPED: float(self.guard.n_skipped)}
        super().log(logs, start_time)


class NonFiniteGuard(TrainerCallback):
    """Keeps NaN and infinity out of the weights.

    Args:
        trainer: the trainer whose steps are watched.
        action: ``"raise"`` or ``"skip"``.

    Attributes:
        n_skipped: optimizer steps left out so far in this process.
    """

    def __init__(self, trainer: Any, action: str) -> None:
        self.trainer, self.action = trainer, action
        self.n_skipped = 0
        self._causes: list[str] = []

    def note(self, cause: str) -> None:
        """Remember what is NaN or infinite; whoever finds the loss, or the gradient, will say it."""
        if cause not in self._causes:
            self._causes.append(cause)

    def report(self, what: str) -> None:
        """Say what was found: an error, or with ``"skip"`` a cause that is told when the step is left out.

        Raises:
            NonFiniteError: with ``"raise"``.
        """
        self.note(what)
        if self.action == "raise":
            raise NonFiniteError(self._message("Training was stopped before this reached the weights."))

    def rewards(self, rewards_per_func: Tensor, names: list[str]) -> Tensor:
        """Rewards, (N, F), with infinite ones as NaN, which TRL takes for "could not be scored".

        NaN itself is not told apart from a function's None.

        Raises:
            NonFiniteError: an infinite one, with ``"raise"``.
        """
        infinite = rewards_per_func.isinf()
        if not bool(infinite.any()):
            return rewards_per_func
        found = [names[column] for column in infinite.any(dim=0).nonzero().flatten().tolist()]
        text = f"rewards of {', '.join(found)} are infinite for {int(infinite.any(dim=1).sum())} of {len(infinite)} rollouts"
        if self.action == "raise":
            self.note(text)
            raise NonFiniteError(
                self._message("Training was stopped. Let the function return None for what it cannot score.")
            )
        warnings.warn(f"{text}; they count as rollouts that could not be scored.", stacklevel=2)
        return rewards_per_func.masked_fill(infinite, torch.nan)

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
        """Look at the gradients; with ``"skip"`` drop them, in all processes alike."""
        bad = [] if args.fp16 or model is None else bad_gradients(model)
        if not any_process(bool(bad), args.device):
            self._causes.clear()
            return
        # One bad gradient makes all of them so once their norm is clipped; names tell something without that alone.
        named = f" of {', '.join(bad)}" if 0 < len(bad) <= MOST_SHOWN else ""
        self.note(
            f"the gradients{named} are NaN or infinite" if bad else "gradients are NaN or infinite in another process"
        )
        if self.action == "raise":
            raise NonFiniteError(self._message("Training was stopped before the optimizer step: the weights are good."))
        for parameter in model.parameters():
            parameter.grad = None
        self.n_skipped += 1
        warnings.warn(self._message("The optimizer step was left out."), stacklevel=2)
        self._causes.clear()

    def _message(self, consequence: str) -> str:
        step = self.trainer.state.global_step + 1
        return (
            f"At step {step} {'; '.join(self._causes)}. {consequence} Usual causes: a learning rate that is too high, 16-bit "
            "weights, a divergence that is not clipped (distillation_is_clip, epsilon), a reward that overflows. "
            "on_non_finite='skip' leaves out such steps instead, 'ignore' trains on as TRL does."
        )


def bad_gradients(model: torch.nn.Module) -> list[str]:
    """Names of the parameters whose gradient in this process holds NaN or infinity; one look at the device if none does."""
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    if not named:
        return []
    local = [(name, getattr(grad, "_local_tensor", grad)) for name, grad in named]
    norms = torch.stack(
        [torch.linalg.vector_norm(grad, ord=math.inf).float().to(local[0][1].device) for _, grad in local]
    )
    if bool(torch.isfinite(norms).all()):
        return []
    return [name for (name, _), good in zip(local, torch.isfinite(norms).tolist(), strict=True) if not good]


def describe_scores(scores: Mapping[str, Tensor | None]) -> list[str]:
    """For each distribution whose logits (or hidden states) hold NaN, or +infinity, one sentence.

    −infinity is an outcome of probability 0 and no fault, unless a position has no outcome left.
    """
    told = []
    for name, tensor in scores.items():
        if tensor is None or tensor.numel() == 0:
            continue
        values = tensor.detach()
        bad = (values.isnan() | (values == torch.inf)).any(dim=-1) | (values == -torch.inf).all(dim=-1)
        if bool(bad.any()):
            told.append(f"the {name}'s logits are NaN or infinite at {int(bad.sum())} of {bad.numel()} positions")
    return told
