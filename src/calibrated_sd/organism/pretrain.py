"""Pretraining of the organism: a few million words of its own grammar on one CPU core, seeded and resumable."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainingArguments, set_seed

from calibrated_sd.organism.corpus import Mixture, PretrainingBatches
from calibrated_sd.organism.grammar import Habits
from calibrated_sd.organism.species import species
from calibrated_sd.organism.tokenizer import build_tokenizer
from calibrated_sd.trainers.finished import last_finished_checkpoint


@dataclass
class PretrainConfig:
    """Everything that determines the organism's weights; the YAML recipe has the same keys.

    Attributes:
        output_dir: where the checkpoint goes.
        organism: which one, a name of `species.SPECIES`.
        seed: seed of the corpus and of the initial weights.
        n_updates: optimizer steps.
        tokens_per_batch: padded tokens in a batch.
        learning_rate: peak of a cosine schedule with `warmup_steps` of linear warm-up.
        bf16: autocast in bfloat16 (weights stay float32).
        hidden_size, num_layers, num_heads, ffn_size: the Qwen3 configuration.
        habits, mixture: the corpus (see `grammar.Habits` and `corpus.Mixture`).
        save_steps: updates between resumable checkpoints.
        threads: torch threads.
    """

    output_dir: str = "organism-pretrain"
    organism: str = "organism"
    seed: int = 0
    n_updates: int = 6000
    tokens_per_batch: int = 4096
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    weight_decay: float = 0.05
    bf16: bool = True
    hidden_size: int = 128
    num_layers: int = 4
    num_heads: int = 4
    ffn_size: int = 384
    habits: dict[str, float] = field(default_factory=dict)
    mixture: dict[str, float] = field(default_factory=dict)
    save_steps: int = 500
    logging_steps: int = 50
    threads: int = 1


class PretrainTrainer(Trainer):
    """`transformers.Trainer` whose only override is the loss: cross-entropy with one weight per word."""

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        weights = inputs["loss_weights"][:, 1:]
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False).logits[
            :, :-1
        ]
        kept = weights > 0  # prompts carry no loss: leave them out of the softmax
        nll = F.cross_entropy(logits[kept].float(), inputs["input_ids"][:, 1:][kept], reduction="none")
        return (nll * weights[kept]).sum() / weights[kept].sum()


def build_model(config: PretrainConfig, vocab_size: int, eos_token_id: int, pad_token_id: int) -> Qwen3ForCausalLM:
    """The untrained organism (float32)."""
    model_config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_heads,
        head_dim=config.hidden_size // config.num_heads,
        intermediate_size=config.ffn_size,
        tie_word_embeddings=True,
        max_position_embeddings=512,
        eos_token_id=eos_token_id,
        bos_token_id=None,
        pad_token_id=pad_token_id,
    )
    model_config._attn_implementation = "eager"  # faster than sdpa at this size on a CPU
    return Qwen3ForCausalLM(model_config)


def pretrain(config: PretrainConfig, *, resume: bool = False) -> Path:
    """Train the organism and save model and tokenizer to `config.output_dir`.

    Args:
        config: what to train.
        resume: continue from the newest checkpoint in `output_dir`, if there is one. The corpus is a function of the
            step, so the resumed run equals the straight one.

    Returns:
        The folder with `model.safetensors` and the tokenizer.
    """
    torch.set_num_threads(config.threads)
    set_seed(config.seed)
    tokenizer = build_tokenizer(species(config.organism).dialect)
    model = build_model(config, len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id)
    batches = PretrainingBatches(
        tokenizer,
        config.n_updates,
        config.tokens_per_batch,
        config.seed,
        Habits(**config.habits),
        Mixture(**config.mixture),
        config.organism,
    )
    out = Path(config.output_dir)
    checkpoints = out / "checkpoints"
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=config.n_updates,
        per_device_train_batch_size=1,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        bf16=config.bf16,
        use_cpu=True,
        seed=config.seed,
        save_steps=config.save_steps,
        save_total_limit=2,
        logging_steps=config.logging_steps,
        report_to="none",
        remove_unused_columns=False,
        dataloader_num_workers=0,
        train_sampling_strategy="sequential",
    )
    trainer = PretrainTrainer(model=model, args=arguments, train_dataset=batches, data_collator=lambda rows: rows[0])
    last = last_finished_checkpoint(checkpoints) if resume else None
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    model.config.use_cache = True
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out
