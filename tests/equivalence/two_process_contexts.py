"""Run by `test_contexts_on_two_processes.py` under torchrun: builds contexts on two gloo processes."""

import json
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import torch
from datasets import Dataset
from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

from calibrated_sd.trainers.teacher_context.builder import LevelContextBuilder
from calibrated_sd.trainers.teacher_context.config import ContextPlan
from calibrated_sd.trainers.teacher_context.regenerate import cache_path, ensure_regenerated
from calibrated_sd.trainers.teacher_context.thinking_guard import ThinkingGuard
from process_kit import leave

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def reward(completion_ids, **kwargs):
    return [1.0] * len(completion_ids)


def build_trainer(model, folder, plan):
    args = SDPOConfig(
        str(folder / "out"),
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=8,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
        teacher_model_kind="live",
    )
    rows = [
        {"prompt": [{"role": "user", "content": f"question {n}"}], "solution": f"the answer is {n}"} for n in NUMBERS
    ]
    trainer = SDPOTrainer(model, reward, args, Dataset.from_list(rows))
    trainer.calibration = SimpleNamespace(regenerated_cache=str(folder / "cache.jsonl"))
    trainer.teacher_context_builder = LevelContextBuilder(trainer, plan)
    return trainer


def main(folder: Path, model: str) -> None:
    torch.set_num_threads(1)
    trainer = build_trainer(model, folder, ContextPlan({"regenerated": 0.5, "irrelevant": 0.5}))
    rank, tokenizer = trainer.accelerator.process_index, trainer.processing_class
    seen = {"rank": rank, "texts": ensure_regenerated(trainer).texts}
    seen["lines"] = cache_path(trainer).read_text().count("\n")

    # Each process holds one group of four; completions differ in length between the processes.
    def shown(levels):
        builder = LevelContextBuilder(trainer, ContextPlan(levels))
        trainer.teacher_context_builder = builder
        examples = [trainer.train_dataset[rank]] * 4
        builder.examples = examples
        prompts = [row["prompt"] for row in examples]
        prompt_ids = torch.tensor(trainer._tokenize_prompts(prompts))
        text = ["red", "blue green"][rank]
        completion_ids = torch.tensor([tokenizer(text)["input_ids"]] * 4)
        output = {
            "prompt_ids": prompt_ids,
            "prompt_mask": torch.ones_like(prompt_ids),
            "completion_ids": completion_ids,
            "completion_mask": torch.ones_like(completion_ids),
        }
        built = builder.build(output, prompts, torch.tensor([1.0, 1.0, 0.0, 0.0]), feedbacks=[None] * 4)
        width = completion_ids.size(1)
        texts = tokenizer.batch_decode(built["teacher_input_ids"][:, :-width], skip_special_tokens=True)
        return texts, built["self_distillation_mask"].tolist(), builder.last_metrics

    seen["irrelevant"] = shown({"irrelevant": 1.0})
    seen["mixture"] = shown({"irrelevant": 0.5, "none": 0.5})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        guard = ThinkingGuard(trainer.accelerator)
        # Four of four here, none of two there: two thirds of all.
        guard.check_batch([["<think> a"] * 4, ["b"] * 2][rank], [[False] * 4, [False] * 2][rank])
    seen["warnings"] = [str(warning.message) for warning in caught if "completions in a batch" in str(warning.message)]
    (folder / f"process_{rank}.json").write_text(json.dumps(seen))
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
