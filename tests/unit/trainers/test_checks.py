"""Mistakes in model and data are found when the trainer is made, with one paragraph each."""

import warnings

import pytest
from datasets import Dataset

from calibrated_sd.errors import ConfigError, ContextError, DataError


def rows(count, **columns):
    return Dataset.from_list([{"prompt": f"question {i}", **columns} for i in range(count)])


def test_too_few_prompts_for_a_generation_batch(make_trainer):
    """8 rollouts in groups of 4 need 2 prompts; TRL trains 0 steps with 1."""
    make_trainer(train_dataset=rows(2))
    with pytest.raises(DataError, match=r"1 rows, but one generation batch takes 2 different prompts .* 0 steps"):
        make_trainer(train_dataset=rows(1))


def test_trl_trains_nothing_in_that_case(make_trainer):
    """The defect itself, so that we notice when TRL repairs it."""
    trainer = make_trainer(upstream=True, train_dataset=rows(1))
    trainer.train()
    assert trainer.state.global_step == 0


def test_empty_data(make_trainer):
    with pytest.raises(DataError, match="empty"):
        make_trainer(train_dataset=Dataset.from_dict({"prompt": []}))


def test_streamed_data(make_trainer):
    with pytest.raises(DataError, match="streamed"):
        make_trainer(train_dataset=rows(2).to_iterable_dataset())


def test_no_prompt_column(make_trainer):
    with pytest.raises(DataError, match=r"no column 'prompt'; its columns are question\."):
        make_trainer(train_dataset=Dataset.from_dict({"question": ["a", "b"]}))


@pytest.mark.parametrize(
    "settings", [{"context_levels": "solution"}, {"context_levels": "stripped", "context_demo": "solution"}]
)
def test_no_solution_column(make_trainer, settings):
    with pytest.raises(DataError, match=r"no column 'solution'; its columns are prompt, answer\. The context levels"):
        make_trainer(train_dataset=rows(2, answer="a"), **settings)
    make_trainer(train_dataset=rows(2, solution="a"), **settings)


def test_no_solution_column_is_needed_for_rollouts(make_trainer):
    make_trainer(train_dataset=rows(2), context_levels="rollout:0.5,stripped:0.2,none:0.3")


def test_model_folder_without_tokenizer(make_trainer, word_tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    source = make_trainer().model.config._name_or_path
    AutoModelForCausalLM.from_pretrained(source).save_pretrained(tmp_path / "bare")
    with pytest.raises(ConfigError) as error:
        make_trainer(model=str(tmp_path / "bare"))
    assert str(tmp_path / "bare") in str(error.value)
    with pytest.raises(ConfigError, match="no/such/model"):
        make_trainer(model="no/such/model")
    assert "processing_class" in str(error.value)
    assert "\n" not in str(error.value)


def test_prompt_that_does_not_fit_the_model(make_trainer):
    """The model has 512 positions: n words, plus 2 header tokens, plus 12 for the completion."""
    long = Dataset.from_list([{"prompt": [{"role": "user", "content": " ".join(["plus"] * n)}]} for n in (3, 498)])
    make_trainer(train_dataset=long, max_prompt_length=None)
    longer = Dataset.from_list([{"prompt": [{"role": "user", "content": " ".join(["plus"] * n)}]} for n in (3, 499)])
    with pytest.raises(
        ContextError, match=r"takes 501 tokens .* up to 12, but the model has 512 .* more than 500 tokens"
    ):
        make_trainer(train_dataset=longer, max_prompt_length=None)


def test_prompt_that_trl_would_cut_warns(make_trainer):
    with pytest.warns(UserWarning, match="cuts such prompts from the left"):
        make_trainer(max_prompt_length=5)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*from the left.*")
        make_trainer(max_prompt_length=7)


def test_no_args_means_a_default_config(model_path, dataset, tmp_path, monkeypatch):
    from calibrated_sd.trainers import CalibratedSDPOConfig, CalibratedSDPOTrainer

    monkeypatch.chdir(tmp_path)
    big = Dataset.from_list([dict(dataset[i % 8]) for i in range(8)])
    trainer = CalibratedSDPOTrainer(model_path, lambda completions, **_: [0.0] * len(completions), train_dataset=big)
    assert isinstance(trainer.args, CalibratedSDPOConfig)
    assert trainer.args.output_dir == f"{model_path.rsplit('/', 1)[-1]}-SDPO"
    assert trainer.calibration.calibration_strength == 0.0


def test_trl_cannot_do_without_args(model_path, dataset):
    from trl.experimental.sdpo import SDPOTrainer

    with pytest.raises(AttributeError):
        SDPOTrainer(model_path, lambda completions, **_: [0.0] * len(completions), train_dataset=dataset)


def test_markers_that_the_tokenizer_does_not_have(make_trainer, tmp_path):
    path = tmp_path / "markers.yaml"
    path.write_text("name: none_of_these\nversion: 1\nmode: word\nphrases:\n  - text: zounds\n    kind: interrupt\n")
    with pytest.raises(ConfigError, match="none_of_these"):
        make_trainer(calibration_strength=1.0, calibration_markers=str(path))
    with pytest.warns(UserWarning, match="figures under `calibration/` are left out"):
        trainer = make_trainer(calibration_markers=str(path))
    trainer.train()
    logged = trainer.state.log_history[0]
    assert not any(key.startswith("calibration/") for key in logged)
    assert logged["epistemic/per_1k"] == 0.0


@pytest.mark.parametrize("markers", ["lexcal", "no/such/file.yaml"])
def test_unknown_marker_set(make_trainer, markers):
    with pytest.raises((ConfigError, DataError)) as error:
        make_trainer(calibration_markers=markers)
    assert markers in str(error.value)
