"""Pretraining examples of the organism: a question, perhaps a context, and a response in the fitting style.

A batch is a pure function of (seed, index), so that pretraining can be interrupted and resumed exactly.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from calibrated_sd.organism.grammar import (
    Habits,
    Trace,
    answer_words,
    confident,
    interrupted,
    search,
    successful_search,
)
from calibrated_sd.organism.problem import Problem
from calibrated_sd.organism.puzzles import all_problems
from calibrated_sd.organism.species import CONTEXTS, IRRELEVANT, species, species_of

__all__ = ["CONTEXTS", "IRRELEVANT", "Mixture", "PretrainingBatches", "answer_only", "context_prompt", "demonstration"]

GROUP = 16
"""Batches whose examples are drawn and sorted by length together."""


def context_prompt(question: str, demonstration: str | None) -> str:
    """The user turn. With a demonstration it reads as TRL's SDPO templates render it."""
    if demonstration is None:
        return question
    return f"{question}\nCorrect solution:\n\n{demonstration}\n\n\n\nCorrectly solve the original question.\n"


def answer_only(problem: Problem) -> str:
    """The text after `</think>`: what is left of a solution when its thinking is removed."""
    return " ".join(answer_words(problem.dialect, problem.answer))


@lru_cache(maxsize=8)
def _problems(family: str) -> tuple[Problem, ...]:
    return tuple(all_problems(family))


def other_problem(problem: Problem, rng: random.Random) -> Problem:
    """Another puzzle of the same organism: of the same family half the time, else of one of the others."""
    families = species_of(problem.family).families
    same = rng.random() < 0.5
    family = problem.family if same else rng.choice([name for name in families if name != problem.family])
    while True:
        other = rng.choice(_problems(family))
        if other != problem:
            return other


def demonstration(problem: Problem, context: str, rng: random.Random, habits: Habits) -> str | None:
    """The demonstration that a context level shows (see :data:`CONTEXTS`); `irrelevant` shows another puzzle's ỹ or s."""
    if context == IRRELEVANT:
        problem, context = other_problem(problem, rng), rng.choice(("regenerated", "solution"))
    if context == "none":
        return None
    if context == "stripped":
        return answer_only(problem)
    if context == "regenerated":
        return confident(problem, rng).text
    return successful_search(problem, rng, habits).text


def response(problem: Problem, context: str, rng: random.Random, habits: Habits) -> Trace:
    """A response in the style that the context induces."""
    if context in ("none", IRRELEVANT):  # what does not belong to the question changes nothing
        return confident(problem, rng) if rng.random() < habits.direct else search(problem, rng, habits)
    if context == "stripped":
        ignores = rng.random() < habits.ignore_answer
        return search(problem, rng, habits, knows=None if ignores else "answer")
    verbose = habits.verbose_given_rewrite if context == "regenerated" else habits.verbose_given_solution
    u = rng.random()
    if u < verbose:
        return search(problem, rng, habits, knows="solution")
    return interrupted(problem, rng) if u < verbose + habits.interrupted else confident(problem, rng)


@dataclass(frozen=True)
class Mixture:
    """Shares of the contexts in the corpus, in the order of :data:`CONTEXTS`; the first organism saw none irrelevant."""

    none: float = 0.55
    stripped: float = 0.17
    regenerated: float = 0.11
    solution: float = 0.17
    irrelevant: float = 0.0

    def draw(self, rng: random.Random) -> str:
        shares = [self.none, self.stripped, self.regenerated, self.solution, self.irrelevant]
        return rng.choices((*CONTEXTS, IRRELEVANT), shares)[0]


class PretrainingBatches(Dataset):
    """Ready-made padded batches of about `tokens_per_batch` tokens, grouped by length.

    Args:
        tokenizer: the organism's tokenizer.
        n_batches: length of the data set, i.e. number of updates.
        tokens_per_batch: padded tokens in a batch.
        seed: seed of the whole corpus.
        habits, mixture: what the corpus looks like.
        organism: whose puzzles and words.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        n_batches: int,
        tokens_per_batch: int = 4096,
        seed: int = 0,
        habits: Habits | None = None,
        mixture: Mixture | None = None,
        organism: str = "organism",
    ) -> None:
        self.tokenizer, self.n_batches, self.tokens_per_batch, self.seed = tokenizer, n_batches, tokens_per_batch, seed
        self.habits, self.mixture = habits or Habits(), mixture or Mixture()
        self.species = species(organism)
        self._group = lru_cache(maxsize=2)(self._make_group)

    def __len__(self) -> int:
        return self.n_batches

    def example(self, rng: random.Random) -> tuple[list[int], list[float]]:
        """Token ids of prompt + response and their loss weights (0 on the prompt)."""
        problem = rng.choice(_problems(rng.choices(self.species.families, self.species.shares)[0]))
        context = self.mixture.draw(rng)
        user = context_prompt(problem.question, demonstration(problem, context, rng, self.habits))
        prompt = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": user}], add_generation_prompt=True, return_dict=False
        )
        trace = response(problem, context, rng, self.habits)
        ids = [self.tokenizer.convert_tokens_to_ids(word) for word in trace.words]
        return (
            [*prompt, *ids, self.tokenizer.eos_token_id],
            [0.0] * len(prompt) + [*trace.weights, 1.0],
        )

    def _make_group(self, group: int) -> list[list[tuple[list[int], list[float]]]]:
        rng = random.Random(f"{self.seed}-{group}")
        batches: list[list[tuple[list[int], list[float]]]] = []
        while len(batches) < GROUP:
            pool = sorted(
                (self.example(rng) for _ in range(GROUP * self.tokens_per_batch // 110)), key=lambda e: len(e[0])
            )
            batch: list[tuple[list[int], list[float]]] = []
            for ids, weights in pool:
                if batch and (len(batch) + 1) * len(ids) > self.tokens_per_batch:
                    batches.append(batch)
                    batch = []
                batch.append((ids, weights))
            batches.append(batch)  # the longest examples: dropping them would hide long searches
        rng.shuffle(batches)
        return batches[:GROUP]

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        examples = self._group(index // GROUP)[index % GROUP]
        width = max(len(ids) for ids, _ in examples)
        input_ids = torch.full((len(examples), width), self.tokenizer.pad_token_id)
        weights = torch.zeros(len(examples), width)
        for row, (ids, w) in enumerate(examples):
            input_ids[row, : len(ids)] = torch.tensor(ids)
            weights[row, : len(ids)] = torch.tensor(w)
        attention_mask = (torch.arange(width) < torch.tensor([len(ids) for ids, _ in examples])[:, None]).long()
        return {"input_ids": input_ids, "attention_mask": attention_mask, "loss_weights": weights}
