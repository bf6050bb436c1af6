"""Checks of model and data when a trainer is made: what TRL would let fail late, or not at all."""

from __future__ import annotations

import os
import warnings
from typing import Any

from transformers import AutoProcessor
from trl.trainer.utils import get_config_model_id

from calibrated_sd.errors import ConfigError, ContextError, DataError
from calibrated_sd.trainers.teacher_context.config import ContextPlan

LONGEST_CHECKED = 16
"""How many of the longest prompts (by characters) are tokenised to see whether they fit."""


def check_data(args: Any, dataset: Any, plan: ContextPlan | None) -> None:
    """Check that the training set can fill a generation batch and has the columns that are needed.

    Raises:
        DataError: it is streamed, empty, smaller than a generation batch (TRL then trains 0 steps without a word), or
            lacks `prompt`, or `solution` where a context level reads it.
    """
    if dataset is None:
        return  # TRL's own message is clear
    columns = list(getattr(dataset, "column_names", None) or [])
    if not hasattr(dataset, "__len__"):
        raise DataError(
            "train_dataset is streamed (it has no length). SDPO repeats each prompt num_generations times, which needs "
            "random access: load it as a datasets.Dataset."
        )
    if len(dataset) == 0:
        raise DataError("train_dataset is empty. Give it at least one row with a `prompt`.")
    if columns and "prompt" not in columns:
        raise DataError(
            f"train_dataset has no column 'prompt'; its columns are {', '.join(columns)}. Rename the column that holds "
            "the question."
        )
    if columns and plan is not None:
        plan.check_columns(columns)
    needed = args.generation_batch_size // args.num_generations
    if len(dataset) < needed:
        raise DataError(
            f"train_dataset has {len(dataset)} rows, but one generation batch takes {needed} different prompts "
            f"(generation_batch_size {args.generation_batch_size} / num_generations {args.num_generations}); TRL would "
            "train 0 steps. Use more prompts, more num_generations, or a smaller per_device_train_batch_size or "
            "steps_per_generation."
        )


