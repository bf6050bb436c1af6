"""With a strength above 0 every calibrator acts, in every mode, with and without LoRA, and only where it should."""

import math

import pytest
import torch
from peft import LoraConfig

from calibrated_sd.calibrators import CALIBRATORS, Penalty, Weight
from calibrated_sd.trainers._trl import DistillationLogits

MODES = {
    "sampled_token": {"distillation_mode": "sampled_token", "distillation_alpha": 1.0},
    "topk_logits": {"distillation_mode": "topk_logits", "distillation_topk": 5, "distillation_add_tail": True},
    "full_logits": {"distillation_mode": "full_logits"},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", CALIBRATORS)
def test_acts(run, method, mode):
    off = run(**MODES[mode])
    on = run(calibration_method=method, calibration_strength=CALIBRATORS[method].suggested, **MODES[mode])
    assert on.losses != off.losses
    assert all(math.isfinite(value) for value in on.losses + on.grad_norms)
    logged = on.trainer.state.log_history[2]  # at step 0 the student is the reference, and the floor is met
    assert logged["calibration/strength"] == CALIBRATORS[method].suggested
    assert logged["calibration/penalty"] > 0


@pytest.mark.parametrize("kind", ["base", "ema", "live"])
@pytest.mark.parametrize("method", CALIBRATORS)
def test_lora_takes_a_step(make_trainer, method, kind):
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = make_trainer(
        peft_config=lora,
        teacher_model_kind=kind,
        calibration_method=method,
        calibration_strength=CALIBRATORS[method].suggested,
        max_steps=1,
    )
    assert trainer.reference.source == "adapter_off"
    before = {name: value.clone() for name, value in trainer.model.named_parameters() if value.requires_grad}
    assert before
    trainer.train()
    after = dict(trainer.model.named_parameters())
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert math.isfinite(trainer.state.log_history[0]["loss"])


@pytest.mark.parametrize("method", ["projection", "floor"])
def test_hybrid_blends_policy_gradient_and_calibrated_distillation(make_trainer, method):
    """The loss is (1−w)·policy + w·(distillation with its calibrator), here with w = ½, for the same batch."""
    losses = {}
    for weight in (0.5, 1.0):
        trainer = make_trainer(
            calibration_method=method, calibration_strength=1.0, distillation_weight=weight, max_steps=1
        )
        trainer.train()
        losses[weight] = trainer.state.log_history[0]
    policy = losses[0.5]["self_distillation/policy_loss"]
    assert losses[0.5]["loss"] == pytest.approx(0.5 * policy + 0.5 * losses[1.0]["loss"], abs=1e-6)


class Halving(Weight):
    """Every token counts half."""

    name, dial, suggested, strength_range = "halving", "h", 1.0, (0.0, 1.0)

    def weights(self, views, completion_ids, strength):
        return torch.full(completion_ids.shape, 0.5)


def test_weights_leave_the_denominator_alone(make_trainer, finish):
    """Half the weight on every token is half the loss; dividing by the sum of weights would give the same loss again."""
    plain = finish(make_trainer(max_steps=1))
    trainer = make_trainer(max_steps=1, calibration_strength=1.0)
    trainer.calibrator = Halving()
    assert finish(trainer).losses[0] == pytest.approx(0.5 * plain.losses[0], rel=1e-6)


class Ones(Penalty):
    """One nat at every token."""

    name, dial, suggested, strength_range = "ones", "λ", 1.0, (0.0, 10.0)

    def penalty(self, views, strength):
        return views.student.sum(-1) * 0 + 1.0


@pytest.mark.parametrize(("reduction", "expected"), [("upstream", 0.25), ("active_rows", 0.5), ("token_mean", 0.5)])
def test_penalty_is_scaled_by_the_strength_and_reduced_like_the_loss(make_trainer, reduction, expected):
    """Two of four rows are active: TRL's mean over all rows halves a constant penalty of ½·1, the others do not."""
    with_penalty, without = (
        _loss_of_a_batch(make_trainer, penalty=penalty, loss_reduction=reduction) for penalty in (True, False)
    )
    assert with_penalty - without == pytest.approx(expected, abs=1e-6)


def _batch(trainer, active):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(7, 30, (4, 5), generator=generator)
    mask = torch.ones_like(ids)
    mask[:, -1] = 0
    prompt = torch.randint(7, 30, (4, 3), generator=generator)
    return {
        "prompt_ids": prompt,
        "prompt_mask": torch.ones_like(prompt),
        "completion_ids": ids,
        "completion_mask": mask,
        "teacher_input_ids": torch.cat([prompt, prompt, ids], dim=1),
        "teacher_attention_mask": torch.cat([torch.ones_like(prompt), torch.ones_like(prompt), mask], dim=1),
        "self_distillation_mask": torch.tensor(active),
    }


def _loss_of_a_batch(make_trainer, penalty, **settings):
    trainer = make_trainer(calibration_method="floor", calibration_strength=0.5, **settings)
    trainer.calibrator = Ones()
    inputs = _batch(trainer, [1.0, 0.0, 1.0, 0.0])
    logits = trainer._compute_teacher_student_logits(trainer.model, trainer.teacher_model, inputs)
    if not penalty:
        logits.penalty = None
    return trainer._compute_self_distillation_loss(trainer.model, inputs, logits).item()


@pytest.mark.parametrize("reduction", ["upstream", "active_rows", "token_mean"])
@pytest.mark.parametrize("method", CALIBRATORS)
def test_no_gradient_at_masked_positions(make_trainer, method, reduction):
    trainer = make_trainer(
        calibration_method=method,
        calibration_strength=CALIBRATORS[method].suggested,
        loss_reduction=reduction,
    )
    inputs = _batch(trainer, [1.0, 0.0, 1.0, 1.0])
    logits = trainer._compute_teacher_student_logits(trainer.model, trainer.teacher_model, inputs)
    assert isinstance(logits, DistillationLogits)
    logits.student_logits.retain_grad()
    trainer._compute_self_distillation_loss(trainer.model, inputs, logits).backward()
    size = logits.student_logits.grad.abs().sum(-1)
    counted = logits.loss_mask > 0
    assert (size[~counted] == 0).all()
    assert (size[counted] > 0).all()


def test_schedule_changes_the_strength_over_the_run(make_trainer):
    trainer = make_trainer(calibration_strength=0.8, calibration_schedule="linear:0->1@2")
    trainer.train()
    strengths = [line["calibration/strength"] for line in trainer.state.log_history if "loss" in line]
    assert strengths == pytest.approx([0.0, 0.4, 0.8])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("method", CALIBRATORS)
def test_other_float_types_take_a_step(make_trainer, model_path, method, dtype):
    from transformers import AutoModelForCausalLM

    trainer = make_trainer(
        model=AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype),
        calibration_method=method,
        calibration_strength=CALIBRATORS[method].suggested,
        max_steps=1,
    )
    trainer.train()
    assert math.isfinite(trainer.state.log_history[0]["grad_norm"])
