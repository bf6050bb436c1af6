"""NaN and infinity are found, named, and kept out of the weights; TRL writes them into every weight."""

import math

import pytest
import torch
from transformers import TrainerCallback

from calibrated_sd.errors import ConfigError, NonFiniteError
from calibrated_sd.trainers import CalibratedSDPOConfig, CalibratedSFTConfig, CalibratedSFTTrainer
from calibrated_sd.trainers.non_finite import bad_gradients, describe_scores
from finished_runs import finish
from tiny_runs import QUIET


class Poison(TrainerCallback):
    """NaN in one gradient, before it is clipped and looked at, at one step."""

    def __init__(self, step, value=math.nan):
        self.step, self.value = step, value
        self.handle = None

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step + 1 == self.step:
            parameter = next(model.parameters())
            self.handle = parameter.register_hook(
                lambda grad: grad.clone().view(-1).index_fill(0, torch.tensor([0]), self.value).view_as(grad)
            )

    def on_step_end(self, args, state, control, **kwargs):
        if self.handle is not None:
            self.handle.remove()
            self.handle = None


def weights(trainer):
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def finite(values):
    return all(bool(torch.isfinite(value).all()) for value in values.values())


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "settings", [{}, {"calibration_method": "mixture", "calibration_strength": 0.5}], ids=["off", "mixture"]
)
def test_a_bad_gradient_stops_training_before_the_weights(make_trainer, settings, value):
    trainer = make_trainer(max_steps=3, **settings)
    trainer.add_callback(Poison(2, value))
    with pytest.raises(NonFiniteError, match=r"At step 2 the gradients.* the weights are good.*on_non_finite='skip'"):
        trainer.train()
    assert trainer.state.global_step == 1
    assert finite(weights(trainer))


@pytest.mark.parametrize(
    "upstream", [pytest.param(True, marks=pytest.mark.xfail(strict=True)), False], ids=["TRL", "ours"]
)
def test_weights_stay_finite(make_trainer, upstream):
    """TRL's own class ends with NaN in its weights, and says nothing."""
    trainer = make_trainer(upstream=upstream, max_steps=2, **({} if upstream else {"on_non_finite": "skip"}))
    trainer.add_callback(Poison(2))
    trainer.train()
    assert finite(weights(trainer))


def test_a_step_that_was_left_out_changes_nothing_and_is_counted(make_trainer):
    before, after = {}, {}

    class Watch(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            before[state.global_step + 1] = weights(trainer)

        def on_step_end(self, args, state, control, model=None, **kwargs):
            after[state.global_step] = weights(trainer)

    trainer = make_trainer(max_steps=3, on_non_finite="skip")
    trainer.add_callback(Poison(2))
    trainer.add_callback(Watch())
    with pytest.warns(UserWarning, match="optimizer step was left out"):
        trainer.train()
    assert all(torch.equal(before[2][name], after[2][name]) for name in before[2])
    assert not all(torch.equal(before[3][name], after[3][name]) for name in before[3])
    counts = [line.get("non_finite/skipped_steps") for line in trainer.state.log_history if "loss" in line]
    assert counts == [None, 1.0, 1.0]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"calibration_method": "mixture", "calibration_strength": 0.5},
        {"calibration_method": "mixture", "calibration_strength": 0.5, "chunk_size": 3},
    ],
    ids=["TRL's loss", "calibrated", "chunked"],
)
def test_the_teacher_is_named(make_trainer, settings):
    """A teacher of NaN: the message says whose logits they are."""
    trainer = make_trainer(max_steps=2, teacher_model_kind="ema", **settings)
    with torch.no_grad():
        for parameter in trainer.teacher_model.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(NonFiniteError, match="the teacher's logits are NaN or infinite at") as caught:
        trainer.train()
    assert "the student's logits" not in str(caught.value)
    assert finite(weights(trainer))


def overflowing(completion_ids, **kwargs):
    return [math.inf if i == 0 else float(ids[0] % 2 == 0) for i, ids in enumerate(completion_ids)]


def test_an_infinite_reward_names_its_function(make_trainer):
    trainer = make_trainer(max_steps=1)
    trainer.reward_funcs, trainer.reward_func_names = [overflowing], ["overflowing"]
    with pytest.raises(NonFiniteError, match=r"rewards of overflowing are infinite for 1 of \d+ rollouts"):
        trainer.train()


def test_an_infinite_reward_may_count_as_unscorable(make_trainer):
    trainer = make_trainer(max_steps=1, on_non_finite="skip", distillation_weight=0.5)
    trainer.reward_funcs, trainer.reward_func_names = [overflowing], ["overflowing"]
    with pytest.warns(UserWarning, match="could not be scored"):
        trainer.train()
    assert finite(weights(trainer))
    assert all(math.isfinite(line["loss"]) for line in trainer.state.log_history if "loss" in line)


def test_ignore_is_trl(make_trainer):
    def run(**settings):
        trainer = make_trainer(max_steps=2, **settings)
        trainer.add_callback(Poison(2))
        return finish(trainer)

    ours, trl = run(on_non_finite="ignore"), run(upstream=True)
    assert not finite(ours.weights)
    assert not finite(trl.weights)


def test_sft_is_guarded_too(model_path, tmp_path):
    from datasets import Dataset

    data = Dataset.from_list([{"prompt": "question one", "completion": "maybe two"}] * 4)
    args = CalibratedSFTConfig(
        **{**QUIET, "output_dir": str(tmp_path / "out"), "max_steps": 2, "per_device_train_batch_size": 2}
    )
    trainer = CalibratedSFTTrainer(model_path, args=args, train_dataset=data)
    trainer.add_callback(Poison(1))
    with pytest.raises(NonFiniteError, match="At step 1"):
        trainer.train()


def test_another_word_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'raise'"):
        CalibratedSDPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, on_non_finite="rais")


def test_gradients_by_hand():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    assert bad_gradients(model) == []
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert bad_gradients(model) == []
    model[1].weight.grad[0, 1] = -math.inf
    model[0].bias.grad[0] = math.nan
    assert bad_gradients(model) == ["0.bias", "1.weight"]


def test_an_impossible_word_is_no_fault():
    """−inf is an outcome of probability 0; a position without any outcome, +inf and NaN are faults."""
    good = torch.tensor([[0.0, -math.inf], [1.0, 2.0]])
    assert describe_scores({"student": good, "reference": None}) == []
    bad = torch.tensor([[-math.inf, -math.inf], [math.inf, 0.0], [math.nan, 0.0], [0.0, 0.0]])
    assert describe_scores({"teacher": bad}) == ["the teacher's logits are NaN or infinite at 3 of 4 positions"]
