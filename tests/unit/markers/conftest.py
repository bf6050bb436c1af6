"""Small tokenizers of every family, built on the spot."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "wait",
    "Wait",
    "hmm",
    "Hmm",
    "maybe",
    "Maybe",
    "perhaps",
    "Perhaps",
    "check",
    "Check",
    "seems",
    "might",
    "likely",
    "like",
    "liked",
    "alternative",
    "actual",
    "may",
    "so",
    "x",
    "=",
    "12",
    ".",
    "the",
    "answer",
    "is",
    ",",
    "no",
    "yes",
    "that",
    "is",
    "right",
    "hold",
    "on",
    "not",
    "sure",
]


def _wrap(backend: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **special)


def byte_level(words: list[str], merges: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level BPE in the manner of GPT-2 and Qwen; without merges every token is one byte."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500 if merges else 257,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    lines = [f"{word} {word}\n{word}" for word in words for _ in range(20)] if merges else []
    backend.train_from_iterator(lines, trainer)
    return _wrap(backend, eos_token="<|end|>", pad_token="<|end|>")


def word_level() -> PreTrainedTokenizerFast:
    words = ["<pad>", "<unk>", *dict.fromkeys(word for word in CORPUS if word.islower() or not word.isalpha())]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _wrap(backend, pad_token="<pad>", unk_token="<unk>")


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """Unigram pieces with "▁" for a space and bytes for whatever is unknown, in the manner of Llama 2."""
    pieces = [("<unk>", 0.0), ("<pad>", 0.0), *((f"<0x{byte:02X}>", -20.0) for byte in range(256))]
    pieces += [("▁", -6.0), *((letter, -8.0) for letter in "abcdefghijklmnopqrstuvwxyz=.,0123456789W")]
    pieces += [(f"▁{word}", -3.0) for word in ("wait", "Wait", "may", "maybe", "check", "the", "so", "x", "is", "like")]
    pieces += [("ly", -4.0), ("wait", -5.0), ("perhap", -4.0), ("▁perhap", -4.0), ("s", -4.0)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _wrap(backend, pad_token="<pad>", unk_token="<unk>")


def word_piece() -> PreTrainedTokenizerFast:
    """Lower-casing WordPiece in the manner of BERT."""
    words = [
        "[PAD]",
        "[UNK]",
        "wait",
        "may",
        "##be",
        "maybe",
        "like",
        "##ly",
        "check",
        "x",
        "=",
        "12",
        ".",
        ",",
        "so",
        "##s",
    ]
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    return _wrap(backend, pad_token="[PAD]", unk_token="[UNK]")


BUILDERS = {
    "byte_level": lambda: byte_level(CORPUS),
    "single_bytes": lambda: byte_level([], merges=False),
    "word_level": word_level,
    "sentencepiece_like": sentencepiece_like,
    "word_piece": word_piece,
}


@pytest.fixture(scope="session")
def tokenizers():
    return {name: build() for name, build in BUILDERS.items()}
