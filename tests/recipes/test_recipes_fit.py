"""Every recipe fits the hardware that it states, by the planner's count."""

import re
from functools import cache

import pytest
import yaml

from calibrated_sd.cli.recipes import find_recipe, recipes_root, shipped_recipes
from calibrated_sd.experiments.train_recipe import parse_recipe
from calibrated_sd.planning import launch_sharding, model_shape, plan_run, with_sharding

MODELS = [p for p in recipes_root().iterdir() if p.is_dir() and p.name not in ("launch", "organism", "study", "sweeps")]
cached_shape = cache(model_shape)


@pytest.mark.parametrize("folder", MODELS, ids=lambda p: p.name)
def test_all_recipes_of_a_model_fit_their_gpus(folder):
    paths = [p for p in shipped_recipes() if p.is_relative_to(folder)]
    for path in paths:
        text = path.read_text(encoding="utf-8")
        run, settings = parse_recipe(path, [], on_this_machine=False)
        launch = re.search(r"--config_file (\S+)", text)
        if launch:
            file = find_recipe(f"launch/{launch.group(1)}")
            assert yaml.safe_load(file.read_text(encoding="utf-8"))["num_processes"] == run.gpus
            settings = with_sharding(settings, launch_sharding(file))
        else:
            assert run.gpus == 1
        stated = re.search(r"# hardware: (?:(\d+) × (\d+) GiB GPU|one CPU core, (\d+) GiB)", text)
        gpus, gpu_gib, cpu_gib = stated.groups()
        assert cpu_gib or (int(gpus), int(gpu_gib)) == (run.gpus, run.gpu_memory_gib)
        plan = plan_run(run, settings, cached_shape(run.model), stated=list(yaml.safe_load(text)))
        assert plan.memory.peak < int(cpu_gib or gpu_gib) * 2**30, (path, plan.verdict)
        assert plan.steps.optimizer_steps == settings.max_steps or run.trainer == "sft"


def test_without_chunks_the_papers_length_would_not_fit():
    path = find_recipe("Qwen3-8B/sdpo/full")
    run, settings = parse_recipe(path, [], on_this_machine=False)
    settings = with_sharding(settings, "zero2")
    settings.chunk_size = None
    plan = plan_run(run, settings, cached_shape(run.model), stated=list(yaml.safe_load(path.read_text("utf-8"))))
    # One bf16 tensor of logits takes 20480 x 151936 x 2 bytes = 5.8 GiB; the loss holds many such, in float32.
    assert plan.fits is False
    assert "chunk_size: 256" in plan.verdict
