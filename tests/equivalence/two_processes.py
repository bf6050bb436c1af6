"""Run by `test_two_processes.py` under torchrun: trains on two gloo processes and writes what each of them saw."""

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig


def reward(completion_ids, trainer_state, **kwargs):
    """The first process never succeeds; on the second every rollout does."""
    return [float(torch.distributed.get_rank() == 1)] * len(completion_ids)


def build(upstream, model, folder, **settings):
    if upstream:
        from trl.experimental.sdpo import SDPOConfig as Config
        from trl.experimental.sdpo import SDPOTrainer as Trainer
    else:
        from calibrated_sd.trainers import CalibratedSDPOConfig as Config
        from calibrated_sd.trainers import CalibratedSDPOTrainer as Trainer
    peft_config = settings.pop("peft_config", None)
    args = Config(output_dir=str(folder / "out"), **settings)
    rows = [{"prompt": [{"role": "user", "content": f"question {n}"}]} for n in ("one", "two", "three", "four")]
    return Trainer(model, reward, args, Dataset.from_list(rows), peft_config=peft_config)


def checksum(model):
    return sum(parameter.detach().double().sum().item() for parameter in model.parameters())


def main(folder: Path, model: str, settings: dict) -> None:
    torch.set_num_threads(1)
    seen = {}
    arms = {
        "strength 0": {},
        "projection": {"calibration_method": "projection", "calibration_strength": 1.0},
        "floor, active rows": {
            "calibration_method": "floor",
            "calibration_strength": 1.0,
            "loss_reduction": "active_rows",
        },
        "ema": {"calibration_strength": 1.0, "teacher_model_kind": "ema", "teacher_update_rate": 0.5},
        "mixture of levels": {"context_levels": "rollout:0.5,none:0.5", "context_mixing": "arith"},
        "lora ema": {
            "calibration_strength": 1.0,
            "teacher_model_kind": "ema",
            "peft_config": LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"),
        },
    }
    for name, changes in arms.items():
        trainer = build(False, model, folder, **{**settings, **changes})
        before = checksum(trainer.model)
        trainer.train()
        logged = [entry for entry in trainer.state.log_history if "loss" in entry]
        seen[name] = {
            "steps": trainer.state.global_step,
            "moved": checksum(trainer.model) != before,
            "weights": checksum(trainer.model),
            "teacher": checksum(trainer.teacher_model),
            "figures": {
                key: value for key, value in logged[-1].items() if key.startswith(("calib", "epist", "self_d"))
            },
        }
    # One group of four over two processes: two rollouts on each.
    for upstream in (True, False):
        trainer = build(upstream, model, folder, **{**settings, "per_device_train_batch_size": 2})
        rollouts = trainer.sample_rollouts([{"prompt": [{"role": "user", "content": "question one"}]}] * 2)
        seen["trl rollouts" if upstream else "our rollouts"] = trainer._get_completion_ids_list(rollouts)
    rank = torch.distributed.get_rank()
    (folder / f"process_{rank}.json").write_text(json.dumps(seen))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
