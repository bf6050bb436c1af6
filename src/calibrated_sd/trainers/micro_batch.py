"""One micro-batch on its way to a calibrated loss: which rows are forwarded, which positions count, what they weigh.

The loss is Σ c·ℓ over the positions that count, with coefficients c that the reduction fixes beforehand. Rows without a
teacher context are not forwarded, unless a policy gradient needs the student on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool
from torch import Tensor

from calibrated_sd.calibrators import Calibrator, TokenStats, Weight
from calibrated_sd.calibrators.base import ROW_STATS, VOCABULARY_STATS
from calibrated_sd.calibrators.token_loss import Sources, TokenLoss
from calibrated_sd.objectives import Scores, coefficients, log_complement, selected_logps
from calibrated_sd.shapes import Logps, PerToken, Scalar
from calibrated_sd.trainers.batch import narrow, some_rows, used_width
from calibrated_sd.trainers.metrics import measured_positions
from calibrated_sd.trainers.teacher_context.level_mixture import combine_levels
from calibrated_sd.trainers.teacher_context.level_tensors import level_inputs


class MicroBatch:
    """Forward passes and loss of one micro-batch.

    Args:
        trainer: a calibrated trainer.
        model, teacher_model: as TRL passes them to its forward passes.
        inputs: one training batch of TRL's.
        calibrator: the method that acts on the distillation loss, or None.
        strength: its dial.
    """

    def __init__(
        self, trainer: Any, model: Any, teacher_model: Any, inputs: dict, calibrator: Calibrator | None, strength: float
    ):
        self.trainer, self.calibrator, self.strength = trainer, calibrator, strength
        mask = trainer.loss_mask(inputs)
        active = (mask > 0).any(dim=1)
        everything = torch.ones_like(active)
        rows = some_rows(everything if trainer.needs_policy_gradient else active)
        width = used_width(inputs["completion_mask"][rows])
        self.inputs = narrow(inputs, rows, width)
        """What the student is forwarded on."""
        taught = some_rows(active[rows])
        self.taught = narrow(self.inputs, taught, width) if len(taught) < len(rows) else self.inputs
        """What the teacher is forwarded on: the rows whose loss counts."""
        self._mask = mask[rows][taught][:, :width]
        self._coefficients = coefficients(mask, trainer.loss_reduction)[rows][taught][:, :width]
        flat = rearrange(torch.arange(len(rows) * width, device=mask.device), "(b t) -> b t", t=width)
        self._in_student = flat[taught][self._mask > 0]
        self._in_teacher = torch.nonzero(rearrange(self._mask, "b t -> (b t)") > 0).squeeze(-1)
        self.student = self._student(model)
        """Scores of the student at all positions of all rows, with a gradient."""
        self.sources = self._sources(teacher_model, self.student.keep(self._in_student))

    # ---- forward passes ----------------------------------------------------------------------------------------

    def _student(self, model: Any) -> Scores:
        return self._read(model, *_student_input(self.inputs))

    def _read(self, model: Any, input_ids: Tensor, attention_mask: Tensor) -> Scores:
        return self.trainer.scores.read(model, input_ids, attention_mask, self.inputs["completion_ids"].size(1))

    @torch.no_grad()
    def _sources(self, teacher_model: Any, student: Scores) -> Sources:
        trainer, taught = self.trainer, self.taught
        plan = trainer.context_plan if trainer.context_plan is not None and trainer.context_plan.forwards_all else None
        given = {"teacher": None} if plan is None else level_inputs(taught, plan, trainer.context_weights())
        teachers: dict[str, Scores] = {}
        for name, pair in given.items():
            ids, attention = pair or (taught["teacher_input_ids"], taught["teacher_attention_mask"])
            with trainer._get_teacher_context_for_self_distillation():
                teachers[name] = self._read(teacher_model, ids, attention).keep(self._in_teacher)
        reference = context_only = None
        if trainer.reference is not None:
            # The frozen initial weights on the student's own prompt: a level `none` of a base teacher is just that.
            if trainer.args.teacher_model_kind == "base" and "none" in teachers:
                reference = teachers["none"]
            else:
                with trainer.reference.running() as model:
                    reference = self._read(model, *_student_input(taught)).keep(self._in_teacher)
            if self.calibrator is not None and self.calibrator.needs_context_only:
                with trainer.reference.running() as model:
                    pair = taught["context_only_input_ids"], taught["context_only_attention_mask"]
                    context_only = self._read(model, *pair).keep(self._in_teacher)
        old = taught.get("old_per_token_logps")
        return Sources(
            student=student,
            teachers=teachers,
            completion_ids=self._at_positions(taught["completion_ids"]),
            combine=None if plan is None else self._combine,
            reference=reference,
            context_only=context_only,
            marker_ids=trainer.marker_ids,
            old_logps=None if old is None else self._at_positions(old),
            measured=self._measured(),
        )

    def _measured(self) -> Bool[Tensor, " N"] | None:
        if not self.trainer.measures_distributions:
            return None
        vocabulary = self.trainer.model.config.get_text_config().vocab_size
        return measured_positions(len(self._in_teacher), vocabulary, self._in_teacher.device)

    def _combine(self, by_level: Mapping[str, Logps], part: slice) -> Logps:
        trainer = self.trainer
        row = torch.div(self._in_teacher[part], self._mask.shape[1], rounding_mode="floor")
        available = self.taught["context_available"][row]
        return combine_levels(by_level, trainer.context_plan, available, trainer.marker_ids, trainer.context_weights())

    # ---- positions and tables ----------------------------------------------------------------------------------

    def _at_positions(self, table: Tensor) -> Tensor:
        return rearrange(table, "b t -> (b t)")[self._in_teacher]

    def _as_table(self, values: Tensor) -> PerToken:
        return as_table(values, self._in_teacher, self._mask.shape)

    def token_stats(self, names: frozenset[str]) -> TokenStats:
        """What the calibrator wants to know about the taught rows."""
        loss = TokenLoss(self.sources, self.trainer.loss_settings)
        found = loss.stats([name for name in VOCABULARY_STATS if name in names], self.trainer.calibration.chunk_size)
        tables = {name: self._as_table(values) for name, values in found.items()}
        return make_stats(self.taught, self._mask, tables)

    def stats_of_all_rows(self, names: Iterable[str]) -> dict[str, PerToken]:
        """Stats at the positions that count, as tables over the rows that the student was forwarded on; 0 elsewhere."""
        found = TokenLoss(self.sources, self.trainer.loss_settings).stats(names, self.trainer.calibration.chunk_size)
        shape = self.inputs["completion_ids"].shape
        return {name: as_table(values, self._in_student, shape) for name, values in found.items()}

    @cached_property
    def loss_of_tokens(self) -> TokenLoss:
        """The loss, once gate and weights are known."""
        calibrator, sources = self.calibrator, self.sources
        gate = weights = None
        if calibrator is not None and (_has_gate(calibrator) or isinstance(calibrator, Weight)):
            stats = self.token_stats(calibrator.needs_stats)
            gate = calibrator.token_gate(stats)
            if isinstance(calibrator, Weight):
                weights = self._at_positions(calibrator.weights(stats, self.strength))
        if gate is not None:
            self.gate_share = self._at_positions(gate).detach().sum()
            gate = self._at_positions(gate)
        sources = Sources(**{**sources.__dict__, "gate": gate, "weights": weights})
        return TokenLoss(sources, self.trainer.loss_settings, calibrator, self.strength)

    gate_share: Tensor | None = None
    """Sum of the gate over the positions that count; None without a gate."""

    def loss(self) -> tuple[Scalar, Scalar, dict[str, Tensor | float]]:
        """The loss with a graph, the mean distillation loss of a token, and sums for `metrics.SUMS`."""
        tokens = self.loss_of_tokens
        chosen = self._at_positions(self._coefficients)
        total, losses = tokens.total(chosen, self.trainer.calibration.chunk_size)
        sums: dict[str, Tensor | float] = dict(tokens.sums)
        sums |= {"strength": self.strength, "n_batches": 1.0}
        if self.gate_share is not None:
            sums |= {"gate": self.gate_share, "n_gate": float(len(losses))}
        return total, tokens.distillation / max(1, len(losses)), sums

    def raw_scores(self) -> dict[str, Tensor | None]:
        """Logits, or the hidden states that they are computed from, of everyone who takes part; to look at, not to use."""
        sources = self.sources
        everyone: dict[str, Scores | None] = {"student": sources.student}
        everyone |= {_who(name): scores for name, scores in sources.teachers.items()}
        everyone |= {"reference": sources.reference, "context-only model": sources.context_only}
        return {
            name: None if scores is None else getattr(scores, "logits", getattr(scores, "hidden", None))
            for name, scores in everyone.items()
        }

    # ---- policy gradient ---------------------------------------------------------------------------------------

    @property
    def student_logits(self) -> MicroBatch:
        """What TRL hands to its policy loss: the micro-batch itself, because there may be no logits."""
        return self

    def policy_inputs(self, inputs: dict[str, Any]) -> tuple[dict[str, Any], Tensor]:
        """Inputs and "logits" for TRL's policy loss, which only ever asks for the log-probability of sampled tokens.

        The logits have two outcomes, the sampled token and all others, so that their log-softmax is what TRL wants and
        nothing of vocabulary size is needed.
        """
        ids = rearrange(self.inputs["completion_ids"], "b t -> (b t)")
        logps = selected_logps(self.student, ids, self.trainer.calibration.chunk_size)
        two = torch.stack([logps, log_complement(logps)], dim=-1)
        width = self.inputs["completion_ids"].shape[1]
        inputs = dict(inputs, completion_ids=torch.zeros_like(inputs["completion_ids"]))
        return inputs, rearrange(two, "(b t) k -> b t k", t=width)


def _who(level: str) -> str:
    return level if level == "teacher" else f"teacher ({level})"


def as_table(values: Tensor, positions: Tensor, shape: tuple[int, ...] | torch.Size) -> PerToken:
    """Values at some positions of a (B, T) table, which is 0 elsewhere."""
    table = torch.zeros(shape[0] * shape[1], dtype=values.dtype, device=values.device)
    table[positions] = values
    return rearrange(table, "(b t) -> b t", t=shape[1])


def make_stats(inputs: dict[str, Any], mask: Tensor, tables: dict[str, PerToken]) -> TokenStats:
    """`TokenStats` of the rows of a batch, from what was computed and what the batch holds."""
    marker_mask = inputs.get("marker_mask")
    if marker_mask is None:
        marker_mask = torch.zeros_like(mask, dtype=torch.bool)
    rows = {
        name: inputs[name] for name in ROW_STATS if isinstance(inputs.get(name), Tensor) and inputs[name].dim() == 1
    }
    return TokenStats(
        completion_ids=inputs["completion_ids"],
        completion_mask=mask,
        is_marker=marker_mask.bool(),
        **tables,
        **rows,
    )


def _has_gate(calibrator: Calibrator) -> bool:
    return type(calibrator).token_gate is not Calibrator.token_gate


def _student_input(inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    return ids, torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
