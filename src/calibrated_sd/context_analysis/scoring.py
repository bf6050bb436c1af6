"""Teacher-forced scores of one text under several prompts: no sampling, and never the logits of a whole sequence.

The output head is applied to a few positions at a time, so that memory does not grow with the vocabulary: at
V = 150,000 the float32 logits of 1,000 positions would take 0.6 GB for every prompt.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from calibrated_sd.markers import log_marker_mass_from_logits
from calibrated_sd.objectives import LogitScores, Scores
from calibrated_sd.trainers.lm_head import OutputHead


@dataclass(frozen=True)
class Scored:
    """What a model thinks of a text of T tokens after one prompt.

    Attributes:
        logps: log-probability of each token, (T,) float64, nats.
        masses: for each id set of the scorer, its probability mass at each position, (T,) float64.
        alternatives: position → log-probabilities of the other tokens asked for there.
    """

    logps: Tensor
    masses: tuple[Tensor, ...] = ()
    alternatives: dict[int, Tensor] = field(default_factory=dict)


class TraceScorer:
    """Scores texts with one model.

    Args:
        model: a causal language model of transformers, or anything that is called like one.
        id_sets: sets of token ids whose mass is measured at every position, (M,) each.
        batch_size: prompts computed together.
        chunk_positions: positions whose logits exist at a time; None: the model's own logits, all at once.
    """

    def __init__(
        self, model: Any, id_sets: Sequence[Tensor] = (), batch_size: int = 8, chunk_positions: int | None = 256
    ) -> None:
        self.model = model
        self.device = getattr(model, "device", torch.device("cpu"))
        self.id_sets = [ids.to(self.device) for ids in id_sets]
        self.batch_size = batch_size
        self.chunk_positions = chunk_positions
        self._head_is_known = False

    @torch.inference_mode()
    def score(
        self,
        prompts: Sequence[Sequence[int]],
        completion: Sequence[int],
        alternatives: Mapping[int, Sequence[int]] | None = None,
    ) -> list[Scored]:
        """Score one completion after each prompt.

        Args:
            prompts: token ids, at least one each; prompts of like length are computed together.
            completion: token ids, T > 0.
            alternatives: position in the completion → ids of other tokens to be scored there.

        Returns:
            One result per prompt, in their order.
        """
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        results: list[Scored | None] = [None] * len(prompts)
        for start in range(0, len(order), self.batch_size):
            part = order[start : start + self.batch_size]
            scores = self._scores([prompts[i] for i in part], completion)
            for row, i in enumerate(part):
                results[i] = self._read(scores, row, completion, alternatives or {})
        return [one for one in results if one is not None]

    def _scores(self, prompts: Sequence[Sequence[int]], completion: Sequence[int]) -> Scores:
        """Scores at the positions that foretell the completion's tokens, row by row, (B·T)."""
        rows = [[*prompt, *completion] for prompt in prompts]
        width = max(map(len, rows))
        # Padding on the right: the mask is causal, so no token sees it, and positions count from 0 as they should.
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=self.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self.device)
        given = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
        at = [torch.arange(len(prompt) - 1, len(prompt) - 1 + len(completion)) for prompt in prompts]
        columns = torch.stack(at).to(self.device)[..., None]
        head = self._plain_head()
        if head is None:
            logits = self.model(**given).logits
            return LogitScores(logits.gather(1, columns.expand(-1, -1, logits.shape[-1])).flatten(0, 1))
        with _bypassed(head) as caught:
            self.model(**given)
        hidden = caught[-1].gather(1, columns.expand(-1, -1, caught[-1].shape[-1])).flatten(0, 1)
        scores = OutputHead.of(self.model).scores(hidden)
        if not self._head_is_known:
            self._head_is_known = True
            if not self._agrees(given, columns, scores):
                self.chunk_positions = None
                return self._scores(prompts, completion)
        return scores

    def _plain_head(self) -> Any:
        """The output head, if its logits can be computed outside of the model; else None."""
        if self.chunk_positions is None or not hasattr(self.model, "get_output_embeddings"):
            return None
        head = self.model.get_output_embeddings()
        return head if type(head) is torch.nn.Linear else None

    def _agrees(self, given: dict[str, Any], columns: Tensor, scores: Scores) -> bool:
        """Whether the model's own logits at one position are these; architectures may do anything to theirs."""
        first = columns[0, :1, 0]
        one = {name: value[:1] if isinstance(value, Tensor) else value for name, value in given.items()}
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            own = self.model(**one, logits_to_keep=first).logits[0, 0]
        else:
            own = self.model(**one).logits[0, int(first)]
        gap = torch.log_softmax(own.float(), -1) - torch.log_softmax(scores.at(slice(0, 1))[0].float(), -1)
        agrees = bool(gap.abs().max() < 2e-2 * max(1.0, float(own.float().abs().max())))
        if not agrees:
            warnings.warn(
                f"{type(self.model).__name__} changes its logits after the output head in a way that is not known here, so "
                "its own are used, all positions at once. That takes more memory; lower --batch-size if it runs out.",
                stacklevel=2,
            )
        return agrees

    def _read(self, scores: Scores, row: int, completion: Sequence[int], wanted: Mapping[int, Sequence[int]]) -> Scored:
        count = len(completion)
        step = self.chunk_positions or count
        targets = torch.tensor(completion, device=self.device)
        logps, masses = [], [[] for _ in self.id_sets]  # type: ignore[var-annotated]
        alternatives: dict[int, Tensor] = {}
        for start in range(0, count, step):
            stop = min(start + step, count)
            logits = scores.at(slice(row * count + start, row * count + stop)).float()
            total = logits.logsumexp(-1)
            logps.append(logits.gather(-1, targets[start:stop, None])[:, 0] - total)
            for kept, ids in zip(masses, self.id_sets, strict=True):
                kept.append(log_marker_mass_from_logits(logits[None], ids)[0].exp())
            for position in range(start, stop):
                if wanted.get(position):
                    chosen = torch.tensor(list(wanted[position]), device=self.device)
                    alternatives[position] = (logits[position - start, chosen] - total[position - start]).double().cpu()
        return Scored(_joined(logps), tuple(_joined(one) for one in masses), alternatives)


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts).double().cpu()


@contextmanager
def _bypassed(head: torch.nn.Module) -> Iterator[list[Tensor]]:
    """While it lasts, the head keeps what it is given and computes a single column instead of the vocabulary."""
    caught: list[Tensor] = []

    def catch(hidden: Tensor) -> Tensor:
        caught.append(hidden)
        return hidden[..., :1]

    head.forward = catch  # type: ignore[method-assign]
    try:
        yield caught
    finally:
        del head.forward
