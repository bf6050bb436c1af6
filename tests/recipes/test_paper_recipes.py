"""The recipes of the paper's models: what the paper says, equal everywhere, and nothing else that differs by accident."""

import re
from functools import cache

import pytest
import yaml

from calibrated_sd.cli.recipes import recipes_root
from calibrated_sd.experiments.train_recipe import parse_recipe

MODELS = ("DeepSeek-R1-Distill-Qwen-7B", "Olmo-3-7B-Instruct", "Qwen3-1.7B", "Qwen3-8B", "Qwen3-8B-no-thinking")
WITHOUT_THINKING = ("Olmo-3-7B-Instruct", "Qwen3-8B-no-thinking")

PROJECTION = {"calibration_method": "projection", "calibration_strength": 1.0, "topk_markers": True}
MIX_TO_FLOOR = {**PROJECTION, "calibration_method": "mix_to_floor"}
HYBRID = {
    "distillation_weight": 0.7,
    "loss_type": "grpo",
    "scale_rewards": "none",
    "epsilon": 0.2,
    "epsilon_high": 0.28,
}
CHANGES = {
    "sdpo_stripped": {"context_levels": "stripped"},
    "sdpo_ema": {"teacher_model_kind": "ema", "teacher_update_rate": 0.05, "teacher_sync_steps": 2},
    "sdpo_projection": PROJECTION,
    "sdpo_mix_to_floor": MIX_TO_FLOOR,
    "hybrid": HYBRID,
    "hybrid_mix_to_floor": {**HYBRID, **MIX_TO_FLOOR},
    "hybrid_open_questions": {
        **HYBRID,
        "distillation_weight": 0.5,
        "context_levels": "stripped",
        "calibration_method": "pass_rate",
        "calibration_strength": 1.0,
        "calibration_kwargs": {"normalise": False},
    },
}
"""All that each method says beside `sdpo` of the same model and variant."""

STRIPPED = {method for method, changes in CHANGES.items() if changes.get("context_levels") == "stripped"}

OF_THE_VARIANT = {
    *("lora_r", "lora_alpha", "gpus", "gradient_accumulation_steps", "steps_per_generation", "learning_rate"),
    *("vllm_gpu_memory_utilization", "vllm_tensor_parallel_size", "save_only_model", "output_dir"),
}
"""Keys in which all weights and LoRA may differ."""

PATHS = sorted(
    path
    for model in MODELS
    for path in (recipes_root() / model).rglob("*.yaml")
    if path.parent.name not in ("sft",) and not path.parent.name.startswith("coverage_")
)


@cache
def keys_of(model, method, variant):
    return yaml.safe_load((recipes_root() / model / method / f"{variant}.yaml").read_text(encoding="utf-8"))


def changed(recipe, other, ignore=("output_dir",)):
    """Keys of `recipe` that `other` lacks or has with another value, and what `other` has alone."""
    new = {k: v for k, v in recipe.items() if k not in ignore and (k not in other or other[k] != v)}
    return new, {k for k in other if k not in recipe and k not in ignore}


def test_the_matrix_is_complete():
    found = {(p.parts[-3], p.parts[-2], p.stem) for p in PATHS}
    methods = ("grpo", "grpo_matched_lr", "sdpo", *CHANGES)
    assert found == {
        (model, method, variant)
        for model in MODELS
        for method in methods
        for variant in ("full", "lora")
        if not (method in STRIPPED and model in WITHOUT_THINKING)  # nothing to strip: the same run as sdpo
    }


