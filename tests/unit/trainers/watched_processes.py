"""Run by `test_marker_callback.py` under torchrun: a watched GRPO run on two gloo processes, and what each of them saw."""

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from calibrated_sd.trainers.callbacks import CollapseMonitor, MarkerMassCallback
from process_kit import leave


def reward(completion_ids, **kwargs):
    return [float(ids[0] % 2 == 0) for ids in completion_ids]


def main(folder: Path, model: str, settings: dict) -> None:
    torch.set_num_threads(1)
    rows = [{"prompt": [{"role": "user", "content": f"question {n}"}]} for n in ("one", "two", "three", "four")]
    args = GRPOConfig(output_dir=str(folder / "out"), **settings)
    trainer = GRPOTrainer(model, reward, args, train_dataset=Dataset.from_list(rows))
    callback = MarkerMassCallback(trainer, reference=True)
    counted = []
    callback.text_sums = lambda texts, count=callback.text_sums: counted.append(count(texts)) or counted[-1]
    trainer.add_callback(callback)
    # Any fall of the entropy is an alarm, which ends the run on both processes or on neither.
    fall = {"entropy": {"low": 1.0, "high": 1.0}}
    trainer.add_callback(CollapseMonitor(trainer, signals=fall, baseline=1, smoothing=0.0, patience=1, stop=True))
    trainer.train()
    seen = {
        "steps": trainer.state.global_step,
        "weights": sum(p.detach().double().sum().item() for p in trainer.model.parameters()),
        "counted": counted,
        "figures": [
            {key: value for key, value in line.items() if key.startswith(("epistemic/", "monitor/", "completions/"))}
            for line in trainer.state.log_history
            if "loss" in line
        ],
    }
    (folder / f"process_{torch.distributed.get_rank()}.json").write_text(json.dumps(seen))
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
