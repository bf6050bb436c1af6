"""Tokenizers that people bring: what does not fit is said when the trainer is made; what is merely unusual works."""

import copy

import pytest
import torch
from datasets import Dataset
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM

from calibrated_sd.errors import ConfigError
from tiny_runs import NUMBERS

PLAIN = [{"prompt": f"question {number} plus two", "solution": "maybe wait"} for number in NUMBERS]


@pytest.fixture
def edited(word_tokenizer):
    """`edited(change)`: a copy of the tokenizer after that change."""

    def make(change):
        tokenizer = copy.deepcopy(word_tokenizer)
        change(tokenizer)
        return tokenizer

    return make


@pytest.fixture
def wide_model(model_path):
    """`wide_model(rows)`: the tiny model with so many rows in its embedding."""

    def make(rows):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(model_path)
        model.resize_token_embeddings(rows, mean_resizing=False)
        return model

    return make


def refused(make, message):
    with pytest.raises(ConfigError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_chats_need_a_chat_template(make_trainer, edited):
    tokenizer = edited(lambda t: setattr(t, "chat_template", None))
    refused(lambda: make_trainer(processing_class=tokenizer), "no chat template")
    make_trainer(processing_class=tokenizer, train_dataset=Dataset.from_list(PLAIN)).train()


def test_a_chat_template_may_come_with_the_settings(make_trainer, edited, word_tokenizer):
    template = word_tokenizer.chat_template
    tokenizer = edited(lambda t: setattr(t, "chat_template", None))
    make_trainer(processing_class=tokenizer, chat_template_kwargs={"chat_template": template})


def test_padding_may_be_missing(make_trainer, edited):
    trainer = make_trainer(
        processing_class=edited(lambda t: setattr(t, "pad_token", None)), calibration_strength=1.0, max_steps=1
    )
    trainer.train()
    assert trainer._tokenizer.pad_token == trainer._tokenizer.eos_token


def test_an_end_is_needed(make_trainer, edited):
    tokenizer = edited(lambda t: setattr(t, "eos_token", None))
    refused(lambda: make_trainer(processing_class=tokenizer), "no eos_token")
    tokenizer.pad_token = None
    refused(lambda: make_trainer(processing_class=tokenizer), "no eos_token")


def test_trl_notices_in_the_first_step(make_trainer, edited):
    """The defect itself, so that we notice when TRL repairs it."""
    trainer = make_trainer(upstream=True, processing_class=edited(lambda t: setattr(t, "eos_token", None)))
    with pytest.raises(TypeError):
        trainer.train()


def test_words_that_the_model_has_no_row_for(make_trainer, edited, wide_model):
    tokenizer = edited(lambda t: t.add_tokens(["zounds", "egads"]))
    refused(
        lambda: make_trainer(processing_class=tokenizer),
        rf"2 of the tokenizer's tokens, the first of them 'zounds', have ids from {len(tokenizer) - 2}, but .* has "
        rf"{len(tokenizer) - 2} rows",
    )
    make_trainer(model=wide_model(len(tokenizer)), processing_class=tokenizer)  # as the message says


def test_a_special_token_beyond_the_model_is_no_harm_until_a_prompt_has_it(make_trainer, edited):
    """Gemma 3's text models come with the token of images, which has no row."""
    tokenizer = edited(lambda t: t.add_tokens([AddedToken("<image>", special=True)], special_tokens=True))
    make_trainer(processing_class=tokenizer, max_steps=1).train()
    rows = Dataset.from_list([{"prompt": f"question <image> {number}"} for number in NUMBERS])
    refused(lambda: make_trainer(processing_class=tokenizer, train_dataset=rows), "Tokens of the prompts have ids from")
    tokenizer.pad_token = "<image>"
    refused(lambda: make_trainer(processing_class=tokenizer), "the first of them '<image>'")


@pytest.mark.parametrize(
    "settings",
    [{}, {"chunk_size": 4}, {"distillation_mode": "topk_logits", "distillation_topk": 4, "topk_markers": True}],
)
def test_a_model_with_more_rows_than_words_is_usual(make_trainer, wide_model, word_tokenizer, settings):
    """Embeddings are padded to multiples of 64 or so; the rows beyond are sampled from a random model, and no text."""
    trainer = make_trainer(
        model=wide_model(256), processing_class=word_tokenizer, calibration_strength=1.0, max_steps=2, **settings
    )
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert len(losses) == 2
    assert all(loss == loss for loss in losses)


def test_sft_refuses_words_without_a_row(model_path, tmp_path, edited):
    from calibrated_sd.trainers import CalibratedSFTConfig, CalibratedSFTTrainer

    tokenizer = edited(lambda t: t.add_tokens(["zounds"]))
    rows = Dataset.from_list([{"prompt": row["prompt"], "completion": row["solution"]} for row in PLAIN])
    args = CalibratedSFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    refused(
        lambda: CalibratedSFTTrainer(model_path, args=args, train_dataset=rows, processing_class=tokenizer), "'zounds'"
    )
