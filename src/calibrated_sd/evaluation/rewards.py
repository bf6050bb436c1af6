r"""Rewards for TRL's trainers, judged by the graders of the evaluation.

A reward made here is called as TRL calls any reward function and reads the data set's column ``answer``. A completion
that cannot be judged (no answer, time limit) has the reward None. What the trainers make of it:

==========================  ==================================================================================
TRL's GRPO                  leaves the row out of its group's baseline; advantage 0
this package's SDPO         the group's mean reward, advantage 0, never shown as a demonstration
TRL's SDPO (1.16)           reward 0, as if it were wrong
==========================  ==================================================================================

No NaN reaches an advantage in any of them, also where a whole group or batch cannot be judged.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from calibrated_sd.errors import ConfigError
from calibrated_sd.evaluation.grading_pool import GradingPool, shared_pool
from calibrated_sd.evaluation.named_functions import load_function

Reward = Callable[..., list[float | None]]
"""What TRL calls with ``prompts, completions, completion_ids`` and the data set's columns, all as keywords."""


@dataclass(frozen=True)
class SoftOverlong:
    """Soft overlong punishment (DAPO, arXiv:2503.14476, eq. 13), added to the reward for correctness.

    For a completion of ``n`` tokens, with ``max_length`` L and ``cache`` C::

        0                     n ≤ L − C
        ((L − C) − n) / C     L − C < n ≤ L
        −1                    L < n

    Shorter is not better: below L − C nothing is added. With SDPO mind ``success_reward_threshold``: a right but long
    completion may fall below it and no longer serve as a demonstration.

    Attributes:
        max_length: L, tokens; at most the trainer's ``max_completion_length``, or the last branch is never reached.
        cache: C, tokens; 0 punishes only beyond L.

    Raises:
        ConfigError: not 0 ≤ cache ≤ max_length, or max_length < 1.
    """

    max_length: int
    cache: int

    def __post_init__(self) -> None:
        if not (0 <= self.cache <= self.max_length and self.max_length >= 1):
            raise ConfigError(
                "The soft overlong punishment needs 0 <= cache <= max_length and max_length >= 1, got "
                f"max_length={self.max_length}, cache={self.cache}."
            )

    def __call__(self, n_tokens: int) -> float:
        """The punishment of a completion of that many tokens, in [−1, 0]."""
        free = self.max_length - self.cache
        if n_tokens <= free:
            return 0.0
        if n_tokens <= self.max_length:
            return (free - n_tokens) / self.cache
        return -1.0


@dataclass(frozen=True)
class CorrectnessReward:
    """1.0 for a right answer, 0.0 for a wrong one, None where that cannot be judged; plus a term for the length.

    Made by :func:`make_reward`. Can be pickled, and compares equal to one with the same settings.
    """

    grader: str
    length: SoftOverlong | None = None
    timeout_s: float = 5.0
    workers: int = 2

    __name__ = "correctness_reward"  # TRL logs rewards/correctness_reward

    @property
    def pool(self) -> GradingPool:
        return shared_pool(self.grader, self.workers, self.timeout_s)

    def __call__(
        self,
        completions: Sequence[Any],
        answer: Sequence[Any] | None = None,
        completion_ids: Sequence[Sequence[int]] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """Rewards of a batch.

        Args:
            completions: texts, or lists of chat messages of which the last one's content is the text.
            answer: the expected answers: texts or numbers, None where there is none.
            completion_ids: their tokens, for the length term.

        Raises:
            ConfigError: no column ``answer``, or no tokens though a length term is set.
        """
        if answer is None:
            raise ConfigError(
                "The correctness reward compares with the data set's column 'answer', which the data set lacks. Rename "
                "its column of final answers, or train with a reward of your own (reward: module:function)."
            )
        # A data set may hold numbers, and NaN (the only thing unequal to itself) where one is missing.
        expected = [None if one is None or one != one else str(one) for one in answer]
        verdicts = self.pool.grade(zip(map(completion_text, completions), expected, strict=True))
        rewards = [None if verdict is None else float(verdict) for verdict in verdicts]
        if self.length is None:
            return rewards
        if completion_ids is None:
            raise ConfigError(
                "A reward with a length term needs completion_ids, the tokens of each completion. TRL's trainers pass "
                "them; pass them too when you call the reward yourself."
            )
        return [
            None if reward is None else reward + self.length(len(ids))
            for reward, ids in zip(rewards, completion_ids, strict=True)
        ]


def completion_text(completion: Any) -> str:
    """The text of a completion as TRL hands it over: a string, or a list of chat messages (the last one counts).

    A message's separate ``reasoning_content`` is not part of it: thinking is not graded.
    """
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else ""
    if isinstance(content, list):  # typed parts
        content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content or ""


def make_reward(
    grader: str = "boxed", *, length: SoftOverlong | None = None, timeout_s: float = 5.0, workers: int = 2
) -> CorrectnessReward:
    """A TRL reward function: 1.0 for a right answer, 0.0 for a wrong one, None where that cannot be judged.

    Args:
        grader: a name of :data:`~calibrated_sd.evaluation.grading.GRADERS`, or ``"module:function"``.
        length: adds a punishment of overlong completions.
        timeout_s: seconds for one completion, beyond which it cannot be judged (not for ``boxed``).
        workers: grading processes, started at the first batch (none for ``boxed``).

    Raises:
        ConfigError: no such grader, or one whose library is not installed.
    """
    reward = CorrectnessReward(grader, length, timeout_s, workers)
    _ = reward.pool  # checks the grader now
    return reward


def boxed_math_reward(
    completions: Sequence[Any], answer: Sequence[Any] | None = None, **columns: Any
) -> list[float | None]:
    r"""Whether the last ``\boxed{…}`` is the answer mathematically: ``make_reward("math-verify")`` as a plain function."""
    return CorrectnessReward("math-verify")(completions, answer, **columns)


def load_reward(name: str) -> Reward:
    """The reward function that a recipe names.

    Args:
        name: ``"module:function"`` or ``"file.py:function"``, see
            :func:`~calibrated_sd.evaluation.named_functions.load_function`.

    Raises:
        ConfigError: it cannot be loaded, or does not take the keyword arguments of TRL.
    """
    reward = load_function(name, "reward")
    try:
        parameters = inspect.signature(reward).parameters.values()
    except ValueError:  # a compiled function does not say
        return reward
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise ConfigError(
            f"The reward {name!r} takes no **kwargs, but TRL passes every column of the data set, and more, as keyword "
            "arguments. Add **kwargs to its parameters."
        )
    return reward
