"""The organism's word-level tokenizer: one id per word and per number, `<think>` tags as ordinary words."""

from __future__ import annotations

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from calibrated_sd.organism.dialect import FIRST, Dialect
from calibrated_sd.organism.problem import MAX_NUMBER

SPECIAL = ("<pad>", "<|end|>", "<unk>", "<|user|>", "<|assistant|>")

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}<|user|> {{ message['content'] }} "
    "{%- elif message['role'] == 'assistant' -%} <|assistant|> {{ message['content'] }} <|end|>"
    "{%- else -%}{{ message['content'] }} {%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt %} <|assistant|>{% endif -%}"
)


def build_tokenizer(dialect: Dialect = FIRST) -> PreTrainedTokenizerFast:
    """A Hugging Face tokenizer with a chat template; decoding joins words by one space, so text round-trips.

    The `<think>` tags are not special tokens: a decoded rollout keeps them, as with Qwen3.
    """
    words = [*SPECIAL, *(str(i) for i in range(MAX_NUMBER + 1)), *dialect.vocabulary]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<|end|>",
        unk_token="<unk>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
