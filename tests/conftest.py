"""Everything the tests need, made on the spot: a tiny Qwen3, tokenizers, data, rewards. No network."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch

from counted import pytest_terminal_summary  # noqa: F401
from tiny_runs import NUMBERS, QUIET, even_first_token, question

torch.set_num_threads(1)

WORDS = [
    "<pad>",
    "<|end|>",
    "<unk>",
    "<|user|>",
    "<|assistant|>",
    "<think>",
    "</think>",
    "wait",
    "maybe",
    "hmm",
    "perhaps",
    "might",
    "hold",
    "on",
    "check",
    "is",
    "so",
    "then",
    "the",
    "answer",
    "yes",
    "no",
    "red",
    "green",
    "blue",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "plus",
    "minus",
    "times",
    "equals",
    "question",
    "Correct",
    "solution:",
    "Correctly",
    "solve",
    "original",
    "question.",
    "following",
    "feedback",
    "from",
    "your",
    "unsuccessful",
    "earlier",
    "attempt:",
    ",",
    ".",
]
"""A small world of words: five special tokens, the two think tags, five markers, and filler."""

SPECIALS = {"pad_token": "<pad>", "eos_token": "<|end|>", "unk_token": "<unk>"}

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}<|user|> {{ message['content'] }} "
    "{%- else -%}<|assistant|> {{ message['content'] }} <|end|> {%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt %} <|assistant|>{% endif -%}"
)


def build_word_tokenizer():
    """One id per word; the think tags are ordinary words, and the model writes the opening one itself."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        additional_special_tokens=["<|user|>", "<|assistant|>"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        **SPECIALS,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_byte_tokenizer(template: str):
    """One id per byte, with the chat template of that name from the installed TRL, e.g. "qwen3" or "deepseek_r1"."""
    import trl
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, padding_side="left", **SPECIALS)
    tokenizer.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    folder = Path(trl.__file__).parent / "chat_templates"
    tokenizer.chat_template = (folder / f"{template}.jinja").read_text(encoding="utf-8")
    return tokenizer


def build_model(tokenizer, seed: int = 0):
    """A Qwen3 with 2 layers and random weights."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


@pytest.fixture(scope="session")
def word_tokenizer():
    return build_word_tokenizer()


@pytest.fixture(scope="session")
def model_path(tmp_path_factory, word_tokenizer) -> str:
    """A folder with the tiny model and its tokenizer. TRL reads the teacher from disk, hence a folder."""
    path = tmp_path_factory.mktemp("tiny_qwen3")
    build_model(word_tokenizer).save_pretrained(path)
    word_tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture
def byte_model_path(tmp_path):
    """`byte_model_path("qwen3")`: a folder with a byte-level model and the chat template of that name."""

    def make(template: str) -> str:
        path, tokenizer = tmp_path / template, build_byte_tokenizer(template)
        build_model(tokenizer).save_pretrained(path)
        tokenizer.save_pretrained(path)
        return str(path)

    return make


@pytest.fixture(scope="session")
def dataset():
    """Eight questions as chats, with a written solution."""
    from datasets import Dataset

    return Dataset.from_list(
        [
            {
                "prompt": question(number),
                "solution": f"<think> maybe {number} wait check </think> the answer is {number}",
            }
            for number in NUMBERS
        ]
    )


BASE_ARGS = {
    **QUIET,
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 12,
    "max_steps": 3,
    "teacher_model_kind": "base",
    "distillation_mode": "full_logits",
    "distillation_alpha": 0.5,
}
"""Settings of a run of three steps that takes a fraction of a second."""


@pytest.fixture
def make_trainer(model_path, dataset, tmp_path):
    """Make a trainer: `make_trainer(**settings)`, `make_trainer(upstream=True)` for TRL's own class."""

    def make(
        upstream: bool = False,
        model=None,
        train_dataset=None,
        callbacks=None,
        peft_config=None,
        processing_class=None,
        **settings,
    ):
        if upstream:
            from trl.experimental.sdpo import SDPOConfig as Config
            from trl.experimental.sdpo import SDPOTrainer as Trainer
        else:
            from calibrated_sd.trainers import CalibratedSDPOConfig as Config
            from calibrated_sd.trainers import CalibratedSDPOTrainer as Trainer
        settings = {**BASE_ARGS, "output_dir": str(tmp_path / "out"), **settings}
        return Trainer(
            model_path if model is None else model,
            reward_funcs=even_first_token,
            args=Config(**settings),
            train_dataset=dataset if train_dataset is None else train_dataset,
            callbacks=callbacks,
            peft_config=peft_config,
            processing_class=processing_class,
        )

    return make
