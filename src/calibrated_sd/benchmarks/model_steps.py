"""One SDPO step of a whole model at the sizes of a real one: time, peak memory, and the longest completion that fits.

Meant for a GPU. The model has random weights, so nothing is sampled: completions are random tokens of a given length, all
rows have a teacher context, and a step is what follows generation: the forward passes of student and teacher (and
reference), the loss, the backward pass and the update. TRL's own loss and ours are measured on the same batch.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from calibrated_sd.benchmarks.child import peak_memory
from calibrated_sd.benchmarks.losses import Say
from calibrated_sd.benchmarks.profiles import ModelStepPlan
from calibrated_sd.benchmarks.summaries import median_figure

PROJECTION = {"calibration_method": "projection", "calibration_strength": 1.0}


@dataclass(frozen=True)
class ModelVariant:
    """One trainer that takes part: name and label, and what differs from the plan's settings."""

    name: str
    label: str
    settings: dict[str, Any]


def variants(chunk_size: int) -> tuple[ModelVariant, ...]:
    """TRL's loss and the projection, with and without chunks."""
    chunked = {"chunk_size": chunk_size}
    return (
        ModelVariant("trl", "TRL's loss", {}),
        ModelVariant("chunked", f"the same, chunk_size = {chunk_size}", chunked),
        ModelVariant("projection", "projection", PROJECTION),
        ModelVariant("projection_chunked", f"projection, chunk_size = {chunk_size}", {**PROJECTION, **chunked}),
    )


def model_step_section(plan: ModelStepPlan, device: str, say: Say, seed: int = 0) -> dict[str, Any]:
    """Measure every variant at every length, then look for the longest completion.

    Args:
        plan: the model, the lengths, how often.
        device: ``"cuda"`` or ``"cpu"``; on a CPU peak memory is what a step adds, on a GPU all that is allocated.
        say: told of every measurement.
        seed: of weights and tokens.

    Returns:
        ``{config, n_parameters, dtype, settings, device, device_name, device_bytes, memory_is, variants}``; a variant is
        ``{name, label, settings, lengths: [{completion_tokens, seconds, peak_bytes, measurements}], longest}``. A length
        that does not fit carries ``not_measured``, as does `longest` where it is not looked for.
    """
    on_gpu = device == "cuda"
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path, n_parameters = _save_model(plan, Path(folder), seed)
        for variant in variants(plan.chunk_size):
            with _stepper(plan, variant, path, device, Path(folder)) as step:
                found.append(_measure(plan, variant, step, on_gpu, say))
    return {
        "config": plan.config,
        "n_parameters": n_parameters,
        "dtype": plan.dtype,
        "settings": {"rows": plan.rows, "prompt_tokens": plan.prompt_tokens, **plan.settings},
        "device": device,
        "device_name": torch.cuda.get_device_name() if on_gpu else None,
        "device_bytes": torch.cuda.get_device_properties(0).total_memory if on_gpu else None,
        "memory_is": "all that the allocator gave out" if on_gpu else "resident memory that a step added",
        "variants": found,
    }


def _measure(plan: ModelStepPlan, variant: ModelVariant, step: Step, on_gpu: bool, say: Say) -> dict[str, Any]:
    lengths = []
    for tokens in plan.lengths:
        rows: list[dict[str, Any]] = []
        row: dict[str, Any] = {"completion_tokens": tokens, "measurements": rows}
        for repeat in range(plan.repeats + 1):
            measured = step(tokens)
            if measured is None:
                row["not_measured"] = "out of memory"
                break
            if repeat:  # the first sets libraries up and makes the optimizer's states
                rows.append(measured)
        if "not_measured" not in row:
            row["seconds"] = median_figure([m["seconds"] for m in rows], "s")
            peaks = [m["peak_bytes"] for m in rows if m["peak_bytes"] is not None]
            row["peak_bytes"] = median_figure(peaks, "bytes") if peaks else None
        lengths.append(row)
        say(f"model step: {variant.name}, {tokens} tokens: {_said(row)}")
    result = {"name": variant.name, "label": variant.label, "settings": variant.settings, "lengths": lengths}
    if not on_gpu:
        return {**result, "longest": {"not_measured": "looked for on a GPU only"}}
    longest = longest_that_fits(lambda tokens: step(tokens) is not None, plan.resolution, plan.limit, plan.resolution)
    say(f"model step: {variant.name}, longest completion {longest}")
    return {**result, "longest": {"completion_tokens": longest, "limit": plan.limit, "resolution": plan.resolution}}


def _said(row: dict[str, Any]) -> str:
    if "not_measured" in row:
        return row["not_measured"]
    peak = "" if row["peak_bytes"] is None else f", {row['peak_bytes']['value'] / 2**30:.2f} GiB"
    return f"{row['seconds']['value']:.3g} s{peak}"


