"""With a strength above 0 every calibrator acts, in every mode that it can act in, and only where it should."""

import math

import pytest
import torch
from fixed_batches import (
    DISTILLING,
    POINTWISE,
    SHAPING,
    fixed_batch,
    loss_and_gradients,
    nudge,
    relative_gap,
)
from peft import LoraConfig

from calibrated_sd.calibrators import CALIBRATORS, Penalty, Weight
from calibrated_sd.objectives import LogitScores
from calibrated_sd.trainers.micro_batch import MicroBatch
from calibrator_kit import settings_of

MODES = {
    "sampled_token": {"distillation_mode": "sampled_token", "distillation_alpha": 1.0},
    "topk_logits": {"distillation_mode": "topk_logits", "distillation_topk": 5},
    "topk_logits, tail": {"distillation_mode": "topk_logits", "distillation_topk": 5, "distillation_add_tail": True},
    "full_logits": {"distillation_mode": "full_logits"},
}
LATE = {name for name, cls in CALIBRATORS.items() if issubclass(cls, Penalty) and cls.needs_reference}
"""At the first step the student is the reference: a floor is met and a distance from it is 0."""

SAME_VALUE = {"epistemic_advantage"}
"""Each completion keeps its sum of advantages, so that only the gradient changes while the ratio is 1."""


def lora():
    return LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


@pytest.fixture
def loss_of(make_trainer):
    """Loss and gradients of the fixed batch under some settings."""

    def compute(moved=True, **settings):
        trainer = make_trainer(**settings)
        if moved:
            nudge(trainer)
        return (*loss_and_gradients(trainer, fixed_batch(trainer)), trainer)

    return compute


@pytest.fixture(scope="module")
def plain():
    """What strength 0 gives, kept."""
    return {}


