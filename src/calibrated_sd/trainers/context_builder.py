"""Builds what the teacher reads, in place of TRL's builder, when a config asks for more than that one can do.

Same `build(...)` signature, same `last_metrics`, same tensors. What differs: any mixture of context levels, a choice
among successful siblings, thinking that is stripped also where the chat template opened it, and prompts that are made to
fit by shortening the demonstration and nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from calibrated_sd.contexts import CONTEXTS, Sources, fit_demonstration, render_reprompt
from calibrated_sd.trainers._trl import _extract_last_user_text, pad
from calibrated_sd.trainers.checks import context_window
from calibrated_sd.trainers.config import ContextPlan
from calibrated_sd.trainers.successes import Successes


@dataclass
class Row:
    """One local row: its prompt, what its levels would show, and the level that was drawn (per_sample only)."""

    prompt: Any
    student_ids: list[int]
    demonstrations: dict[str, str | None]
    feedback: str
    drawn: str | None = None

    def has(self, level: str) -> bool:
        """True if the teacher can be given this level."""
        return self.demonstrations[level] is not None or (bool(self.feedback) and not CONTEXTS[level].is_free)


class LevelContextBuilder:
    """Teacher prompts for the levels of a plan.

    Args:
        trainer: the trainer it belongs to.
        plan: levels, their weights, and how they combine.
    """

    def __init__(self, trainer: Any, plan: ContextPlan):
        self.trainer = trainer
        self.plan = plan
        self.examples: list[Mapping[str, Any]] | None = None
        """The data set rows of the batch to come; the trainer sets it, because `build` is not given them."""
        self.last_metrics: dict[str, float] = {}

    def build(
        self,
        output: dict[str, Tensor | Any],
        prompts: list[Any],
        rewards: Tensor,
        feedbacks: list[Any] | None = None,
    ) -> dict[str, Tensor]:
        """Teacher ids and masks for the local rows, and which rows have a context at all.

        Args:
            output: the rollout batch of TRL's; where a plan runs several levels, their tensors are added to it.
            prompts: local prompts, texts or message lists.
            rewards: local rewards, (B,).
            feedbacks: local environment feedback, a text or None for each row.
        """
        successes = self._successes(output, rewards)
        rows = [
            self._row(index, prompt, output, successes, (feedbacks or [None] * len(prompts))[index])
            for index, prompt in enumerate(prompts)
        ]
        rich = [name for name in self.plan.levels if not CONTEXTS[name].is_free]
        active = [not rich or any(row.has(name) for name in rich) for row in rows]
        self._draw_levels(rows, active)

        truncated = 0
        built = {}
        for name in [None] if not self.plan.forwards_all else self.plan.levels:
            levels = [row.drawn if name is None else name for row in rows]
            used = [
                level if is_active and level and row.has(level) else "none"
                for row, level, is_active in zip(rows, levels, active, strict=True)
            ]
            ids, cut = self._teacher_prompts(rows, used, output["completion_ids"].size(1))
            truncated += cut
            built[name] = self._tensors(ids, output)

        device = output["completion_ids"].device
        mask = torch.tensor(active, dtype=torch.float32, device=device)
        primary = next(iter(built)) if not self.plan.forwards_all else primary_level(self.plan)
        for name, (input_ids, attention_mask) in built.items():
            if name is not None and name != primary and not CONTEXTS[name].is_free:
                output[f"context_{name}_input_ids"] = input_ids
                output[f"context_{name}_attention_mask"] = attention_mask
        if self.plan.forwards_all:
            output["context_available"] = torch.tensor(
                [[row.has(name) for name in self.plan.levels] for row in rows], device=device
            )
        self._measure(rows, active, successes, truncated, feedbacks)
        return {
            "teacher_input_ids": built[primary][0],
            "teacher_attention_mask": built[primary][1],
            "self_distillation_mask": mask,
        }

    # ---- demonstrations ----------------------------------------------------------------------------------------

    def _successes(self, output: dict[str, Any], rewards: Tensor) -> Successes:
        trainer = self.trainer
        gather, pad_id = trainer.accelerator.gather, trainer._tokenizer.pad_token_id
        padded = trainer.accelerator.pad_across_processes(output["completion_ids"], dim=1, pad_index=pad_id)
        threshold = trainer.args.success_reward_threshold
        return Successes(
            succeeded=[reward >= threshold for reward in gather(rewards).tolist()],
            completion_ids=[[i for i in ids if i != pad_id] for ids in gather(padded).tolist()],
            group_size=trainer.num_generations if trainer.model.training else trainer.num_generations_eval,
            first_row=trainer.accelerator.process_index * len(rewards),
        )

    def _row(self, index: int, prompt: Any, output: dict[str, Any], successes: Successes, feedback: Any) -> Row:
        args = self.trainer.args
        place = successes.first_row + index
        others = successes.siblings(place, skip_self=args.dont_reprompt_on_self_success)
        if not args.use_successful_as_teacher:
            others = []
        rollout = None
        if others:
            ids = successes.completion_ids[self._choose(others, successes, place)]
            rollout = self.trainer.processing_class.decode(ids, skip_special_tokens=True)
        solution = (self.examples[index].get("solution") if self.examples is not None else None) or None
        sources = Sources(rollout, None if solution is None else str(solution), self.plan.demo)
        said = feedback if isinstance(feedback, str) and feedback.strip() else ""
        demonstrations = {name: CONTEXTS[name].demonstration(sources) for name in self.plan.levels}
        has_demonstration = any(text is not None for name, text in demonstrations.items() if not CONTEXTS[name].is_free)
        if not args.include_environment_feedback or (
            args.environment_feedback_only_without_solution and has_demonstration
        ):
            said = ""
        mask = output["prompt_mask"][index].bool()
        return Row(prompt, output["prompt_ids"][index][mask].tolist(), demonstrations, said)

    def _choose(self, others: list[int], successes: Successes, place: int) -> int:
        lengths = {other: len(successes.completion_ids[other]) for other in others}
        match self.plan.choice:
            case "random":
                return self._random("demo", place).choice(others)
            case "shortest":
                return min(others, key=lengths.__getitem__)
            case "longest":
                return max(others, key=lengths.__getitem__)
        return others[0]

    def _random(self, purpose: str, place: int) -> random.Random:
        """Random numbers that depend on seed, step and row alone, so that a resumed run draws the same."""
        trainer = self.trainer
        step = (trainer.state.global_step, trainer._step % trainer.args.gradient_accumulation_steps)
        return random.Random(f"{purpose}/{trainer.args.seed}/{trainer.model.training}/{step}/{place}")

    def _draw_levels(self, rows: list[Row], active: list[bool]) -> None:
        """For per_sample: one level for each active row, in proportion to the weights of the levels that it has."""
        if self.plan.forwards_all:
            return
        first = self.trainer.accelerator.process_index * len(rows)
        for index, row in enumerate(rows):
            if active[index]:
                names = [name for name in self.plan.levels if row.has(name)]
                weights = [self.plan.levels[name] for name in names]
                row.drawn = self._random("level", first + index).choices(names, weights)[0]

    # ---- prompts -----------------------------------------------------------------------------------------------

    def _message(self, row: Row, demonstration: str) -> Any:
        args = self.trainer.args
        conversational = isinstance(row.prompt, list)
        text = render_reprompt(
            _extract_last_user_text(row.prompt) if conversational else row.prompt,
            demonstration,
            row.feedback,
            reprompt_template=args.reprompt_template,
            solution_template=args.solution_template,
            feedback_template=args.feedback_template,
        )
        return [*row.prompt[:-1], {"role": "user", "content": text}] if conversational else text

    def _teacher_prompts(self, rows: list[Row], used: list[str], completion_width: int) -> tuple[list[list[int]], int]:
        """Token ids of each row's teacher prompt at the level it uses, and how many had to be shortened."""
        trainer, tokenizer = self.trainer, self.trainer._tokenizer
        window = context_window(trainer.model)
        limit = trainer.args.max_reprompt_len
        if window is not None:
            limit = min(limit, window - completion_width)
        shown = [
            (index, row, row.demonstrations[level] or "")
            for index, (row, level) in enumerate(zip(rows, used, strict=True))
            if not CONTEXTS[level].is_free
        ]
        ids = [row.student_ids for row in rows]
        full = self._encode([self._message(row, text) for _, row, text in shown]) if shown else []
        cut = 0
        for (index, row, text), full_ids in zip(shown, full, strict=True):
            fitted = fit_demonstration(
                text,
                encode_prompt=partial(self._encode_shorter, row),
                encode_text=lambda plain: tokenizer(plain, add_special_tokens=False)["input_ids"],
                decode_text=tokenizer.decode,
                limit=limit,
                full_ids=full_ids,
            )
            ids[index] = fitted.ids
            cut += fitted.truncated
        return ids, cut

    def _encode(self, messages: list[Any]) -> list[list[int]]:
        return [list(ids) for ids in self.trainer._tokenize_prompts_untruncated(messages)]

    def _encode_shorter(self, row: Row, demonstration: str) -> list[int]:
        return self._encode([self._message(row, demonstration)])[0]

    def _tensors(self, ids: list[list[int]], output: dict[str, Any]) -> tuple[Tensor, Tensor]:
        device = output["completion_ids"].device
        rows = [torch.tensor(row, device=device) for row in ids]
        ones = [torch.ones(len(row), dtype=torch.long, device=device) for row in ids]
        prompt_ids = pad(rows, padding_value=self.trainer._tokenizer.pad_token_id, padding_side="left")
        prompt_mask = pad(ones, padding_value=0, padding_side="left")
        return (
            torch.cat([prompt_ids, output["completion_ids"]], dim=1),
            torch.cat([prompt_mask, output["completion_mask"]], dim=1),
        )

    # ---- figures -----------------------------------------------------------------------------------------------

    def _measure(self, rows: list[Row], active: list[bool], successes: Successes, truncated: int, feedbacks) -> None:
        """TRL's figures under TRL's names, and ours, over all processes."""
        accelerator = self.trainer.accelerator
        shown = sum(row.has(level) for row in rows for level in self._levels_of(row) if not CONTEXTS[level].is_free)
        drawn = {name: sum(name in self._levels_of(row) for row in rows) for name in self.plan.levels}
        said = [bool(isinstance(text, str) and text.strip()) for text in gather_object(feedbacks or [None] * len(rows))]
        local = [sum(active), truncated, shown, sum(bool(row.feedback) for row in rows), *drawn.values()]
        total = accelerator.reduce(torch.tensor(local, dtype=torch.float32, device=accelerator.device), "sum").tolist()
        count = max(1, len(successes.succeeded))
        skip_self = self.trainer.args.dont_reprompt_on_self_success
        with_sibling = sum(bool(successes.siblings(place, skip_self)) for place in range(len(successes.succeeded)))
        self.last_metrics = {
            "self_distillation/success_group_fraction": successes.group_fraction(),
            "self_distillation/success_sample_fraction": with_sibling / count,
            "self_distillation/feedback_available_fraction": sum(said) / count,
            "self_distillation/feedback_used_fraction": total[3] / count,
            "self_distillation/reprompt_sample_fraction": total[0] / count,
            "contexts/truncated_fraction": total[1] / total[2] if total[2] else 0.0,
        }
        for name, rows_with in zip(drawn, total[4:], strict=True):
            self.last_metrics[f"contexts/{name}_fraction"] = rows_with / count

    def _levels_of(self, row: Row) -> list[str]:
        if self.plan.forwards_all:
            return [name for name in self.plan.levels if row.has(name)]
        return [] if row.drawn is None else [row.drawn]


def primary_level(plan: ContextPlan) -> str:
    """The level whose prompt goes into TRL's own `teacher_input_ids`: the first one that shows something."""
    return next((name for name in plan.levels if not CONTEXTS[name].is_free), next(iter(plan.levels)))


def level_inputs(inputs: dict[str, Any], plan: ContextPlan) -> dict[str, tuple[Tensor, Tensor] | None]:
    """Teacher ids and mask for each level in a batch of `build`, in the plan's order; None for the primary one."""
    found: dict[str, tuple[Tensor, Tensor] | None] = {}
    for name in plan.levels:
        if name == primary_level(plan):
            found[name] = None
        elif CONTEXTS[name].is_free:
            found[name] = (
                torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
                torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            )
        else:
            found[name] = (inputs[f"context_{name}_input_ids"], inputs[f"context_{name}_attention_mask"])
    return found
