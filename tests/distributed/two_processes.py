"""Run by `test_two_processes.py` under torchrun: trains on two gloo processes and writes what each of them saw."""

import hashlib
import json
import sys
import traceback
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig

from process_kit import leave, resumes_on_cpus

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")


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
    rows = [{"prompt": [{"role": "user", "content": f"question {word}"}]} for word in WORDS]
    return Trainer(model, reward, args, Dataset.from_list(rows), peft_config=peft_config)


def build_sdft(model, folder, **settings):
    from calibrated_sd.trainers import CalibratedSDFTConfig, CalibratedSDFTTrainer

    args = CalibratedSDFTConfig(output_dir=str(folder / "sdft"), **settings)
    rows = [
        {"prompt": [{"role": "user", "content": f"question {word}"}], "privileged_context": f"the answer is {word}"}
        for word in WORDS
    ]
    return CalibratedSDFTTrainer(model, args=args, train_dataset=Dataset.from_list(rows))


def build_distillation(model, folder, **settings):
    from calibrated_sd.trainers.distillation.trainer import CalibratedDistillationConfig, CalibratedDistillationTrainer

    own = {"num_generations", "teacher_model_kind", "distillation_mode", "distillation_alpha"}
    settings = {key: value for key, value in settings.items() if key not in own}
    args = CalibratedDistillationConfig(output_dir=str(folder / "distillation"), **settings)
    rows = [{"prompt": [{"role": "user", "content": f"question {w}"}], "solution": f"it is {w}"} for w in WORDS]
    return CalibratedDistillationTrainer(model, args=args, train_dataset=Dataset.from_list(rows))


def fingerprint(model):
    """Equal if and only if all parameters are, bit for bit."""
    digest = hashlib.sha256()
    for _, parameter in sorted(model.named_parameters()):
        digest.update(parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def lora():
    return LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")


EMA = {"teacher_model_kind": "ema", "teacher_update_rate": 0.5}
FLOOR = {"calibration_method": "floor", "calibration_strength": 1.0}


def arms(untied):
    """Settings of each arm; `model` and `peft_config` apart."""
    return {
        "strength 0": {},
        "projection": {"calibration_method": "projection", "calibration_strength": 1.0},
        "floor, active rows": {**FLOOR, "loss_reduction": "active_rows"},
        "ema": {"calibration_strength": 1.0, **EMA},
        "mixture of levels": {"context_levels": "rollout:0.5,none:0.5", "context_mixing": "arith"},
        "lora ema": {"calibration_strength": 1.0, **EMA, "peft_config": lora()},
        "chunked": {"chunk_size": 3, **FLOOR},
        "chunked, head of its own": {"chunk_size": 3, **FLOOR, "model": untied},
        "chunked hybrid, head of its own": {"chunk_size": 3, "distillation_weight": 0.5, "model": untied},
        "chunked lora ema, checkpointed": {
            "chunk_size": 3,
            **EMA,
            **FLOOR,
            "peft_config": lora(),
            "gradient_checkpointing": True,
        },
        # One group over both processes: half of it succeeds.
        "pass rate of a straddling group": {
            "calibration_method": "pass_rate",
            "calibration_strength": 1.0,
            "distillation_weight": 0.5,
            "num_generations": 8,
        },
        "shaped advantages": {
            "calibration_method": "anti_sd",
            "calibration_strength": 0.5,
            "calibration_kwargs": {"warmup_steps": 1},
            "distillation_weight": 0.5,
            "chunk_size": 3,
        },
        "controller": {"calibration_controller": {"target": 0.8, "observe": "both", "baseline_batches": 1}},
    }


def watch(trainer, **kwargs):
    """Train, and say everything that both processes must agree on."""
    before = fingerprint(trainer.model)
    trainer.train(**kwargs)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        "steps": trainer.state.global_step,
        "moved": fingerprint(trainer.model) != before,
        "weights": fingerprint(trainer.model),
        "teacher": fingerprint(trainer.teacher_model or trainer.model),
        "dials": trainer.dials.state_dict() if hasattr(trainer, "dials") else {},
        "losses": [entry["loss"] for entry in logged],
        "figures": {key: value for key, value in logged[-1].items() if key.startswith(("calib", "epist", "self_d"))},
    }


def main(folder: Path, model: str, untied: str, settings: dict) -> None:
    torch.set_num_threads(1)
    seen = {}
    for name, changes in arms(untied).items():
        changes = dict(changes)
        seen[name] = watch(build(False, changes.pop("model", model), folder, **{**settings, **changes}))
    rewardless = {key: value for key, value in settings.items() if key != "num_generations"}
    seen["sdft, chunked"] = watch(build_sdft(untied, folder, **rewardless, **FLOOR, chunk_size=3, num_generations=2))
    seen["self-teacher, head of its own"] = watch(build_distillation(untied, folder, **settings, **FLOOR))

    # Stopped between two steps of the same rollouts, with a moving teacher and a controller.
    resumed = {**settings, **EMA, "steps_per_generation": 2, "max_steps": 4, "per_device_train_batch_size": 2}
    resumed |= {"calibration_controller": {"target": 0.8, "baseline_batches": 1}, "num_generations": 2}
    saving = {"save_strategy": "steps", "save_steps": 1}
    seen["straight"] = watch(build(False, model, folder, **{**resumed, **saving}))
    if resumes_on_cpus():
        seen["resumed"] = watch(
            build(False, model, folder, **resumed), resume_from_checkpoint=str(folder / "out" / "checkpoint-1")
        )

    # One group of four over two processes: two rollouts on each.
    for upstream in (True, False):
        trainer = build(upstream, model, folder, **{**settings, "per_device_train_batch_size": 2})
        rollouts = trainer.sample_rollouts([{"prompt": [{"role": "user", "content": "question one"}]}] * 2)
        seen["trl rollouts" if upstream else "our rollouts"] = trainer._get_completion_ids_list(rollouts)
    rank = torch.distributed.get_rank()
    (folder / f"process_{rank}.json").write_text(json.dumps(seen))
    leave()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4]))
    except BaseException:
        traceback.print_exc()
        raise
