"""How far the target of mix-to-floor (κ = 1, c = s) is from the reference, in nats per token of 64 base rollouts.

Run from the repository: `python docs/results/organism/target_divergence.py`. Prints three figures with intervals: the
divergence of the unedited teacher from the reference, that of the edited one, and the mean mixing weight.
"""

import random

import torch

from calibrated_sd.calibrators import MixToFloor, Views
from calibrated_sd.evaluation import generate_completions
from calibrated_sd.evaluation.statistics import ratio_of_sums_interval
from calibrated_sd.markers import MarkerSet, marker_token_ids
from calibrated_sd.objectives import forward_kl
from calibrated_sd.organism.checkpoint import load_organism
from calibrated_sd.organism.corpus import context_prompt, demonstration
from calibrated_sd.organism.grammar import Habits
from calibrated_sd.organism.suites import training_problems

model, tokenizer = load_organism()
markers = marker_token_ids(tokenizer, MarkerSet.load("lexical"))
problems, rng = training_problems(64), random.Random(0)
users = [[{"role": "user", "content": p.question}] for p in problems]
rollouts = generate_completions(model, tokenizer, users, max_new_tokens=160, seed=3)


def logps(user: str, ids: list[int]) -> torch.Tensor:
    turn = [{"role": "user", "content": user}]
    prompt = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *ids]])).logits[:, len(prompt) - 1 : -1]
    return torch.log_softmax(logits.float(), -1)


sums = {name: {} for name in ("teacher", "edited", "mixed", "tokens")}
for problem, rollout in zip(problems, rollouts, strict=True):
    ids = list(rollout.token_ids)
    reference = logps(problem.question, ids)
    teacher = logps(context_prompt(problem.question, demonstration(problem, "solution", rng, Habits())), ids)
    views = Views(student=reference, teacher=teacher, reference=reference, marker_ids=markers)
    edited = MixToFloor().edit_teacher(views, 1.0)
    weight = MixToFloor().mixing_weight(views, 1.0)
    found = (forward_kl(reference, teacher).sum(), forward_kl(reference, edited).sum(), weight.sum(), len(ids))
    for name, value in zip(sums, found, strict=True):
        sums[name][problem.problem_id] = float(value)
for name in ("teacher", "edited", "mixed"):
    print(name, ratio_of_sums_interval(sums[name], sums["tokens"], unit="per token"))
