"""Memory by phase on a run worked out by hand, and the change that an impossible plan is given."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest

from calibrated_sd.planning import GIB, model_shape, plan_run
from calibrated_sd.planning.verdict import candidates
from calibrated_sd.trainers import CalibratedSDPOConfig

SHAPE = model_shape("Qwen/Qwen3-1.7B")
TABLES = 4 * 151_936 / GIB  # GiB of one float32 row of logits


def run_of(**changes):
    given = {"trainer": "sdpo", "lora_r": 0, "lora_target_modules": None, "gpus": 1, "gpu_memory_gib": None}
    return SimpleNamespace(**{**given, **changes})


def settings_of(tmp_path, **changes):
    given = {
        "model_init_kwargs": {"dtype": "bfloat16"},
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_generations": 8,
        "max_completion_length": 4096,
        "max_prompt_length": 512,
        "max_steps": 100,
        "teacher_model_kind": "base",
        "distillation_mode": "topk_logits",
        "distillation_topk": 100,
        "distillation_alpha": 0.5,
        "calibration_metrics": "off",
    }
    settings = CalibratedSDPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **{**given, **changes})
    settings.use_cpu, settings.bf16 = False, True  # of another machine
    return settings


def sizes(plan, phase):
    return {p.name: p.size / GIB for p in plan.memory.parts if p.phase == phase}


def test_by_hand(tmp_path):
    plan = plan_run(run_of(), settings_of(tmp_path), SHAPE)
    always = sizes(plan, "always")
    billions = 1_720_574_976 / GIB
    assert always == {
        "weights": pytest.approx(2 * billions),
        "gradients": pytest.approx(2 * billions),
        "optimizer states": pytest.approx(4 * billions),
        "base teacher": pytest.approx(2 * billions),
        "CUDA context, allocator": 1.0,
    }
    # 4 rows · 4096 positions; 5 tables, and half a one for the logits in bf16
    assert sizes(plan, "loss")["logits and loss"] == pytest.approx(5.5 * 4 * 4096 * TABLES)
    # 8 completions at once of 512 + 4096 tokens: keys and values, 28 layers, 8 heads of 128, 2 bytes
    assert sizes(plan, "generation")["keys and values"] == pytest.approx(8 * 4608 * 2 * 28 * 8 * 128 * 2 / GIB)
    # one hidden state per block
    assert sizes(plan, "backward")["activations"] == pytest.approx(4 * 4608 * 2048 * 2 * 28 / GIB)
    assert plan.memory.teacher_prompt_tokens == 512 + 4096 + 64
    assert plan.memory.peak_phase == "loss"
    assert plan.fits is None
    assert "Give gpu_memory_gib" in plan.verdict
    loaded = json.loads(json.dumps(plan.as_dict()))
    assert loaded["peak_gib"] == round(plan.memory.peak / GIB, 2)


def test_old_logps_of_all_rollouts_at_once(tmp_path):
    """Two updates of the same rollouts: TRL scores them in one pass, 4 rows · 4 slices; with chunks a chunk."""
    reuse = {"steps_per_generation": 4, "gradient_accumulation_steps": 2}
    whole = plan_run(run_of(), settings_of(tmp_path, **reuse), SHAPE)
    phase = "old log-probabilities"
    assert sizes(whole, phase)["logits of all rollouts"] == pytest.approx(3 * 16 * 4096 * TABLES)
    chunked = plan_run(run_of(), settings_of(tmp_path, **reuse, chunk_size=256), SHAPE)
    assert sizes(chunked, phase)["logits of all rollouts"] == pytest.approx(3 * 256 * TABLES)


def test_vllm_takes_its_share(tmp_path):
    own = settings_of(tmp_path, use_vllm=True, vllm_gpu_memory_utilization=0.3)
    plan = plan_run(run_of(gpu_memory_gib=80), own, SHAPE)
    assert sizes(plan, "always")["vLLM"] == pytest.approx(24)
    asleep = settings_of(tmp_path, use_vllm=True, vllm_gpu_memory_utilization=0.3, vllm_enable_sleep_mode=True)
    assert sizes(plan_run(run_of(gpu_memory_gib=80), asleep, SHAPE), "generation") == {"vLLM": pytest.approx(24)}
    served = settings_of(tmp_path, use_vllm=True, vllm_mode="server")
    assert "generation" not in plan_run(run_of(gpu_memory_gib=80), served, SHAPE).memory.phases


def test_the_loss_of_long_completions_is_what_chunks_are_for(tmp_path):
    settings = settings_of(tmp_path)
    plan = plan_run(run_of(gpu_memory_gib=48), settings, SHAPE)
    assert plan.fits is False
    found = re.search(r"Set chunk_size: 256: ([\d.]+) → ([\d.]+) GiB\.$", plan.verdict)
    assert found, plan.verdict
    assert float(found[1]) == pytest.approx(plan.memory.peak / GIB, abs=0.05)
    # what is promised is what the changed plan says, and it fits
    changed = plan_run(run_of(gpu_memory_gib=48), settings_of(tmp_path, chunk_size=256), SHAPE)
    assert changed.fits
    assert float(found[2]) == pytest.approx(changed.memory.peak / GIB, abs=0.05)
    assert "\n" not in plan.verdict


def test_two_changes_where_one_is_not_enough(tmp_path):
    plan = plan_run(run_of(gpu_memory_gib=21), settings_of(tmp_path), SHAPE)
    assert plan.fits is False
    assert " and " in plan.verdict.split("Set ")[1]


def test_nothing_helps_and_it_says_so(tmp_path):
    plan = plan_run(run_of(gpu_memory_gib=2), settings_of(tmp_path), SHAPE)
    assert "No change that the planner knows makes it fit; the smallest found is" in plan.verdict
    assert "smaller model or larger GPUs" in plan.verdict


def test_a_change_keeps_the_batch(tmp_path):
    settings = settings_of(tmp_path)
    before = plan_run(run_of(), settings, SHAPE).steps
    (smaller,) = [c for c in candidates(run_of(), settings) if "per_device_train_batch_size" in c.fields]
    run, changed = smaller.apply(run_of(), settings)
    after = plan_run(run, changed, SHAPE).steps
    assert after.sequences_per_step == before.sequences_per_step
    assert after.rollouts_per_generation == before.rollouts_per_generation
    assert settings.per_device_train_batch_size == 4  # the original is as it was


def test_chunks_are_not_offered_where_weights_are_sharded(tmp_path):
    settings = settings_of(tmp_path)
    settings.deepspeed = {"zero_optimization": {"stage": 3}}
    offered = [change.text for change in candidates(run_of(gpus=8), settings)]
    assert not [text for text in offered if "chunk_size" in text]
