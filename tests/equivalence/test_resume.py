"""A run that is stopped and resumed equals the straight run: losses, weights, moving teacher, drawn contexts."""

import warnings

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model_state_dict

from calibrated_sd.trainers.checkpoint import TEACHER_FILE
from calibrated_sd.trainers.dials import DIALS_FILE
from calibrated_sd.trainers.finished import last_finished_checkpoint

KINDS = ["base", "live", "ema"]
EMA = {"teacher_model_kind": "ema", "teacher_update_rate": 0.5}


def lora():
    return LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def teacher_weights(trainer):
    if trainer.teacher_model is not trainer.model:
        return dict(trainer.teacher_model.state_dict())
    return get_peft_model_state_dict(trainer.model, adapter_name="teacher")


@pytest.fixture
def both_ways(make_trainer, finish, tmp_path):
    """Train 3 steps, then resume a new trainer from the checkpoint after step 2."""

    def train(upstream=False, make_peft=None, **settings):
        def build(**more):
            peft_config = make_peft() if make_peft else None
            return make_trainer(upstream=upstream, peft_config=peft_config, **settings, **more)

        straight = finish(build(save_strategy="steps", save_steps=2))
        resumed = finish(build(), resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
        return straight, resumed

    return train


@pytest.mark.parametrize("kind", KINDS)
def test_full_fine_tuning(both_ways, kind):
    settings = {"calibration_method": "floor", "calibration_strength": 1.0, "calibration_schedule": "linear:0->1@3"}
    straight, resumed = both_ways(teacher_model_kind=kind, teacher_update_rate=0.5, **settings)
    assert len(resumed.losses) == 3  # the history of the first two steps is in the checkpoint
    assert resumed.differs_from(straight) == []
    assert resumed.losses[2] != straight.losses[1]


def test_drawn_levels_and_demonstrations(both_ways):
    straight, resumed = both_ways(context_levels="rollout:0.5,none:0.5", demo_choice="random")
    assert resumed.differs_from(straight) == []
    fractions = [run.trainer.state.log_history[2]["contexts/none_fraction"] for run in (straight, resumed)]
    assert fractions[0] == fractions[1]
    assert 0 < fractions[0] < 1


def lost(upstream, why):
    """Our class passes; TRL's own must fail, or this test has stopped testing anything."""
    return pytest.param(upstream, marks=pytest.mark.xfail(strict=True, reason=why) if upstream else ())


@pytest.mark.parametrize("upstream", [lost(False, ""), lost(True, "the EMA teacher restarts from the initial weights")])
def test_ema_teacher_survives(both_ways, upstream):
    straight, resumed = both_ways(upstream=upstream, **EMA)
    theirs, ours = teacher_weights(straight.trainer), teacher_weights(resumed.trainer)
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    assert resumed.losses == straight.losses


@pytest.mark.parametrize("upstream", [lost(False, ""), lost(True, "the adapter 'teacher' is created twice")])
def test_lora_ema_teacher_survives(both_ways, upstream):
    straight, resumed = both_ways(upstream=upstream, make_peft=lora, **EMA)
    theirs, ours = teacher_weights(straight.trainer), teacher_weights(resumed.trainer)
    assert any(value.abs().sum() > 0 for value in theirs.values())
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    assert resumed.differs_from(straight) == []


def test_a_checkpoint_of_trls_own_trainer_warns(make_trainer, tmp_path):
    make_trainer(upstream=True, save_strategy="steps", save_steps=2, **EMA).train()
    with pytest.warns(UserWarning, match="holds no ema_teacher.safetensors"):
        make_trainer(**EMA).train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))


def test_no_teacher_file_where_the_teacher_does_not_move(make_trainer, tmp_path):
    make_trainer(save_strategy="steps", save_steps=2).train()
    assert (tmp_path / "out" / "checkpoint-2" / "model.safetensors").exists()
    assert not (tmp_path / "out" / "checkpoint-2" / "ema_teacher.safetensors").exists()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*ema_teacher.*")
        make_trainer().train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))


MEMORIES = {
    "controller": {
        "calibration_controller": {"target": 0.9, "observe": "both", "baseline_batches": 1, "decay": 0.5},
        "calibration_strength": 0.5,
    },
    "gate": {
        "calibration_method": "anti_sd",
        "calibration_strength": 0.5,
        "calibration_kwargs": {"warmup_steps": 2},
        "distillation_weight": 0.5,
    },
    "triggered schedule": {"context_levels": "rollout:1,none:0", "context_schedule": "triggered"},
}


@pytest.mark.parametrize("chunk_size", [None, 3])
@pytest.mark.parametrize("memory", MEMORIES)
def test_what_the_dials_remember(both_ways, memory, chunk_size):
    straight, resumed = both_ways(**MEMORIES[memory], chunk_size=chunk_size)
    state = straight.trainer.dials.state_dict()
    assert state
    assert resumed.trainer.dials.state_dict() == state
    assert resumed.differs_from(straight) == []


@pytest.mark.parametrize(
    "upstream", [lost(False, ""), lost(True, "the rollouts that are not used up are sampled anew")]
)
@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_between_two_steps_of_the_same_rollouts(make_trainer, finish, tmp_path, upstream, weight):
    """Two optimizer steps for each generation, stopped after the third of four."""
    settings = {
        "upstream": upstream,
        "per_device_train_batch_size": 4,
        "steps_per_generation": 2,
        "distillation_weight": weight,
        "distillation_is_clip": 1.1,
        "max_steps": 4,
    }
    if not upstream:
        settings |= {"calibration_strength": 1.0, "calibration_controller": "density:0.8"}
    straight = finish(make_trainer(save_strategy="steps", save_steps=3, **settings))
    checkpoint = str(tmp_path / "out" / "checkpoint-3")
    resumed = finish(make_trainer(**settings), resume_from_checkpoint=checkpoint)
    assert len(resumed.losses) == 4
    assert resumed.differs_from(straight) == []


def test_a_checkpoint_is_finished_when_trls_state_is_written(make_trainer, tmp_path, monkeypatch):
    """Killed between our files and TRL's, the checkpoint is passed over; the other way round it would lose the teacher."""
    seen = []

    def killed(trainer, model, trial):
        seen.extend(path.name for path in (tmp_path / "out" / "checkpoint-1").iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(transformers.Trainer, "_save_checkpoint", killed)
    trainer = make_trainer(save_strategy="steps", save_steps=1, **EMA)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert {TEACHER_FILE, DIALS_FILE} <= set(seen)
    assert last_finished_checkpoint(tmp_path / "out") is None