def longest_that_fits(fits: Callable[[int], bool], start: int, limit: int, resolution: int) -> int:
    """The largest multiple of `resolution` up to `limit` that fits, or 0: doubled until it fails, then bisected.

    Args:
        fits: whether this many tokens fit; assumed to be true up to some number and false beyond.
        start: first to try, a multiple of `resolution`.
        limit: the most to try.
        resolution: step of the answer, in tokens.
    """
    good, bad = 0, None
    tried = start
    while bad is None and tried <= limit:
        if fits(tried):
            good, tried = tried, tried * 2
        else:
            bad = tried
    if bad is None:
        bad = limit // resolution * resolution + resolution
    while bad - good > resolution:
        middle = (good + bad) // 2 // resolution * resolution
        if middle == good:
            middle += resolution
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


Step = Callable[[int], dict[str, Any] | None]
"""One step with completions of so many tokens: ``{seconds, peak_bytes, loss}``, or None if memory ran out."""


def _save_model(plan: ModelStepPlan, folder: Path, seed: int) -> tuple[str, int]:
    """A model of the plan's configuration with random weights, and the organism's tokenizer beside it."""
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    from calibrated_sd.organism.checkpoint import organism_path

    tokenizer = AutoTokenizer.from_pretrained(str(organism_path()), local_files_only=True)
    torch.manual_seed(seed)
    config = Qwen3Config(**plan.config, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model = Qwen3ForCausalLM(config).to(getattr(torch, plan.dtype))
    path = folder / "model"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path), sum(p.numel() for p in model.parameters())


@contextmanager
def _stepper(plan: ModelStepPlan, variant: ModelVariant, path: str, device: str, folder: Path) -> Iterator[Step]:
    """A trainer of the variant, as a function that does a step; it is let go of at the end."""
    from datasets import Dataset

    from calibrated_sd.trainers.sdpo import CalibratedSDPOConfig, CalibratedSDPOTrainer

    settings = CalibratedSDPOConfig(
        output_dir=str(folder / variant.name),
        use_cpu=device == "cpu",
        bf16=plan.dtype == "bfloat16" and device != "cpu",
        model_init_kwargs={"dtype": plan.dtype},
        report_to="none",
        per_device_train_batch_size=plan.rows,
        num_generations=plan.rows,
        max_completion_length=max(plan.lengths),
        max_steps=1,
        **{**plan.settings, **variant.settings},
    )
    question = [{"role": "user", "content": "maybe"}]
    trainer: Any = CalibratedSDPOTrainer(
        path,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=settings,
        train_dataset=Dataset.from_list([{"prompt": question}] * plan.rows),
    )
    trainer.create_optimizer()
    model = trainer.model
    trainer.model_wrapped = trainer.accelerator.prepare_model(model)
    model.train()
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(settings.gradient_checkpointing_kwargs)
    trainer.current_gradient_accumulation_steps = 1
    try:
        yield partial(_step, trainer, plan)
    finally:
        trainer.model_wrapped = trainer.model = trainer.teacher_model = trainer.optimizer = None
        _let_go()


def _step(trainer: Any, plan: ModelStepPlan, tokens: int) -> dict[str, Any] | None:
    inputs = _batch(trainer, plan, tokens)
    on_gpu = trainer.accelerator.device.type == "cuda"
    try:
        with peak_memory(on_gpu) as peak:
            since = time.perf_counter()
            loss = trainer.compute_loss(trainer.model_wrapped, inputs)
            loss.backward()
            trainer.optimizer.step()
            trainer.optimizer.zero_grad(set_to_none=True)
            if on_gpu:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - since
        total = torch.cuda.max_memory_allocated() if on_gpu else peak[0]
        return {"seconds": seconds, "peak_bytes": total, "loss": float(loss.detach())}
    except torch.OutOfMemoryError:
        trainer.optimizer.zero_grad(set_to_none=True)
    del inputs
    _let_go()  # outside of the handler, whose traceback holds the tensors of the failed step
    return None


def _let_go() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _batch(trainer: Any, plan: ModelStepPlan, tokens: int) -> dict[str, Any]:
    """Random tokens without padding; the teacher's prompt is as long as a question and a completion."""
    device, vocab = trainer.accelerator.device, plan.config["vocab_size"]
    random = torch.Generator().manual_seed(tokens)

    def draw(columns: int) -> torch.Tensor:
        return torch.randint(0, vocab, (plan.rows, columns), generator=random).to(device)

    prompt, completion = draw(plan.prompt_tokens), draw(tokens)
    teacher = torch.cat([draw(plan.prompt_tokens + tokens), completion], dim=1)
    ones = torch.ones(plan.rows, device=device)
    return {
        "prompt_ids": prompt,
        "prompt_mask": torch.ones_like(prompt),
        "completion_ids": completion,
        "completion_mask": torch.ones_like(completion),
        "raw_completion_lengths": torch.full((plan.rows,), tokens, device=device),
        "teacher_input_ids": teacher,
        "teacher_attention_mask": torch.ones_like(teacher),
        "self_distillation_mask": ones,
        "rewards": ones,
        "advantages": ones,
        "marker_mask": torch.isin(completion, trainer.marker_ids),
    }
