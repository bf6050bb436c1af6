"""Run by `test_distillation_two_processes.py` under torchrun: the trainers on TRL's stable classes on two gloo processes."""

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from distillation_runs import make_distillation
from peft import LoraConfig
from sft_runs import make_sft

from process_kit import leave
from tiny_runs import NUMBERS

SFT_ARMS = {
    "plain": {},
    "weights": {"token_weights": {"markers": 3.0}},
    "k3": {"calibration_strength": 1.0},
    "full": {"calibration_strength": 1.0, "calibration_kl": "full"},
}
DISTILLATION_ARMS = {
    "plain": {},
    "floor": {"calibration_method": "floor", "calibration_strength": 1.0},
    "levels": {"context_levels": "solution:0.5,none:0.5", "context_mixing": "arith"},
    "controller": {"calibration_controller": "retention:0.8", "calibration_strength": 0.5},
    "lora": {"peft_config": "lora", "calibration_strength": 1.0},
}


def half_of_them_solved() -> Dataset:
    """In their order the first process only ever gets rows without a solution."""
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": f"question {number} plus two equals"}],
                "solution": f"<think> maybe {number} wait </think> the answer is {number}" if index % 4 > 1 else "",
            }
            for index, number in enumerate(NUMBERS)
        ]
    )


def record(trainer) -> dict:
    before = checksum(trainer.model)
    trainer.train()
    steps = [line for line in trainer.state.log_history if "loss" in line]
    return {
        "losses": [line["loss"] for line in steps],
        "grad_norms": [line["grad_norm"] for line in steps],
        "figures": {key: value for key, value in steps[-1].items() if key.startswith(("calib", "epist", "self_d"))},
        "moved": checksum(trainer.model) != before,
        "weights": checksum(trainer.model),
    }


def checksum(model) -> float:
    return sum(parameter.detach().double().sum().item() for parameter in model.parameters())


def main(folder: Path, model: str, processes: int) -> None:
    torch.set_num_threads(1)
    seen = {}
    for name, settings in SFT_ARMS.items():
        trainer = make_sft(model, folder, per_device_train_batch_size=4 // processes, **settings)
        seen[f"sft {name}"] = record(trainer)
    for name, settings in DISTILLATION_ARMS.items() if processes > 1 else ():
        settings = dict(settings)
        if settings.pop("peft_config", None):
            settings["peft_config"] = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
        trainer = make_distillation(
            model, half_of_them_solved(), folder, per_device_train_batch_size=2, shuffle_dataset=False, **settings
        )
        seen[f"distillation {name}"] = record(trainer)
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    (folder / f"{processes}_{rank}.json").write_text(json.dumps(seen))
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