def test_no_method_is_left_out():
    assert set(DISTILLING) | set(SHAPING) == set(CALIBRATORS)
    assert set(DISTILLING) - set(POINTWISE) == {"neutral"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", CALIBRATORS)
def test_changes_the_loss_in_every_mode(loss_of, plain, method, mode):
    settings = settings_of(method)
    if (method == "neutral" and mode != "full_logits") or (method, mode) == ("clip", "sampled_token"):
        with pytest.raises(ValueError, match="Set distillation_mode"):
            loss_of(**MODES[mode], **settings)
        return
    weight = settings.get("distillation_weight", 1.0)
    if (mode, weight) not in plain:
        plain[mode, weight] = loss_of(**MODES[mode], distillation_weight=weight)[:2]
    loss, gradients, _ = loss_of(**MODES[mode], **settings)
    if method not in SAME_VALUE:
        assert loss != pytest.approx(plain[mode, weight][0], abs=1e-6)
    assert relative_gap(gradients, plain[mode, weight][1]) > 1e-3
    assert math.isfinite(loss)
    assert all(value.isfinite().all() for value in gradients.values())
    assert any(value.abs().sum() > 0 for value in gradients.values())


@pytest.mark.parametrize("method", CALIBRATORS)
def test_trains(run, plain, method):
    settings = settings_of(method)
    weight = settings.get("distillation_weight", 1.0)
    if weight not in plain:
        plain[weight] = run(max_steps=2, distillation_weight=weight)
    off, on = plain[weight], run(max_steps=2, **settings)
    if method in LATE | SAME_VALUE:
        assert on.losses[0] == pytest.approx(off.losses[0], rel=1e-5)
    else:
        assert on.losses[0] != pytest.approx(off.losses[0], rel=1e-5)
    assert on.losses[1] != pytest.approx(off.losses[1], rel=1e-5)
    assert all(math.isfinite(value) for value in on.losses + on.grad_norms)
    last = on.trainer.state.log_history[1]
    assert last["calibration/strength"] == settings["calibration_strength"]
    if method in POINTWISE and method != "pass_rate":  # which takes from some rows what it gives to others
        assert last["calibration/penalty"] > 0


@pytest.mark.parametrize("kind", ["base", "ema", "live"])
def test_lora_and_full_fine_tuning_of_every_method(loss_of, kind):
    """Each method on each kind of teacher, with an adapter; the reference costs no weights then."""
    for method in CALIBRATORS:
        loss, gradients, trainer = loss_of(peft_config=lora(), teacher_model_kind=kind, **settings_of(method))
        assert math.isfinite(loss), method
        assert all("lora_" in name and "teacher" not in name for name in gradients), method
        assert any(value.abs().sum() > 0 for value in gradients.values()), method
        if CALIBRATORS[method].needs_reference:
            assert trainer.reference.source == "adapter_off", method


@pytest.mark.parametrize("kind", ["base", "ema", "live"])
@pytest.mark.parametrize("peft", [None, lora], ids=["full", "lora"])
@pytest.mark.parametrize("method", ["projection", "purified", "pmi_gate"])
def test_moving_teachers_and_adapters_train(make_trainer, method, kind, peft):
    trainer = make_trainer(
        peft_config=peft() if peft else None,
        teacher_model_kind=kind,
        teacher_update_rate=0.5,
        max_steps=2,
        **settings_of(method),
    )
    before = {name: value.clone() for name, value in trainer.model.named_parameters() if value.requires_grad}
    trainer.train()
    after = dict(trainer.model.named_parameters())
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(math.isfinite(line["loss"]) for line in trainer.state.log_history[:2])


@pytest.mark.parametrize("method", DISTILLING)
def test_hybrid_blends_policy_gradient_and_calibrated_distillation(loss_of, method):
    """The loss is (1−w)·policy + w·(distillation with its calibrator), here with w = ½, for the same batch."""
    whole, _, _ = loss_of(distillation_weight=1.0, **settings_of(method))
    half, _, trainer = loss_of(distillation_weight=0.5, **settings_of(method))
    policy = trainer._metrics["train"]["self_distillation/policy_loss"][0]
    assert half == pytest.approx(0.5 * policy + 0.5 * whole, abs=1e-6)
    assert policy == pytest.approx(loss_of(distillation_weight=0.0)[0], abs=1e-6)  # untouched by the calibrator


@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize("method", SHAPING)
def test_shaped_advantages_change_the_policy_gradient_alone(loss_of, method, weight):
    """TRL's surrogate without old log-probabilities is −A·1: its value is minus the mean of the shaped advantages."""
    settings = settings_of(method) | {"distillation_weight": weight}
    shaped, gradients, trainer = loss_of(**settings)
    plain, unshaped, other = loss_of(distillation_weight=weight)
    policies = [t._metrics["train"]["self_distillation/policy_loss"][0] for t in (trainer, other)]
    assert (policies[0] == pytest.approx(policies[1], abs=1e-6)) == (method in SAME_VALUE)
    assert relative_gap(gradients, unshaped) > 1e-3
    assert shaped - plain == pytest.approx((1 - weight) * (policies[0] - policies[1]), abs=1e-6)


@pytest.mark.parametrize("method", DISTILLING)
def test_refused_without_distillation(make_trainer, method):
    with pytest.raises(ValueError, match="cannot act with distillation_weight=0"):
        make_trainer(distillation_weight=0.0, **settings_of(method))


class Halving(Weight):
    """Every token counts half."""

    name, dial, suggested, strength_range = "halving", "h", 1.0, (0.0, 1.0)

    def weights(self, stats, strength):
        return torch.full(stats.completion_ids.shape, 0.5)


def test_weights_leave_the_denominator_alone(make_trainer):
    """Half the weight on every token is half the loss; dividing by the sum of weights would give the same loss again."""
    losses = []
    for calibrator in (None, Halving()):
        trainer = make_trainer(calibration_strength=1.0 if calibrator else 0.0)
        trainer.calibrator = calibrator or trainer.calibrator
        nudge(trainer)
        losses.append(loss_and_gradients(trainer, fixed_batch(trainer))[0])
    assert losses[1] == pytest.approx(0.5 * losses[0], rel=1e-6)


class Ones(Penalty):
    """One nat at every token."""

    name, dial, suggested, strength_range = "ones", "λ", 1.0, (0.0, 10.0)

    def penalty(self, views, strength):
        return views.student.sum(-1) * 0 + 1.0


@pytest.mark.parametrize(("reduction", "expected"), [("upstream", 0.25), ("active_rows", 0.5), ("token_mean", 0.5)])
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_penalty_is_scaled_by_the_strength_and_reduced_like_the_loss(make_trainer, reduction, expected, chunk_size):
    """Two of four rows are active: TRL's mean over all rows halves a constant penalty of ½·1, the others do not."""
    losses = []
    for calibrator in (None, Ones()):
        trainer = make_trainer(
            loss_reduction=reduction, calibration_strength=0.5 if calibrator else 0.0, chunk_size=chunk_size
        )
        trainer.calibrator = calibrator or trainer.calibrator
        losses.append(loss_and_gradients(trainer, fixed_batch(trainer, (1.0, 0.0, 1.0, 0.0)))[0])
    assert losses[1] - losses[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("method", DISTILLING)
def test_no_gradient_where_nothing_is_counted(make_trainer, method):
    """Logits of padding and of rows without a teacher context get none; those of all counted positions do."""
    trainer = make_trainer(**settings_of(method), distillation_alpha=1.0)
    nudge(trainer)
    inputs = fixed_batch(trainer)
    micro = trainer._compute_teacher_student_logits(trainer.model, trainer.teacher_model, inputs)
    assert isinstance(micro, MicroBatch)
    assert isinstance(micro.student, LogitScores)
    micro.student.logits.retain_grad()
    trainer._compute_self_distillation_loss(trainer.model, inputs, micro).backward()
    size = micro.student.logits.grad.abs().sum(-1)
    assert micro.inputs["completion_ids"].shape == (3, 5)  # row 1 and two columns of padding are gone
    counted = micro.inputs["completion_mask"].bool().flatten()
    assert (size[~counted] == 0).all()
    assert (size[counted] > 0).sum() >= (1 if method in ("routing", "clip", "pass_rate") else counted.sum())


def test_schedule_changes_the_strength_over_the_run(make_trainer):
    trainer = make_trainer(calibration_strength=0.8, calibration_schedule="linear:0->1@2")
    trainer.train()
    strengths = [line["calibration/strength"] for line in trainer.state.log_history if "loss" in line]
    assert strengths == pytest.approx([0.0, 0.4, 0.8])


def test_the_gate_of_anti_sd_opens_after_its_warm_up(make_trainer):
    trainer = make_trainer(
        calibration_method="anti_sd",
        calibration_strength=0.5,
        calibration_kwargs={"warmup_steps": 2},
        distillation_weight=0.5,
    )
    strengths = []
    step = trainer.training_step

    def noting(*args, **kwargs):
        strengths.append(trainer.current_strength())
        return step(*args, **kwargs)

    trainer.training_step = noting
    trainer.train()
    assert strengths == [0.0, 0.0, 0.5]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_other_float_types(make_trainer, model_path, dtype, chunk_size):
    from transformers import AutoModelForCausalLM

    for method in CALIBRATORS:
        trainer = make_trainer(
            model=AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype),
            chunk_size=chunk_size,
            **settings_of(method),
        )
        nudge(trainer)
        loss, gradients = loss_and_gradients(trainer, fixed_batch(trainer))
        assert math.isfinite(loss), method
        assert all(value.dtype == dtype and value.isfinite().all() for value in gradients.values()), method