@pytest.mark.parametrize("variant", ["full", "lora"])
@pytest.mark.parametrize("model", MODELS)
def test_methods_of_a_model_differ_in_the_method_alone(model, variant):
    sdpo = keys_of(model, "sdpo", variant)
    for method, changes in CHANGES.items():
        if method in STRIPPED and model in WITHOUT_THINKING:
            continue
        new, lost = changed(keys_of(model, method, variant), sdpo)
        assert new == changes, method
        assert lost == set(), method
    grpo, matched = keys_of(model, "grpo", variant), keys_of(model, "grpo_matched_lr", variant)
    assert changed(matched, grpo) == ({"learning_rate": sdpo["learning_rate"]}, set())
    shared = {k: v for k, v in grpo.items() if k in sdpo and k not in ("output_dir", "trainer", "learning_rate")}
    assert shared == {k: sdpo[k] for k in shared}
    assert len(shared) > 25


@pytest.mark.parametrize("path", [p for p in PATHS if p.stem == "lora"], ids=lambda p: "/".join(p.parts[-3:-1]))
def test_lora_differs_from_all_weights_in_size_and_rate_alone(path):
    lora, full = (keys_of(*path.parts[-3:-1], variant) for variant in ("lora", "full"))
    new, lost = changed(lora, full)
    assert set(new) | lost <= OF_THE_VARIANT
    assert (lora["lora_r"], lora["lora_alpha"]) == (64, 128)
    assert lora["learning_rate"] == pytest.approx(10 * full["learning_rate"])


@pytest.mark.parametrize("method", ["grpo", "sdpo"])
@pytest.mark.parametrize("variant", ["full", "lora"])
def test_models_differ_in_the_model_and_its_size_alone(method, variant):
    first = keys_of(MODELS[0], method, variant)
    allowed = {"model", "chat_template_kwargs", *OF_THE_VARIANT} - {"learning_rate", "lora_r", "lora_alpha"}
    for model in MODELS[1:]:
        new, lost = changed(keys_of(model, method, variant), first)
        assert set(new) | lost <= allowed, model


@pytest.mark.parametrize("path", PATHS, ids=lambda p: "/".join(p.parts[-3:]))
def test_two_updates_of_half_the_prompts_in_every_step(path):
    run, settings = parse_recipe(path, [], on_this_machine=False)
    prompts = 256 if path.stem == "full" else 64  # of §5, of §6.2
    processes = settings.per_device_train_batch_size * run.gpus
    assert processes * settings.gradient_accumulation_steps == prompts // 2 * 8
    assert processes * settings.steps_per_generation == prompts * 8
    # A generation batch must hold whole groups, on every process.
    assert settings.per_device_train_batch_size * settings.steps_per_generation % settings.num_generations == 0
    assert (settings.max_steps, settings.warmup_steps, settings.save_steps) == (
        200,
        20,
        20,
    )  # 100, 10 and 10 of the paper's
    assert settings.vllm_max_model_length == 2048 + settings.max_completion_length == 22528
    assert run.gpu_memory_gib == 80
    assert not settings.use_cpu


def test_the_papers_values_of_sdpo():
    sdpo = keys_of("DeepSeek-R1-Distill-Qwen-7B", "sdpo", "full")
    expected = {
        **{"learning_rate": 1e-5, "adam_beta1": 0.9, "adam_beta2": 0.999, "weight_decay": 0.01, "max_grad_norm": 1.0},
        **{"max_prompt_length": 2048, "max_completion_length": 20480, "max_reprompt_len": 22528, "temperature": 1.0},
        **{"distillation_alpha": 0.5, "distillation_topk": 100, "distillation_add_tail": True},
        **{"distillation_is_clip": 2.0, "success_reward_threshold": 0.5, "dont_reprompt_on_self_success": True},
        **{"teacher_model_kind": "base", "context_levels": "rollout", "num_generations": 8},
    }
    assert {key: sdpo[key] for key in expected} == expected


def test_the_papers_values_of_grpo():
    grpo = keys_of("DeepSeek-R1-Distill-Qwen-7B", "grpo", "full")
    expected = {
        **{"trainer": "grpo", "learning_rate": 1e-6, "scale_rewards": "none", "epsilon": 0.2, "epsilon_high": 0.28},
        **{"delta": 3.0, "beta": 0.0, "entropy_coef": 0.0, "vllm_importance_sampling_mode": "token_truncate"},
        **{"vllm_importance_sampling_clip_max": 2.0},
    }
    assert {key: grpo[key] for key in expected} == expected


