"""Steps and rollouts as TRL and transformers count them, and the runs that would train nothing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.planning.steps import count_steps

RUN = SimpleNamespace(trainer="sdpo", gpus=1)


@pytest.mark.parametrize(
    "settings",
    [
        {"per_device_train_batch_size": 4, "num_train_epochs": 3.0},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_train_epochs": 1.5},
        {
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 1,
            "steps_per_generation": 3,
            "num_iterations": 2,
        },
        {"per_device_train_batch_size": 8, "generation_batch_size": 24, "gradient_accumulation_steps": 2},
        {"per_device_train_batch_size": 4, "max_steps": 5},
    ],
    ids=str,
)
def test_as_the_trainer_counts(make_trainer, settings):
    trainer = make_trainer(**{"max_steps": -1, "num_generations": 4, **settings})
    loader = trainer.get_train_dataloader()
    steps = count_steps(RUN, trainer.args, len(trainer.train_dataset))
    assert steps.optimizer_steps == trainer.set_initial_training_values(trainer.args, loader)[-1]
    assert steps.rollouts_per_generation == trainer.args.generation_batch_size
    assert steps.prompts_per_generation == trainer.args.generation_batch_size // 4


def settings_for(**changes):
    given = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 128, "steps_per_generation": 256}
    given |= {"generation_batch_size": 256, "num_generations": 8, "num_iterations": 1, "max_steps": -1}
    given |= {"num_train_epochs": 2.0, "max_completion_length": 20480}
    return SimpleNamespace(**{**given, **changes})


EIGHT = SimpleNamespace(trainer="sdpo", gpus=8)


def test_eight_gpus_by_hand():
    steps = count_steps(EIGHT, settings_for(), 17_000)
    assert steps.rollouts_per_generation == 1 * 8 * 256
    assert steps.prompts_per_generation == 256
    # 66 whole generation batches an epoch (66·256 = 16,896), 256 micro-batches each, 128 of them an update
    assert steps.optimizer_steps == 2 * 66 * 2
    assert steps.generation_batches == 2 * 66
    assert steps.rollouts == 132 * 2048
    assert steps.sequences_per_step == 1024
    assert steps.generated_rows_per_gpu == 256
    assert steps.completion_tokens_at_most == 132 * 2048 * 20480
    assert steps.has_old_logps  # two updates of the same rollouts
    assert not count_steps(EIGHT, settings_for(gradient_accumulation_steps=256), 17_000).has_old_logps


def test_what_the_recipe_states_counts():
    """The config was made for one process, where generation_batch_size 2048 means 2048 steps per generation."""
    settings = settings_for(generation_batch_size=2048, steps_per_generation=2048)
    steps = count_steps(EIGHT, settings, 17_000, stated=["generation_batch_size"])
    assert steps.rollouts_per_generation == 2048
    assert steps.generated_rows_per_gpu == 256
    odd = settings_for(per_device_train_batch_size=3, generation_batch_size=2048)
    with pytest.raises(ConfigError, match=r"must be divisible by .*= 24"):
        count_steps(EIGHT, odd, 17_000, stated=["generation_batch_size"])


def test_without_the_data():
    steps = count_steps(EIGHT, settings_for(), None)
    assert steps.optimizer_steps is None
    assert steps.rollouts is None
    assert count_steps(EIGHT, settings_for(max_steps=200), None).rollouts == 100 * 2048


def test_runs_that_would_train_nothing():
    with pytest.raises(
        DataError, match=r"has 100 problems, but one generation batch takes 256 .*repeat_problems: true"
    ):
        count_steps(EIGHT, settings_for(), 100)
    with pytest.raises(ConfigError, match="not divisible by num_generations 7"):
        count_steps(EIGHT, settings_for(num_generations=7), 17_000)
    alone = SimpleNamespace(trainer="distillation", gpus=8)
    with pytest.raises(DataError, match="one update takes 1024 different ones"):
        count_steps(alone, settings_for(), 100)


def test_sft_and_distillation():
    sft = SimpleNamespace(trainer="sft", gpus=2)
    settings = settings_for(per_device_train_batch_size=3, gradient_accumulation_steps=4, max_length=100)
    steps = count_steps(sft, settings, 50)
    # ⌈50 / 6⌉ = 9 micro-batches, 4 an update: 3 updates an epoch, the last with one
    assert steps.optimizer_steps == 2 * 3
    assert steps.rollouts == steps.generation_batches == 0
    assert steps.completion_tokens_at_most == 6 * 24 * 100
    distillation = SimpleNamespace(trainer="distillation", gpus=2)
    steps = count_steps(distillation, settings, 50)
    assert steps.optimizer_steps == 2 * 2  # 50 // 24
    assert steps.rollouts == 4 * 24
    assert steps.generated_rows_per_gpu == 12
