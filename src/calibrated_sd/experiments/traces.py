"""Per-token suppression: how a context changes the teacher's probability of each word of a context-free rollout."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from calibrated_sd.evaluation.generate import generate_completions
from calibrated_sd.markers import MarkerSet, marker_token_mask
from calibrated_sd.organism.corpus import CONTEXTS, context_prompt, demonstration
from calibrated_sd.organism.grammar import Habits
from calibrated_sd.organism.suites import suite_problems
from calibrated_sd.records import write_jsonl


@torch.inference_mode()
def completion_logps(model: Any, tokenizer: Any, user: str, completion_ids: list[int]) -> torch.Tensor:
    """Log-probability of each completion token after the prompt, (T,)."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": user}], add_generation_prompt=True, return_dict=False
    )
    ids = torch.tensor([[*prompt, *completion_ids]])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits.float(), -1).gather(-1, ids[0, len(prompt) :, None])[:, 0]


def write_traces(model: Any, tokenizer: Any, path: Path, *, n: int = 3, seed: int = 0) -> None:
    """Write `n` rollouts, each under every context level, as lines for the report.

    `log_ratio` is log p_T(token | x, c, prefix) − log p_R(token | x, prefix) in nats; negative = the teacher suppresses.
    """
    problems = suite_problems("train", n)
    rollouts = generate_completions(
        model,
        tokenizer,
        [[{"role": "user", "content": p.question}] for p in problems],
        problem_ids=[p.problem_id for p in problems],
        max_new_tokens=160,
        seed=seed,
    )
    markers = MarkerSet.load("lexical")
    lines = []
    for problem, rollout in zip(problems, rollouts, strict=True):
        ids = list(rollout.token_ids)
        mask = marker_token_mask(tokenizer, torch.tensor([ids]), markers)[0].tolist()
        reference = completion_logps(model, tokenizer, problem.question, ids)
        for context in CONTEXTS[1:]:
            rng = random.Random(f"trace-{problem.problem_id}-{context}")
            user = context_prompt(problem.question, demonstration(problem, context, rng, Habits()))
            ratio = completion_logps(model, tokenizer, user, ids) - reference
            lines.append(
                {
                    "id": problem.problem_id,
                    "problem": problem.question,
                    "answer": str(problem.answer),
                    "context_label": context,
                    "tokens": [tokenizer.decode([i]) for i in ids],
                    "is_marker": mask,
                    "log_ratio": [round(x, 4) for x in ratio.tolist()],
                }
            )
    write_jsonl(path, lines)