@pytest.mark.parametrize("path", PATHS, ids=lambda p: "/".join(p.parts[-3:]))
def test_values_name_their_source(path):
    free = {"trainer", "model", "vllm_mode", "per_device_train_batch_size", "output_dir", "logging_steps"}
    for line in path.read_text(encoding="utf-8").splitlines():
        found = re.match(r"(\w+): \S.*?(?:\s# (.+))?$", line)
        if found and found.group(1) not in free | {"report_to", "vllm_max_model_length"}:
            assert re.match(r"ours\b|released code\b|paper (§|app)", found.group(2) or ""), line


def test_thinking_is_said_where_the_template_asks():
    said = {model: keys_of(model, "sdpo", "full").get("chat_template_kwargs") for model in MODELS}
    assert said == {
        "DeepSeek-R1-Distill-Qwen-7B": None,
        "Olmo-3-7B-Instruct": None,
        "Qwen3-1.7B": {"enable_thinking": True},
        "Qwen3-8B": {"enable_thinking": True},
        "Qwen3-8B-no-thinking": {"enable_thinking": False},
    }


COVERAGE = recipes_root() / "Qwen3-8B-no-thinking"


@pytest.mark.parametrize("method", ["grpo", "sdpo", "sdpo_mix_to_floor"])
def test_coverage_runs_differ_in_the_problems_alone(method):
    folder = COVERAGE / f"coverage_{method}"
    runs = {p.stem: yaml.safe_load(p.read_text(encoding="utf-8")) for p in folder.glob("*.yaml")}
    files = {"d1": "1x64", "d8": "8x8", "d64": "64", "d128": "128", "d512": "512", "d_all": "full"}
    assert {name: run["problems"] for name, run in runs.items()} == {
        name: f"data/coverage/{file}.jsonl" for name, file in files.items()
    }
    for name, run in runs.items():
        new, _ = changed(run, runs["d_all"])
        assert set(new) <= {"problems", "repeat_problems"}
        # 64 prompts a step: fewer problems are repeated, so that every run makes as many rollouts.
        assert run.get("repeat_problems", False) == (name in ("d1", "d8"))
        assert run["steps_per_generation"] * run["gpus"] == 64 * 8
        assert run["gradient_accumulation_steps"] * run["gpus"] == 32 * 8
    new, lost = changed(runs["d_all"], keys_of("Qwen3-8B-no-thinking", method, "full"))
    assert set(new) == {"problems", "gradient_accumulation_steps", "steps_per_generation"}
    assert lost == set()


def test_sft_recipes_differ_in_the_data_and_the_calibration_alone():
    folder = recipes_root() / "DeepSeek-R1-Distill-Qwen-7B" / "sft"
    runs = {p.stem: yaml.safe_load(p.read_text(encoding="utf-8")) for p in folder.glob("*.yaml")}
    files = {"d_ug": "D_ug", "d_sg": "D_sg", "d_ug_token_matched": "D_ug_token_matched", "d_sg_calibrated": "D_sg"}
    assert {name: run["problems"] for name, run in runs.items()} == {
        k: f"off_policy/{v}.jsonl" for k, v in files.items()
    }
    for name in ("d_sg", "d_ug_token_matched"):
        assert set(changed(runs[name], runs["d_ug"])[0]) == {"problems"}
    new, lost = changed(runs["d_sg_calibrated"], runs["d_sg"])
    assert {key: new[key] for key in ("calibration_kl", "calibration_strength")} == {
        "calibration_kl": "full",
        "calibration_strength": 5.0,
    }
    assert all(key.startswith("calibration_") or key == "chunk_size" for key in new)
    assert lost == set()
    assert runs["d_ug"]["max_length"] == 2048 + 32768  # prompt and longest sampled answer: no end-of-turn token is cut