def load_processing_class(model: Any, args: Any) -> Any:
    """Load the tokenizer or processor of `model`, as TRL does.

    Raises:
        ConfigError: there is none where the model is.
    """
    where = model if isinstance(model, str) else get_config_model_id(model.config)
    if os.path.isdir(where) and not _holds_tokenizer(where):
        # transformers would make up an empty tokenizer of the model's usual kind.
        raise _no_tokenizer(where, "the folder holds no tokenizer files.")
    revision = (args.model_init_kwargs or {}).get("revision") if isinstance(model, str) else None
    try:
        return AutoProcessor.from_pretrained(
            where,
            revision=revision,
            truncation_side="left",
            padding_side="left",
            trust_remote_code=args.trust_remote_code,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _no_tokenizer(where, reason) from error


def _holds_tokenizer(folder: str) -> bool:
    """True if any file in the folder belongs to a tokenizer, of whatever kind."""
    names = os.listdir(folder)
    return any(name.startswith(("tokenizer", "vocab", "spiece")) or name.endswith((".model", ".bpe")) for name in names)


def _no_tokenizer(where: str, reason: str) -> ConfigError:
    return ConfigError(
        f"No tokenizer could be loaded for the model {where!r}: {reason} Save one beside the model with "
        "tokenizer.save_pretrained(path), or pass processing_class."
    )


def check_tokenizer(processing_class: Any, args: Any, dataset: Any) -> None:
    """Check that a tokenizer can end a completion and write the prompts, before TRL's constructor takes it.

    Raises:
        ConfigError: no end-of-text token, which TRL misses in the middle of the first step, or prompts that are chats
            without a chat template.
    """
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    if getattr(tokenizer, "eos_token_id", 0) is None:
        raise ConfigError(
            "The tokenizer has no eos_token, so no completion could end. Set it before the trainer is made, e.g. "
            "tokenizer.eos_token = '<|endoftext|>' to a token that the model was trained to end with, and pass the tokenizer "
            "as processing_class."
        )
    first = dataset[0]["prompt"] if "prompt" in (getattr(dataset, "column_names", None) or []) else ""
    has_template = (
        getattr(processing_class, "chat_template", None)
        or getattr(tokenizer, "chat_template", None)
        or "chat_template" in (args.chat_template_kwargs or {})
    )
    if isinstance(first, list) and not has_template:
        raise ConfigError(
            "The prompts are chats (lists of messages), but the tokenizer has no chat template. Use the tokenizer of an "
            "instruction-tuned model, set tokenizer.chat_template, or give prompts as text."
        )


def check_vocabulary(model: Any, tokenizer: Any) -> None:
    """Check that the model has a row for every token that texts can hold. More rows than tokens are usual.

    Special tokens that no text needs may lie beyond: some models come with such a tokenizer.

    Raises:
        ConfigError: a token without a row, at which the model would stop with an index error in the middle of a run.
    """
    rows = _embedding_rows(model)
    added = getattr(tokenizer, "added_tokens_decoder", None)
    if rows is None or added is None:
        return
    used = {tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id}
    beyond = {
        token: i
        for token, i in tokenizer.get_vocab().items()
        if i >= rows and (i in used or i not in added or not added[i].special)
    }
    if beyond:
        token = min(beyond, key=lambda name: beyond[name])
        raise _no_row(f"{len(beyond)} of the tokenizer's tokens, the first of them {token!r},", beyond[token], rows)


def _embedding_rows(model: Any) -> int | None:
    rows = getattr(model.get_input_embeddings(), "num_embeddings", None)
    return rows if isinstance(rows, int) and rows > 0 else None


def _no_row(what: str, token_id: int, rows: int) -> ConfigError:
    return ConfigError(
        f"{what} have ids from {token_id}, but the model's embedding has {rows} rows. Pass the tokenizer that belongs to the "
        "model, or give the model more rows with model.resize_token_embeddings(len(tokenizer)) and pass the model itself."
    )


def context_window(model: Any) -> int | None:
    """The number of positions the model has, or None if its config does not say."""
    config = model.config.get_text_config()
    window = getattr(config, "max_position_embeddings", None)
    return window if isinstance(window, int) and window > 0 else None


def check_prompt_lengths(trainer: Any) -> None:
    """Tokenise the longest prompts and see whether they fit.

    Raises:
        ContextError: a prompt and its completion take more positions than the model has.
        ConfigError: a prompt has tokens that the model does not know.
    """
    if "prompt" not in (getattr(trainer.train_dataset, "column_names", None) or []):
        return  # not a datasets.Dataset; its prompts cannot be listed
    window = context_window(trainer.model)
    prompts = sorted(trainer.train_dataset["prompt"], key=lambda prompt: len(str(prompt)))[-LONGEST_CHECKED:]
    tokenized = _tokenized(trainer, prompts)
    rows, largest = _embedding_rows(trainer.model), max((max(ids, default=0) for ids in tokenized), default=0)
    if rows is not None and largest >= rows:
        raise _no_row("Tokens of the prompts", largest, rows)
    longest = max(len(ids) for ids in tokenized)
    kept = longest if trainer.max_prompt_length is None else min(longest, trainer.max_prompt_length)
    room = None if window is None else window - (trainer.max_completion_length or 0)
    if room is not None and kept > room:
        raise ContextError(
            f"The longest prompt takes {kept} tokens and its completion up to {trainer.max_completion_length}, but the "
            f"model has {window} positions. Lower max_completion_length, or drop prompts of more than {room} tokens."
        )
    if longest > kept:
        warnings.warn(
            f"The longest prompt takes {longest} tokens and max_prompt_length is {kept}: TRL cuts such prompts from "
            "the left, which removes the chat header and the beginning of the question. Raise max_prompt_length, or "
            "drop them.",
            stacklevel=2,
        )


def _tokenized(trainer: Any, prompts: list[Any]) -> list[list[int]]:
    """Prompts as the trainer tokenises them, before it cuts them."""
    if not isinstance(prompts[0], list):
        return trainer.processing_class(text=prompts)["input_ids"]
    return trainer.processing_class.apply_chat_template(
        conversation=prompts,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        **(trainer.chat_template_kwargs or {}),
    )["input_ids"]
